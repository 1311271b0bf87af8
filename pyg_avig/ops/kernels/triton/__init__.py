"""The two products of cross-attention in Triton, for GPUs: ``csr.py`` and ``axial.py``, as in cpp/.

Nothing here is imported before a GPU needs it, as Triton is not everywhere. With the environment
variable ``TRITON_INTERPRET=1``, set before the import, Triton interprets the kernels on the CPU.
"""
