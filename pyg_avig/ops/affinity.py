r"""Affinities: from the similarity of a query and a key to the weight of a neighbour.

Each is one function ``affinity(similarity, beta, neighbors)``, registered by name:

- ``similarity``: cosines in [-1, 1], any shape that the path at hand uses;
- ``beta``: the inverse temperature of each head, broadcastable to it;
- ``neighbors``: sums, maxima and counts over the neighbours of each target, so that
  one definition serves every path.

It returns one weight per similarity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from pyg_avig.errors import InputError


class Neighbors(Protocol):
    """Reductions over the neighbours of each target, broadcast back to the edges."""

    def sum(self, value: Tensor) -> Tensor:
        """The sum of an edge's value over all edges of its target."""
        ...

    def max(self, value: Tensor) -> Tensor:
        """The maximum of an edge's value over all edges of its target; no gradient."""
        ...

    def count(self, value: Tensor) -> Tensor:
        """The number of edges of its target, broadcastable to an edge's value."""
        ...


class Affinity(NamedTuple):
    """An entry of the table of affinities."""

    function: Callable[[Tensor, Tensor, Neighbors], Tensor]
    competes: bool


_AFFINITIES: dict[str, Affinity] = {}


def register_affinity(*, competes: bool = False) -> Callable:
    """Enter the decorated function into the table under its own name.

    Args:
        competes: Whether a weight depends on a target's other neighbours. Those that
            do not are computed where the similarities lie, which is faster.
    """

    def register(function: Callable) -> Callable:
        _AFFINITIES[function.__name__] = Affinity(function, competes)
        return function

    return register


def affinity_names() -> list[str]:
    """The names of all registered affinities."""
    return sorted(_AFFINITIES)


def get_affinity(name: str) -> Affinity:
    """The affinity registered under ``name``."""
    if name not in _AFFINITIES:
        raise InputError(f"affinity must be one of {affinity_names()} (got {name!r})")
    return _AFFINITIES[name]


@register_affinity()
def exponential(similarity: Tensor, beta: Tensor, neighbors: Neighbors) -> Tensor:
    r""":math:`\exp(-\beta (1 - s))`, the kernel of AttentionViG; in (0, 1].

    Neighbours do not compete. Source: `"AttentionViG"
    <https://arxiv.org/abs/2509.25570>`_, section 3.1.
    """
    return torch.exp(beta * (similarity - 1))


@register_affinity(competes=True)
def softmax(similarity: Tensor, beta: Tensor, neighbors: Neighbors) -> Tensor:
    r""":math:`\mathrm{softmax}_j(\beta s_{ij})`; in (0, 1], and sums to one.

    What AttentionViG ablates its kernel against (section 4.5). Source: `"Attention Is
    All You Need" <https://arxiv.org/abs/1706.03762>`_.
    """
    logits = beta * similarity
    weight = torch.exp(logits - neighbors.max(logits))
    return weight / neighbors.sum(weight)


@register_affinity()
def sigmoid(similarity: Tensor, beta: Tensor, neighbors: Neighbors) -> Tensor:
    r""":math:`\sigma(\beta s)`; in (0, 1).

    Neighbours do not compete, and an orthogonal one weighs a half. Source: `"Theory, Analysis,
    and Best Practices for Sigmoid Self-Attention" <https://arxiv.org/abs/2409.04431>`_, here
    on cosines and without the bias by the length of the sequence.
    """
    return torch.sigmoid(beta * similarity)


@register_affinity()
def relu(similarity: Tensor, beta: Tensor, neighbors: Neighbors) -> Tensor:
    r""":math:`\max(0, 1 - \beta(1 - s)) / |\mathcal{N}(i)|`; in [0, 1].

    At :math:`\beta = 1` the ReLU of the cosine divided by the number of neighbours, as in
    `"Replacing softmax with ReLU in Vision Transformers" <https://arxiv.org/abs/2309.08586>`_;
    our :math:`\beta` narrows it around :math:`s = 1`, as it does the exponential, of which
    this is the first-order expansion.
    """
    return torch.relu(1 - beta * (1 - similarity)) / neighbors.count(similarity)
