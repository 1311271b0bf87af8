"""Operators of PyTorch with kernels: in C++ for the CPU, in Triton for GPUs.

The two products of cross-attention; and GELU behind BatchNorm, on the CPU alone.

``schemas.py`` says what the operators take and give, on any device, ``derivatives.py`` how
PyTorch differentiates them; ``build.py`` compiles the C++
(cpp/) when it is first needed, ``cpu.py`` runs it; ``gpu.py`` runs what is in triton/. Where none
serves, :mod:`pyg_avig.ops.axial` takes PyTorch's own products, and the edge list takes the place of
:mod:`pyg_avig.ops.csr`.

All tensors are contiguous, indices of int64. Features are of double, single or half precision
(bfloat16, float16). Weights and scales are of the same type, but in single precision for features
in half: those are read and written as they are, all products and sums are taken in single precision
and a result is rounded once. So each operator takes what the other gives, at any type.

The environment variable ``PYG_AVIG_KERNELS`` forces the instruction set (``avx512``, ``avx2``,
``sse2``; see :func:`~pyg_avig.ops.kernels.build.instruction_sets`) of the CPU, or with 0 PyTorch's
products everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_avig.ops.kernels import cpu, derivatives, gpu, schemas  # noqa: F401 (they register)
from pyg_avig.ops.kernels.build import TYPES, library
from pyg_avig.ops.kernels.schemas import weight_dtype

__all__ = [
    "axial_pairs",
    "axial_spread",
    "csr_pairs",
    "csr_spread",
    "norm_backward_",
    "norm_gelu",
    "norm_gelu_backward",
    "norm_moments",
    "refusal",
    "serves",
    "weight_dtype",
]


@torch.compiler.assume_constant_result  # A program is compiled for what there is.
def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels do not take tensors of this kind, here; ``None`` if they do."""
    if dtype not in TYPES:
        return f"its kernels take {', '.join(map(str, TYPES))} (got {dtype})"
    if device.type == "cuda":
        return gpu.refusal(device, dtype)
    if device.type != "cpu":
        return f"its kernels are for CPUs, and for GPUs of CUDA and ROCm (got {device.type})"
    if library() is None:
        return "there are no kernels (no C++ compiler, or PYG_AVIG_KERNELS=0; the log says why)"
    return None


def serves(x: Tensor) -> bool:
    """Whether the kernels take tensors of this kind, here."""
    return refusal(x.device, x.dtype) is None


def axial_pairs(
    a: Tensor, b: Tensor, scales: list[Tensor], graphs: int, axes: list[int]
) -> list[Tensor]:
    """Products of the rows of a and b, in each class of each axis.

    Args:
        a: Rows, with the channels last.
        b: As ``a``.
        scales: None, or one number for each row of a and of b, in at least single precision; the
            products are multiplied with both and held to [-1, 1].
        graphs: Number of graphs.
        axes: Three numbers for each axis: seen as (graphs * before, members, inner, C), rows hold
            one class in each [p, :, r].

    Returns:
        (graphs * before, inner, members, members) for each axis, in at least single precision.
    """
    return torch.ops.pyg_avig.axial_pairs(a, b, scales, graphs, axes)


def axial_spread(
    x: Tensor, weights: list[Tensor], transpose: bool, graphs: int, axes: list[int]
) -> Tensor:
    """Weighted sums of the rows of x, in each class, over all axes.

    Args:
        x: Rows, with the channels last.
        weights: As :func:`axial_pairs` gives them, in at least single precision.
        transpose: Send from the weights' rows to their columns instead.
        graphs: As there.
        axes: As there.

    Returns:
        As ``x``.
    """
    return torch.ops.pyg_avig.axial_spread(x, weights, transpose, graphs, axes)


def csr_pairs(
    pointer: Tensor, columns: Tensor, a: Tensor, b: Tensor, scales: list[Tensor]
) -> Tensor:
    """Products of the rows and columns of each entry of a CSR matrix.

    Args:
        pointer: Where each row's entries begin, (rows + 1,).
        columns: The column of each entry, (E,).
        a: (rows, heads, C).
        b: (columns, heads, C).
        scales: As in :func:`axial_pairs`: (rows, heads) and (columns, heads).

    Returns:
        (E, heads), in at least single precision.
    """
    return torch.ops.pyg_avig.csr_pairs(pointer, columns, a, b, scales)


def csr_spread(
    pointer: Tensor, columns: Tensor, order: Tensor | None, x: Tensor, weight: Tensor
) -> Tensor:
    """The product of a CSR matrix of weights and x, for each head.

    Args:
        pointer: Where each row's entries begin, (rows + 1,).
        columns: The column of each entry, (E,).
        order: Which weight belongs to each entry, (E,); ``None`` for its own.
        x: (columns, heads, C).
        weight: (E, heads), in at least single precision.

    Returns:
        (rows, heads, C).
    """
    return torch.ops.pyg_avig.csr_spread(pointer, columns, order, x, weight)


def norm_moments(x: Tensor, about: Tensor) -> Tensor:
    """Sums over the rows of x - about and of its square.

    Args:
        x: (N, C).
        about: (C,), in at least single precision; near the mean no digits cancel.

    Returns:
        (2, C), in at least single precision.
    """
    return torch.ops.pyg_avig.norm_moments(x, about)


def norm_gelu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The exact GELU of x * scale + shift.

    Args:
        x: (N, C).
        scale: (C,), in at least single precision.
        shift: As ``scale``.

    Returns:
        As ``x``.
    """
    return torch.ops.pyg_avig.norm_gelu(x, scale, shift)


def norm_gelu_backward(
    x: Tensor, grad: Tensor, scale: Tensor, shift: Tensor, about: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient g before GELU; the sums over its rows of g and of g * (x - about).

    Args:
        x: (N, C).
        grad: The gradient behind GELU, as ``x``.
        scale: As in :func:`norm_gelu`.
        shift: As there.
        about: As ``scale``.

    Returns:
        As ``x``; (2, C), in at least single precision.
    """
    return torch.ops.pyg_avig.norm_gelu_backward(x, grad, scale, shift, about)


def norm_backward_(before: Tensor, x: Tensor, scale: Tensor, along: Tensor, offset: Tensor) -> None:
    """Replace ``before`` by before * scale + x * along + offset.

    Args:
        before: (N, C).
        x: As ``before``.
        scale: (C,), in at least single precision.
        along: As ``scale``.
        offset: As ``scale``.
    """
    torch.ops.pyg_avig.norm_backward_(before, x, scale, along, offset)
