r"""Cross-attention on a lattice, axis by axis, without edges.

Where the stride :math:`K` divides an axis, its nodes fall into :math:`K` residue
classes, and each class is a complete graph: the sum over neighbours is a batch of small
dense products. Where it does not divide, the axis is one class whose edges are a
circulant mask.

Non-edges within a class weigh zero, and zero times NaN or infinity is NaN: values that are not
finite spread further than along the edges.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_avig.graphs.axial import AxialGraph
from pyg_avig.ops.affinity import get_affinity
from pyg_avig.ops.reference import full_precision, unit


def cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    graph: AxialGraph,
    beta: Tensor,
    affinity: str = "exponential",
    dropout: float = 0.0,
) -> Tensor:
    """:func:`pyg_avig.ops.cross_attention` on an :class:`AxialGraph`."""
    axes = [_Axis(graph, axis, value.size(1), value.device) for axis in range(graph.num_axes)]
    axes = [axis for axis in axes if axis.degree > 0]
    if not axes:
        return torch.zeros_like(value)
    weights = _weights(query, key, axes, beta, affinity)
    out = torch.zeros((), dtype=value.dtype, device=value.device)
    for axis, weight in zip(axes, weights, strict=True):
        weight = F.dropout(weight, dropout).to(value.dtype)
        out = out + axis.to_nodes(weight @ axis.to_classes(value))
    return out


def _weights(
    query: Tensor, key: Tensor, axes: list[_Axis], beta: Tensor, affinity: str
) -> list[Tensor]:
    """The weights along each axis, (..., heads, M, M); 0 where there is no edge."""
    function, competes = get_affinity(affinity)
    with full_precision(query.device):
        query, key = unit(query), unit(key)
        similarities = [
            axis.to_classes(query) @ axis.to_classes(key).transpose(-1, -2) for axis in axes
        ]
        beta = beta.to(query.dtype).view(-1, 1, 1)
        degree = sum(axis.degree for axis in axes)
        if not competes:
            neighbors = _NodeNeighbors(axes[0].mask.new_ones(()), degree)
            return [
                function(s, beta, neighbors).masked_fill(~axis.mask, 0)
                for axis, s in zip(axes, similarities, strict=True)
            ]
        # All neighbours of a node side by side, whatever the axis: (B*N, heads, M1+M2...).
        similarity = torch.cat(
            [axis.to_nodes(s) for axis, s in zip(axes, similarities, strict=True)], -1
        )
        mask = torch.cat([axis.node_mask() for axis in axes], -1)
        weight = function(
            similarity.masked_fill(~mask, -1), beta.view(-1, 1), _NodeNeighbors(mask, degree)
        ).masked_fill(~mask, 0)
        per_axis = weight.split([axis.members for axis in axes], -1)
        return [axis.to_classes(w) for axis, w in zip(axes, per_axis, strict=True)]


class _Axis:
    """One axis of a lattice: its classes of nodes and the edges within a class."""

    def __init__(self, graph: AxialGraph, axis: int, heads: int, device: torch.device) -> None:
        length, stride = graph.size[axis], graph.stride[axis]
        divides = length % stride == 0
        self.degree = graph.degrees[axis]
        self.members = length // stride if divides else length
        classes = stride if divides else 1
        self.mask = _class_mask(length, stride, device)
        before = graph.batch_size
        for size in graph.size[:axis]:
            before *= size
        after = 1
        for size in graph.size[axis + 1 :]:
            after *= size
        self._shape = (before, self.members, classes, after, heads)

    def to_classes(self, x: Tensor) -> Tensor:
        """Node features (B*N, heads, C) as (before, classes, after, heads, M, C)."""
        return x.reshape(*self._shape, x.size(-1)).permute(0, 2, 3, 4, 1, 5)

    def to_nodes(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`to_classes`."""
        return x.permute(0, 4, 1, 2, 3, 5).reshape(-1, x.size(3), x.size(5))

    def node_mask(self) -> Tensor:
        """The mask for each node of the batch, (B*N, 1, M)."""
        before, members, classes, after, _ = self._shape
        mask = self.mask.view(1, members, 1, 1, members)
        return mask.expand(before, members, classes, after, members).reshape(-1, 1, members)


class _NodeNeighbors:
    """Reductions over the last axis, where all neighbours of a node lie."""

    def __init__(self, mask: Tensor, degree: int) -> None:
        self.mask = mask
        self.degree = degree

    def sum(self, value: Tensor) -> Tensor:
        return value.masked_fill(~self.mask, 0).sum(-1, keepdim=True)

    def count(self, value: Tensor) -> Tensor:
        return value.new_tensor(self.degree)

    def max(self, value: Tensor) -> Tensor:
        return value.detach().masked_fill(~self.mask, -torch.inf).amax(-1, keepdim=True)


def _class_mask(length: int, stride: int, device: torch.device) -> Tensor:
    """Which members of a class a member receives from, (M, M)."""
    if length % stride == 0:
        return ~torch.eye(length // stride, dtype=torch.bool, device=device)
    node = torch.arange(length, device=device)
    hop = (node.view(-1, 1) - node) % length
    return (hop > 0) & (hop % stride == 0)
