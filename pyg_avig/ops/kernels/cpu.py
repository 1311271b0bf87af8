"""The operators on the CPU: calls into the compiled kernels."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from pyg_avig.ops.kernels import schemas
from pyg_avig.ops.kernels.build import library

TYPES = {torch.float32: "float", torch.float64: "double"}


@torch.library.impl(schemas.OPERATORS, "axial_pairs", "CPU")
def _axial_pairs(a, b, scales, graphs, axes):
    weights = schemas.empty_axial_pairs(a, b, scales, graphs, axes)
    _run_axial("axial_pairs", a, [b, *(scales or (None, None))], graphs, axes, weights)
    return weights


@torch.library.impl(schemas.OPERATORS, "axial_spread", "CPU")
def _axial_spread(x, weights, transpose, graphs, axes):
    out = torch.empty_like(x)
    _run_axial("axial_spread", x, [out, transpose], graphs, axes, weights)
    return out


def _run_axial(
    name: str, x: Tensor, args: list[Any], graphs: int, axes: list[int], weights: list[Tensor]
) -> None:
    if x.numel() == 0:
        for weight in weights:
            weight.zero_()
    else:
        rows, channels = x.numel() // x.size(-1), x.size(-1)
        sizes = channels, graphs, rows // graphs, len(weights)
        _run(name, x.dtype, x, *args, *sizes, axes, weights)


@torch.library.impl(schemas.OPERATORS, "csr_pairs", "CPU")
def _csr_pairs(pointer, columns, a, b, scales):
    out = schemas.empty_csr_pairs(pointer, columns, a, b, scales)
    scales = scales or (None, None)
    _run("csr_pairs", a.dtype, a, b, *scales, out, pointer, columns, *a.shape)
    return out


@torch.library.impl(schemas.OPERATORS, "csr_spread", "CPU")
def _csr_spread(pointer, columns, order, x, weight):
    out = schemas.empty_csr_spread(pointer, columns, order, x, weight)
    _run("csr_spread", x.dtype, x, weight, out, pointer, columns, order, *out.shape)
    return out


def _run(name: str, dtype: torch.dtype, *args: Any) -> None:
    """Call a kernel of a type with tensors, numbers, ``None``, and lists of one of them.

    The kernels see memory alone, so what does not fit must not reach them.
    """
    flat = [x for arg in args for x in (arg if isinstance(arg, list) else [arg])]
    for x in flat:
        if isinstance(x, Tensor) and not (x.is_contiguous() and x.dtype in (dtype, torch.int64)):
            raise RuntimeError(
                f"{name}: expected contiguous tensors of {dtype}, indices of int64 (got {x.dtype}, "
                f"shape {tuple(x.shape)}, strides {x.stride()})"
            )
    getattr(library(), f"{name}_{TYPES[dtype]}")(*map(_to_c, args))


def _to_c(value: Any) -> Any:
    if value is None:
        return ctypes.c_void_p()
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, list):
        values = [_to_c(v) for v in value]
        return (type(values[0]) * len(values))(*values)
    return ctypes.c_int64(value)
