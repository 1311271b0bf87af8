"""The operator on plain tensors: one function, several paths, one truth."""

from pyg_avig.ops.affinity import affinity_names, register_affinity
from pyg_avig.ops.cross_attention import backends, cross_attention, refusal, use_backend
from pyg_avig.ops.reference import EdgeFeatures

__all__ = [
    "EdgeFeatures",
    "affinity_names",
    "backends",
    "cross_attention",
    "refusal",
    "register_affinity",
    "use_backend",
]
