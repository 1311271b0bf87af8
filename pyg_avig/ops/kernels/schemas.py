"""What the operators take and give: schemas, shapes for fake tensors, and operations to count."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

# Operators of PyTorch, so that its profiler, flop counter and fake tensors see them.
OPERATORS = torch.library.Library("pyg_avig", "FRAGMENT")
OPERATORS.define(
    "axial_pairs(Tensor a, Tensor b, Tensor[] scales, SymInt graphs, SymInt[] axes) -> Tensor[]"
)
OPERATORS.define(
    "axial_spread(Tensor x, Tensor[] weights, bool transpose, SymInt graphs, SymInt[] axes) "
    "-> Tensor"
)
OPERATORS.define(
    "csr_pairs(Tensor pointer, Tensor columns, Tensor a, Tensor b, Tensor[] scales) -> Tensor"
)
OPERATORS.define(
    "csr_spread(Tensor pointer, Tensor columns, Tensor? order, Tensor x, Tensor weight) -> Tensor"
)
OPERATORS.define("norm_moments(Tensor x, Tensor about) -> Tensor")
OPERATORS.define("norm_gelu(Tensor x, Tensor scale, Tensor shift) -> Tensor")
OPERATORS.define(
    "norm_gelu_backward(Tensor x, Tensor grad, Tensor scale, Tensor shift, Tensor about) "
    "-> (Tensor, Tensor)"
)
OPERATORS.define(
    "norm_backward_(Tensor(a!) before, Tensor x, Tensor scale, Tensor along, Tensor offset) -> ()"
)


def weight_dtype(*features: Tensor) -> torch.dtype:
    """That of the weights and scales of features: theirs, but single for half precision."""
    dtype = torch.float32
    for x in features:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def check(name: str, dtype: torch.dtype, *tensors: Tensor) -> None:
    """Refuse what does not fit: the kernels see memory alone."""
    for x in tensors:
        if x.dtype != dtype or not x.is_contiguous() or x.device != tensors[0].device:
            raise RuntimeError(
                f"{name}: expected contiguous tensors of {dtype} on one device in this place (got "
                f"{x.dtype}, shape {tuple(x.shape)}, strides {x.stride()}, {x.device})"
            )


@torch.library.impl(OPERATORS, "axial_pairs", "Meta")
def empty_axial_pairs(a, b, scales, graphs, axes):
    return [
        a.new_empty(graphs * before, inner, members, members, dtype=weight_dtype(a))
        for before, members, inner in zip(axes[::3], axes[1::3], axes[2::3], strict=True)
    ]


@torch.library.impl(OPERATORS, "axial_spread", "Meta")
def empty_axial_spread(x, weights, transpose, graphs, axes):
    return torch.empty_like(x)


@torch.library.impl(OPERATORS, "csr_pairs", "Meta")
def empty_csr_pairs(pointer, columns, a, b, scales):
    return a.new_empty(columns.size(0), a.size(1), dtype=weight_dtype(a))


@torch.library.impl(OPERATORS, "csr_spread", "Meta")
def empty_csr_spread(pointer, columns, order, x, weight):
    return x.new_empty(pointer.size(0) - 1, *x.shape[1:])


@torch.library.impl(OPERATORS, "norm_moments", "Meta")
def empty_norm_moments(x, about):
    return x.new_empty(2, x.size(1), dtype=weight_dtype(x))


@torch.library.impl(OPERATORS, "norm_gelu", "Meta")
def empty_norm_gelu(x, scale, shift):
    return torch.empty_like(x)


@torch.library.impl(OPERATORS, "norm_gelu_backward", "Meta")
def empty_norm_gelu_backward(x, grad, scale, shift, about):
    return torch.empty_like(x), x.new_empty(2, x.size(1), dtype=weight_dtype(x))


@torch.library.impl(OPERATORS, "norm_backward_", "Meta")
def _nothing(before, x, scale, along, offset):
    pass


@register_flop_formula(torch.ops.pyg_avig.axial_pairs)
def _flops_of_axial_pairs(a, *_, out_shape, **__) -> int:
    return sum(2 * math.prod(weight) * a[-1] for weight in out_shape)


@register_flop_formula(torch.ops.pyg_avig.axial_spread)
def _flops_of_axial_spread(x, weights, *_, **__) -> int:
    return sum(2 * math.prod(weight) * x[-1] for weight in weights)


@register_flop_formula(torch.ops.pyg_avig.csr_pairs)
def _flops_of_csr_pairs(pointer, columns, a, *_, out_shape, **__) -> int:
    return 2 * math.prod(out_shape) * a[-1]


@register_flop_formula(torch.ops.pyg_avig.csr_spread)
def _flops_of_csr_spread(pointer, columns, order, x, weight, **_) -> int:
    return 2 * math.prod(weight) * x[-1]
