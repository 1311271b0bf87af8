"""The two products that cross-attention is made of, on any layout of the edges.

*Pairs* takes the product of the two ends of each edge; *spread* sends weighted features along the
edges and sums them up. Each is the other's gradient, so nothing of the size of edges times channels
is ever held. A layout says where the weights lie and how to take both.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

import torch
from torch import Tensor


class Layout(Protocol):
    """Where the weights of the edges lie, as one or several tensors."""

    def pairs(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """The product of a target's row of a and a source's row of b, for each edge."""
        ...

    def cosines(self, a: Tensor, b: Tensor, scales: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Pairs times both ends' scales (N, heads), held to [-1, 1], where rounding may pass."""
        ...

    def spread(self, x: Tensor, weights: list[Tensor], transpose: bool) -> Tensor:
        """Weighted sums of sources' rows at the targets; transposed, the other way."""
        ...

    def ends(self, targets: Tensor, sources: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Values (N, heads) of both ends of the edges, broadcastable to each weight tensor."""
        ...

    def sums(self, weights: list[Tensor], transpose: bool) -> Tensor:
        """Sums of weights at the targets, (N, heads); at the sources if transposed."""
        ...


class Pairs(torch.autograd.Function):
    """:meth:`Layout.pairs`, differentiable any number of times."""

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
        return (
            None,
            Spread.apply(ctx.layout, False, b, *grads) if ctx.needs_input_grad[1] else None,
            Spread.apply(ctx.layout, True, a, *grads) if ctx.needs_input_grad[2] else None,
        )


class Spread(torch.autograd.Function):
    """:meth:`Layout.spread`, differentiable any number of times."""

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
        grad_x, grad_weights = None, [None] * len(weights)
        if ctx.needs_input_grad[2]:
            grad_x = Spread.apply(ctx.layout, not ctx.transpose, grad, *weights)
        if any(ctx.needs_input_grad[3:]):
            ends = (x, grad) if ctx.transpose else (grad, x)
            grad_weights = Pairs.apply(ctx.layout, *ends)
        return None, None, grad_x, *grad_weights


class Cosine(torch.autograd.Function):
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
            grad = Spread.apply(ctx.layout, transpose, other, *products)
            # What lies along a vector does not change its direction.
            along = ctx.layout.sums(radial, transpose) * scale.square()
            found.append(torch.addcmul(grad, x, along.unsqueeze(-1), value=-1))
        return tuple(found)


def inverse_length(x: Tensor) -> Tensor:
    """One over the length of each vector, (N, heads); 0 for a zero vector."""
    length = torch.linalg.vector_norm(x, dim=-1)
    zero = length == 0
    return length.masked_fill(zero, 1).reciprocal().masked_fill(zero, 0)


# PyTorch asks for it at every call, and is slow to find it.
for _forward in (Pairs.forward, Spread.forward, Cosine.forward):
    _forward.__signature__ = inspect.signature(_forward)  # type: ignore[union-attr]
