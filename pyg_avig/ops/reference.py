"""The truth: cross-attention over an edge list, in plain PyTorch.

Every other path is held to the outputs and gradients of this one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.utils import degree, scatter

from pyg_avig.errors import InputError
from pyg_avig.ops.affinity import get_affinity


def unit(x: Tensor) -> Tensor:
    """``x`` scaled to length one along its last axis, in at least fp32.

    A zero vector stays zero and gets no gradient, so its similarity to anything is 0.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.masked_fill(length == 0, torch.inf)


def held(cosine: Tensor) -> Tensor:
    """Cosines held to [-1, 1], where rounding may pass; their derivatives are left as they are.

    A bare ``clamp`` would cut the derivatives of parallel vectors, of which the second is not zero.
    """
    return cosine + (cosine.clamp(-1, 1) - cosine).detach()


def full_precision(device: torch.device) -> AbstractContextManager:
    """Hold autocast off, which would take similarities to half precision."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


class EdgeNeighbors:
    """Reductions over the edges (E, heads) of each target."""

    def __init__(self, index: Tensor, num_targets: int) -> None:
        self.index = index
        self.num_targets = num_targets

    def sum(self, value: Tensor) -> Tensor:
        """The sum over each target's edges, (E, heads)."""
        return self._to_edges(scatter(value, self.index, 0, self.num_targets, "sum"))

    def max(self, value: Tensor) -> Tensor:
        """The maximum over each target's edges, (E, heads)."""
        return self._to_edges(scatter(value.detach(), self.index, 0, self.num_targets, "max"))

    def count(self, value: Tensor) -> Tensor:
        """The number of each target's edges, (E, 1)."""
        number = degree(self.index, self.num_targets, value.dtype)
        return self._to_edges(number).unsqueeze(-1)

    def _to_edges(self, value: Tensor) -> Tensor:
        # The gradient of index_select is much faster than that of value[index].
        return value.index_select(0, self.index)


def edge_weights(
    query_i: Tensor,
    key_j: Tensor,
    beta: Tensor,
    index: Tensor,
    num_targets: int,
    affinity: str = "exponential",
) -> Tensor:
    r"""The weight :math:`\alpha_{ij}` of each edge and head, in at least fp32.

    Args:
        query_i: Query of each edge's target, (E, heads, C), of length one (:func:`unit`).
        key_j: Key of each edge's source, (E, heads, C), likewise.
        beta: Inverse temperature of each head, (heads,).
        index: Target of each edge, (E,), int64.
        num_targets: Number of target nodes.
        affinity: Name of a registered affinity.

    Returns:
        (E, heads).
    """
    with full_precision(query_i.device):
        similarity = held((query_i * key_j).sum(-1))
        return get_affinity(affinity).function(
            similarity, beta.to(similarity.dtype), EdgeNeighbors(index, num_targets)
        )


class EdgeFeatures(NamedTuple):
    """Features of edges, and the linear map that takes them into keys and values."""

    attr: Tensor
    """(E, D)."""
    projection: Tensor
    """(heads, C, D)."""

    def projected(self, num_edges: int) -> Tensor:
        """What is added to the key and value of each edge, (E, heads, C)."""
        self.check(num_edges)
        return torch.einsum("ed,hcd->ehc", self.attr, self.projection)

    def check(self, num_edges: int) -> None:
        """Refuse features of another number of edges than the graph has."""
        if self.attr.size(0) != num_edges:
            raise InputError(
                f"expected features of {num_edges} edges (got shape {tuple(self.attr.shape)})"
            )


def edge_list_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    edge_index: Tensor,
    beta: Tensor,
    affinity: str = "exponential",
    dropout: float = 0.0,
    edge_features: EdgeFeatures | None = None,
) -> Tensor:
    """:func:`pyg_avig.ops.cross_attention` over an edge list (2, E)."""
    source, target = edge_index.long()
    query_i = unit(query).index_select(0, target)
    value_j = value.index_select(0, source)
    if edge_features is None:
        key_j = unit(key).index_select(0, source)
    else:
        projected = edge_features.projected(source.numel())
        key_j = unit(key.index_select(0, source) + projected)
        value_j = value_j + projected
    weight = edge_weights(query_i, key_j, beta, target, query.size(0), affinity)
    weight = F.dropout(weight, dropout).to(value.dtype)
    return scatter(weight.unsqueeze(-1) * value_j, target, 0, query.size(0), "sum")
