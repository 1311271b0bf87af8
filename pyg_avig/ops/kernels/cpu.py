"""The operators on the CPU: calls into the compiled kernels.

Without these, in a program that was compiled where there were some, PyTorch's own operations serve
for the products.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyg_avig.ops.kernels import composed, schemas
from pyg_avig.ops.kernels.build import TYPES, library

_GRAIN = 2**15  # Numbers below which a second thread costs more than it does; PyTorch's own bound.


@torch.library.impl(schemas.OPERATORS, "axial_pairs", "CPU")
def _axial_pairs(a, b, scales, graphs, axes):
    if library() is None:
        return composed.axial_pairs(a, b, scales, graphs, axes)
    weights = schemas.empty_axial_pairs(a, b, scales, graphs, axes)
    schemas.check("axial_pairs", a.dtype, a, b)
    schemas.check("axial_pairs", schemas.weight_dtype(a), *scales)
    _run_axial("axial_pairs", a, [b, *(scales or (None, None))], graphs, axes, weights)
    return weights


@torch.library.impl(schemas.OPERATORS, "axial_spread", "CPU")
def _axial_spread(x, weights, transpose, graphs, axes):
    if library() is None:
        return composed.axial_spread(x, weights, transpose, graphs, axes)
    out = torch.empty_like(x)
    schemas.check("axial_spread", x.dtype, x)
    schemas.check("axial_spread", schemas.weight_dtype(x), *weights)
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
        _run(name, x.dtype, x, *args, *sizes, axes, weights, _threads(x.numel()))


@torch.library.impl(schemas.OPERATORS, "csr_pairs", "CPU")
def _csr_pairs(pointer, columns, a, b, scales):
    if library() is None:
        return composed.csr_pairs(pointer, columns, a, b, scales)
    out = schemas.empty_csr_pairs(pointer, columns, a, b, scales)
    schemas.check("csr_pairs", a.dtype, a, b)
    schemas.check("csr_pairs", out.dtype, *scales)
    schemas.check("csr_pairs", torch.int64, pointer, columns)
    scales = scales or (None, None)
    threads = _threads(out.numel() * a.size(-1))
    _run("csr_pairs", a.dtype, a, b, *scales, out, pointer, columns, *a.shape, threads)
    return out


@torch.library.impl(schemas.OPERATORS, "csr_spread", "CPU")
def _csr_spread(pointer, columns, order, x, weight):
    if library() is None:
        return composed.csr_spread(pointer, columns, order, x, weight)
    out = schemas.empty_csr_spread(pointer, columns, order, x, weight)
    schemas.check("csr_spread", x.dtype, x)
    schemas.check("csr_spread", schemas.weight_dtype(x), weight)
    schemas.check("csr_spread", torch.int64, pointer, columns, *([] if order is None else [order]))
    threads = _threads(weight.numel() * x.size(-1))
    _run("csr_spread", x.dtype, x, weight, out, pointer, columns, order, *out.shape, threads)
    return out


@torch.library.impl(schemas.OPERATORS, "norm_moments", "CPU")
def _norm_moments(x, about):
    sums = schemas.empty_norm_moments(x, about)
    _run_norm("norm_moments", [x], [about], sums)
    return sums


@torch.library.impl(schemas.OPERATORS, "norm_gelu", "CPU")
def _norm_gelu(x, scale, shift):
    out = torch.empty_like(x)
    _run_norm("norm_gelu", [x], [scale, shift], out)
    return out


@torch.library.impl(schemas.OPERATORS, "norm_gelu_backward", "CPU")
def _norm_gelu_backward(x, grad, scale, shift, about):
    before, sums = schemas.empty_norm_gelu_backward(x, grad, scale, shift, about)
    _run_norm("norm_gelu_backward", [x, grad], [scale, shift, about], before, sums)
    return before, sums


@torch.library.impl(schemas.OPERATORS, "norm_backward_", "CPU")
def _norm_backward(before, x, scale, along, offset):
    _run_norm("norm_backward", [before, x], [scale, along, offset])


def _run_norm(
    name: str, features: Sequence[Tensor], by_channel: Sequence[Tensor], *out: Tensor
) -> None:
    x = features[0]
    schemas.check(name, x.dtype, *features)
    schemas.check(name, schemas.weight_dtype(x), *by_channel)
    _run(name, x.dtype, *features, *by_channel, *out, *x.shape, _threads(x.numel()))


def _threads(numbers: int) -> int:
    return torch.get_num_threads() if numbers > _GRAIN else 1


def _run(name: str, dtype: torch.dtype, *args: Any) -> None:
    """Call a kernel of a type with tensors, numbers, ``None``, and lists of one of them."""
    kernels = library()
    if kernels is None:
        raise RuntimeError(f"{name}: there are no kernels here (the log says why)")
    getattr(kernels, f"{name}_{TYPES[dtype]}")(*map(_to_c, args))


def _to_c(value: Any) -> Any:
    if value is None:
        return ctypes.c_void_p()
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, list):
        values = [_to_c(v) for v in value]
        return (type(values[0]) * len(values))(*values)
    return ctypes.c_int64(value)
