"""BatchNorm in training and the exact GELU behind it, as one operator that keeps its input alone.

`"Batch Normalization" <https://arxiv.org/abs/1502.03167>`_ and
`"GELU" <https://arxiv.org/abs/1606.08415>`_. PyTorch keeps what lies between the two as well, which
in an inverted residual block is four times as wide as the stage, and reads and writes it once more
in each direction. Here the input is read twice in each, and GELU's slope computed anew.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from pyg_avig.ops import kernels
from pyg_avig.ops.kernels import weight_dtype
from pyg_avig.ops.products import followed, in_transform


def serves(x: Tensor, weight: Tensor) -> bool:
    """Whether :func:`norm_gelu` takes features and scales of this kind, here and now."""
    return (
        x.device.type == "cpu"
        and x.dim() == 2
        and len(x) > 1
        and weight.shape == x.shape[1:]
        and weight.dtype == weight_dtype(x)
        and {type(x), type(weight)} <= {Tensor, Parameter}  # Nothing that acts as a tensor.
        and x.is_contiguous()
        and not in_transform()
        and not followed(x)
        and kernels.serves(x)
    )


def norm_gelu(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """GELU of features that are normalised over their rows; differentiable any number of times.

    Args:
        x: Features, (N, C); :func:`serves` tells whether they will do.
        weight: Scales, (C,), in at least single precision.
        bias: Shifts, as ``weight``.
        eps: Added to the variance.

    Returns:
        As ``x``; the mean and the (biased) variance of each channel, (C,), without a gradient.
    """
    return _NormGELU.apply(x, weight, bias, eps)


class _NormGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple:
        about = x[0].to(weight.dtype)
        first, second = kernels.norm_moments(x, about) / len(x)
        mean, var = about + first, (second - first.square()).clamp(min=0)
        scale = weight * (var + eps).rsqrt()
        shift = bias - mean * scale
        ctx.save_for_backward(x, weight, bias, mean, var)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        return kernels.norm_gelu(x, scale, shift), mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, var = ctx.saved_tensors
        if torch.is_grad_enabled() or in_transform() or followed(grad):
            return *_composed_backward(x, weight, bias, grad, ctx.eps), None
        grad = grad.contiguous()
        rsqrt = (var + ctx.eps).rsqrt()
        scale = weight * rsqrt
        shift = bias - mean * scale
        by_x, (by_bias, products) = kernels.norm_gelu_backward(x, grad, scale, shift, mean)
        by_weight = products * rsqrt
        along = -scale * rsqrt * by_weight / len(x)
        offset = -scale * by_bias / len(x) - mean * along
        kernels.norm_backward_(by_x, x, scale, along, offset)
        return by_x, by_weight, by_bias, None


def _composed_backward(
    x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients in operations that PyTorch differentiates."""
    wide = x.to(weight.dtype)
    var, mean = torch.var_mean(wide, 0, correction=0)
    rsqrt = (var + eps).rsqrt()
    unit = (wide - mean) * rsqrt
    z = unit * weight + bias
    slope = torch.special.ndtr(z) + z * torch.exp(-z.square() / 2) / (2 * torch.pi) ** 0.5
    before = grad.to(weight.dtype) * slope
    by_weight, by_bias = (before * unit).sum(0), before.sum(0)
    by_x = weight * rsqrt * (before - (by_bias + unit * by_weight) / len(x))
    return by_x.to(x.dtype), by_weight, by_bias
