"""`python -m benchmarks ops`: tables on the screen, JSON under benchmarks/results/."""

from __future__ import annotations

import sys
import warnings

import torch
from jsonargparse import auto_cli

from benchmarks import ops as ops_module
from benchmarks.timing import environment, save

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def ops(device: str = "cpu", threads: int = 2, dtype: str = "fp32", repeats: int = 9) -> None:
    """The operator on lattices, and the layer on a sparse graph.

    Args:
        device: cpu or cuda.
        threads: CPU threads.
        dtype: fp32, bf16 or fp16.
        repeats: Calls of each rival; the median counts.
    """
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    where = torch.device(device)
    print(environment(where))
    lattice = ops_module.lattice(where, DTYPES[dtype], repeats)
    print("\nThe operator on the lattices of AttentionViG-S, batch 16\n")
    print("\n".join(ops_module.report(lattice)))
    sparse = ops_module.sparse(where, DTYPES[dtype], max(repeats // 3, 3))
    print("\nThe whole layer on a random graph\n")
    print("\n".join(ops_module.report(sparse)))
    print(f"\nwritten: {save(f'ops-{where.type}-{dtype}', where, lattice + sparse)}")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=r".torch\.jit\.", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")
    sys.exit(auto_cli({"ops": ops}))
