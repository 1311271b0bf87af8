"""The two products that cross-attention is made of, on any layout of the edges.

*Pairs* takes the product of the two ends of each edge; *spread* sends weighted features along the
edges and sums them up. Each is the other's gradient. A layout says where the weights lie and how to
take both.

:func:`pairs`, :func:`spread` and :func:`cosine` are differentiable in every way that PyTorch
knows. The products of a layout run in kernels, or write where PyTorch could not follow, so their
rules stand here, once for the kernels of all devices: reverse mode, any number of times, and
``vmap``, for which several sets of features are nothing but more heads. What asks for more
(:func:`followed`) gets the same products composed of PyTorch's own operations.

Backward keeps the precision of forward, whatever autocast is on around it.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pyg_avig.graphs.adjacency import is_compiled, is_recorded
from pyg_avig.ops.kernels import weight_dtype
from pyg_avig.ops.reference import full_precision, held, unit


class Layout(Protocol):
    """Where the weights of the edges lie, as one or several tensors.

    Weights are of the features' dtype, but of single precision for features in half.
    """

    head_axis: int
    """The axis of a tensor of weights along which the heads lie."""

    def serves(self, x: Tensor) -> bool:
        """Whether pairs, cosines and spread take tensors of this kind; else they are composed."""
        ...

    def pairs(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """The product of a target's row of a and a source's row of b, for each edge."""
        ...

    def cosines(self, a: Tensor, b: Tensor, scales: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Pairs times both ends' scales (N, heads), held to [-1, 1], where rounding may pass."""
        ...

    def spread(self, x: Tensor, weights: list[Tensor], transpose: bool) -> Tensor:
        """Weighted sums of sources' rows at the targets; transposed, the other way."""
        ...

    def composed_pairs(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """:meth:`pairs` in operations that PyTorch differentiates."""
        ...

    def composed_spread(self, x: Tensor, weights: list[Tensor], transpose: bool) -> Tensor:
        """:meth:`spread` in operations that PyTorch differentiates."""
        ...

    def ends(self, targets: Tensor, sources: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Values (N, heads) of both ends of the edges, broadcastable to each weight tensor."""
        ...

    def sums(self, weights: list[Tensor], transpose: bool) -> Tensor:
        """Sums of weights at the targets, (N, heads); at the sources if transposed."""
        ...

    def repeated(self, times: int) -> Layout:
        """The same layout for ``times`` as many heads."""
        ...


def pairs(layout: Layout, a: Tensor, b: Tensor) -> list[Tensor]:
    """:meth:`Layout.pairs`, differentiable."""
    if _composed(layout, a, b):
        return layout.composed_pairs(a, b)
    if _bare():
        return layout.pairs(a.contiguous(), b.contiguous())
    return list(_Pairs.apply(layout, a, b))


def spread(layout: Layout, x: Tensor, weights: list[Tensor], transpose: bool = False) -> Tensor:
    """:meth:`Layout.spread`, differentiable."""
    if _composed(layout, x, *weights):
        return layout.composed_spread(x, weights, transpose)
    weights = [weight.to(weight_dtype(x)) for weight in weights]
    if _bare():
        return layout.spread(x.contiguous(), weights, transpose)
    return _Spread.apply(layout, transpose, x, *weights)


def cosine(layout: Layout, query: Tensor, key: Tensor) -> list[Tensor]:
    """The cosine of the two ends of each edge, in at least single precision; differentiable."""
    common = torch.promote_types(query.dtype, key.dtype)
    query, key = query.to(common), key.to(common)
    if _composed(layout, query, key):
        return [held(product) for product in layout.composed_pairs(unit(query), unit(key))]
    if is_compiled():
        return [held(product) for product in pairs(layout, unit(query), unit(key))]
    return list(_Cosine.apply(layout, query, key))


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of as many axes each, whose backward keeps the precision of forward."""
    return a @ b if followed(a, b) else _MatMul.apply(a, b)


def in_transform() -> bool:
    """Whether a transform of ``torch.func`` runs, so that no value can be looked at."""
    # There is no public way to ask; PyTorch's own autograd functions ask so at every call.
    return torch._C._are_functorch_transforms_active()


def _composed(layout: Layout, *tensors: Tensor) -> bool:
    """Whether products are to be composed: where the layout has none, or PyTorch must follow.

    A compiler takes the operators as they are (they have derivatives of their own,
    :mod:`~pyg_avig.ops.kernels.derivatives`), but for transforms that it looks into.
    """
    if not layout.serves(tensors[0]):
        return True
    if is_compiled():
        return in_transform() or forward_ad._current_level >= 0
    return followed(*tensors)


def _bare() -> bool:
    """Whether the products serve as they are: in what is compiled, or without gradients."""
    return is_compiled() or not (torch.is_grad_enabled() or in_transform())


def followed(*tensors: Tensor) -> bool:
    """Whether PyTorch must follow every operation, as functions of ours would stop it.

    In a program that is being compiled, exported or traced, to be fused and to run anywhere; in
    forward mode, as PyTorch differentiates the tangents of such functions no second time, without
    a word; and in the batched gradients of ``torch.autograd.grad``, which leave their rules aside.
    """
    return (
        is_recorded()
        # Neither of these has a public name.
        or forward_ad._current_level >= 0
        or any(map(torch._C._functorch.is_legacy_batchedtensor, tensors))
    )


class _Pairs(torch.autograd.Function):
    """:meth:`Layout.pairs`."""

    @staticmethod
    def forward(layout: Layout, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return tuple(layout.pairs(a.contiguous(), b.contiguous()))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.layout, a, b = inputs
        ctx.save_for_backward(a, b)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        with full_precision(a.device):
            return (
                None,
                spread(ctx.layout, b, list(grads)) if ctx.needs_input_grad[1] else None,
                spread(ctx.layout, a, list(grads), True) if ctx.needs_input_grad[2] else None,
            )

    @staticmethod
    def vmap(info: Any, in_dims: tuple, layout: Layout, *ab: Tensor) -> tuple:
        many = (_as_heads(x, dim, info.batch_size) for x, dim in zip(ab, in_dims[1:], strict=True))
        return _as_sets(_Pairs.apply(layout.repeated(info.batch_size), *many), layout, info)


class _Spread(torch.autograd.Function):
    """:meth:`Layout.spread`."""

    @staticmethod
    def forward(layout: Layout, transpose: bool, x: Tensor, *weights: Tensor) -> Tensor:
        return layout.spread(x.contiguous(), list(weights), transpose)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.layout, ctx.transpose, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        grad = grad.contiguous()  # Once, for both products.
        grad_x: Tensor | None = None
        grad_weights: list = [None] * len(weights)
        with full_precision(x.device):
            if ctx.needs_input_grad[2]:
                grad_x = spread(ctx.layout, grad, weights, not ctx.transpose)
            if any(ctx.needs_input_grad[3:]):
                ends = (x, grad) if ctx.transpose else (grad, x)
                grad_weights = pairs(ctx.layout, *ends)
        return None, None, grad_x, *grad_weights

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple, layout: Layout, transpose: bool, x: Tensor, *weights: Tensor
    ) -> tuple[Tensor, int]:
        many = (
            _as_heads(weight, dim, info.batch_size, layout.head_axis)
            for weight, dim in zip(weights, in_dims[3:], strict=True)
        )
        x = _as_heads(x, in_dims[2], info.batch_size)
        out = _Spread.apply(layout.repeated(info.batch_size), transpose, x, *many)
        return out.unflatten(1, (info.batch_size, -1)), 1


class _Cosine(torch.autograd.Function):
    """The cosine of the two ends of each edge, without normalised copies of the features."""

    @staticmethod
    def forward(layout: Layout, query: Tensor, key: Tensor) -> tuple[Tensor, ...]:
        scales = inverse_length(query), inverse_length(key)
        return tuple(layout.cosines(query.contiguous(), key.contiguous(), scales))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        ctx.layout, query, key = inputs
        ctx.save_for_backward(query, key, *output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, key, *cosines = ctx.saved_tensors
        dtype, wide = query.dtype, weight_dtype(query)
        # In half precision the difference below would be of rounding alone.
        query, key = query.to(wide), key.to(wide)
        scales = inverse_length(query), inverse_length(key)
        products = [
            grad * target * source
            for grad, (target, source) in zip(grads, ctx.layout.ends(*scales), strict=True)
        ]
        radial = [grad * cosine for grad, cosine in zip(grads, cosines, strict=True)]
        found: list[Tensor | None] = [None]
        for x, other, scale, transpose in (
            (query, key, scales[0], False),
            (key, query, scales[1], True),
        ):
            with full_precision(x.device):
                grad = spread(ctx.layout, other, products, transpose)
            # What lies along a vector does not change its direction.
            along = ctx.layout.sums(radial, transpose) * scale.square()
            found.append(torch.addcmul(grad, x, along.unsqueeze(-1), value=-1).to(dtype))
        return tuple(found)

    @staticmethod
    def vmap(info: Any, in_dims: tuple, layout: Layout, *ends: Tensor) -> tuple:
        many = (
            _as_heads(x, dim, info.batch_size) for x, dim in zip(ends, in_dims[1:], strict=True)
        )
        return _as_sets(_Cosine.apply(layout.repeated(info.batch_size), *many), layout, info)


class _MatMul(torch.autograd.Function):
    """:func:`matmul`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        with full_precision(a.device):
            return matmul(grad, b.transpose(-1, -2)), matmul(a.transpose(-1, -2), grad)


def _as_heads(x: Tensor, dim: int | None, sets: int, axis: int = 1) -> Tensor:
    """Several sets of features, or of weights, as so many times the heads, along ``axis``."""
    x = x.movedim(dim, axis) if dim is not None else _repeat(x, axis, sets)
    return x.flatten(axis, axis + 1)


def _repeat(x: Tensor, axis: int, times: int) -> Tensor:
    return x.unsqueeze(axis).expand(*x.shape[:axis], times, *x.shape[axis:])


def _as_sets(weights: tuple[Tensor, ...], layout: Layout, info: Any) -> tuple[tuple, tuple]:
    """The weights of :func:`_as_heads` taken apart again, and where their sets lie."""
    axis = layout.head_axis
    sets = tuple(weight.unflatten(axis, (info.batch_size, -1)) for weight in weights)
    return sets, (axis,) * len(sets)


def inverse_length(x: Tensor) -> Tensor:
    """One over the length of each vector, (N, heads), in at least fp32; 0 for a zero vector."""
    length = torch.linalg.vector_norm(x, dim=-1, dtype=weight_dtype(x))
    return length.masked_fill(length == 0, torch.inf).reciprocal()


# PyTorch asks for it at every call, and is slow to find it.
for _forward in (_Pairs.forward, _Spread.forward, _Cosine.forward, _MatMul.forward):
    _forward.__signature__ = inspect.signature(_forward)  # type: ignore[union-attr]
