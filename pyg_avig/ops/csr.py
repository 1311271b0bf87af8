"""Cross-attention on any edge list, through sparse matrix products.

The similarities are a sampled dense-dense product, the sums a sparse-dense one, in kernels of ours
(:mod:`pyg_avig.ops.kernels`): memory is that of the features plus one weight per edge and head, and
with features of D numbers an edge a few times D numbers per edge and head. (Edges whose feature all
but cancels their key carry C numbers for a moment, as all do where D is no smaller than C, and in
forward mode.)

The edges are sorted by target, and by source for the gradients; an ``EdgeIndex`` or
``SparseTensor`` keeps its sorting, so that a training loop sorts once. What it says of its order is
looked after, as right numbers go before fast ones.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor
from torch_geometric.utils.sparse import index2ptr

from pyg_avig.graphs.adjacency import (
    Adjacency,
    check_range,
    checked_edge_list,
    is_mapped,
    is_recorded,
)
from pyg_avig.ops import kernels
from pyg_avig.ops.affinity import get_affinity
from pyg_avig.ops.products import cosine, in_transform, matmul, pairs, spread
from pyg_avig.ops.reference import EdgeFeatures, EdgeNeighbors, full_precision, held, unit


def refuse(graph: Adjacency, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this path does not run; ``None`` if it does."""
    if is_recorded():
        return "a compiled, exported or traced program takes no sorted edges"
    if device.type == "cuda" and kernels.gpu.is_captured():
        return "a CUDA graph takes no sorted edges, whose order cannot be looked at"
    if is_mapped(graph):
        return "vmap maps over the edges, of which only one set can be sorted"
    return kernels.refusal(device, dtype)


def csr_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    graph: Adjacency,
    beta: Tensor,
    affinity: str = "exponential",
    dropout: float = 0.0,
    edge_features: EdgeFeatures | None = None,
) -> Tensor:
    """:func:`pyg_avig.ops.cross_attention` on any adjacency."""
    layout = _CsrLayout(graph, key.size(0), query.size(0), query.device)
    with full_precision(query.device):
        if edge_features is None:
            (similarity,) = cosine(layout, query, key)
        else:
            wide = kernels.weight_dtype(query, key, value)
            edge_features = layout.ordered(edge_features, wide)
            similarity = _cosine_with_edges(layout, unit(query), key.to(wide), edge_features)
        weight = get_affinity(affinity).function(
            similarity, beta.to(similarity.dtype), _RowNeighbors(layout)
        )
        weight = F.dropout(weight, dropout)
        out = spread(layout, value, [weight])
        if edge_features is not None:
            attr, projection = edge_features
            weighted = weight.unsqueeze(-1) * attr.unsqueeze(1)
            sums = weighted.new_zeros(query.size(0), *weighted.shape[1:])
            sums = sums.index_add(0, layout.target, weighted)
            out = out + _each_head(sums, projection.transpose(1, 2))
    return out.to(value.dtype)


def _each_head(x: Tensor, matrices: Tensor) -> Tensor:
    """The product of (N, heads, C) and a matrix (C, D) of each head, (N, heads, D)."""
    return matmul(x.transpose(0, 1), matrices).transpose(0, 1)


def _cosine_with_edges(
    layout: _CsrLayout, query: Tensor, key: Tensor, edge_features: EdgeFeatures
) -> Tensor:
    r"""The cosine of :math:`q_i`, of length one, and :math:`k_j + P a_{ij}`, (E, heads).

    Both :math:`q_i \cdot (k_j + P a_{ij})` and :math:`|k_j + P a_{ij}|^2` are expanded, with
    :math:`P^\top q_i` and :math:`P^\top k_j` computed once a node: D numbers an edge are held,
    not C. The few edges whose feature all but cancels the key, where that would round badly, are
    taken one by one, as all are if D is no smaller than C, or if it cannot be seen which they are.
    """
    attr, projection = edge_features

    def one_by_one(edges: Tensor) -> Tensor:
        query_i = query.index_select(0, layout.target[edges])
        key_j = key.index_select(0, layout.source[edges])
        projected = matmul(attr[edges], projection.flatten(0, 1).t()).view_as(key_j)
        return (query_i * unit(key_j + projected)).sum(-1)

    if attr.size(1) >= key.size(2) or in_transform():
        return held(one_by_one(torch.arange(attr.size(0), device=attr.device)))

    def with_attr(x: Tensor, index: Tensor) -> Tensor:
        """P a of each edge times the row of x at one of its ends."""
        return (_each_head(x, projection).index_select(0, index) * attr.unsqueeze(1)).sum(-1)

    product = pairs(layout, query, key)[0] + with_attr(query, layout.target)
    gram = matmul(projection.transpose(1, 2), projection)
    length = (matmul(attr.expand(len(gram), -1, -1), gram) * attr).sum(-1).t()
    separate = key.square().sum(-1).index_select(0, layout.source) + length
    square = separate + 2 * with_attr(key, layout.source)
    cancelled = square <= 0.01 * separate
    similarity = (product * square.masked_fill(cancelled, 1).rsqrt()).masked_fill(cancelled, 0)
    edges = cancelled.any(-1).nonzero().squeeze(-1)
    if edges.numel() > 0:
        exact = torch.where(cancelled[edges], one_by_one(edges), similarity[edges])
        similarity = similarity.index_copy(0, edges, exact)
    return held(similarity)


class _CsrLayout:
    """The :class:`~pyg_avig.ops.products.Layout` of weights by edge, (E, heads).

    In the order of ``pointer`` and ``source``: a CSR matrix whose rows are the targets.
    """

    head_axis = 1

    def __init__(
        self, adjacency: Adjacency, num_sources: int, num_targets: int, device: torch.device
    ) -> None:
        self.num_sources, self.num_targets = num_sources, num_targets
        self.order: Tensor | None = None  # Where our edges are in theirs, if elsewhere.
        edges, _ = checked_edge_list(adjacency, num_sources, num_targets, device)
        if device.type != "cpu":  # Not looked at yet, and kernels see memory alone.
            check_range(edges, num_sources, num_targets)
        self.source, self.target = edges.contiguous()
        # Sorted edges are common, and soon looked through.
        if bool((self.target[1:] >= self.target[:-1]).all()):
            self.adjacency: Adjacency | None = adjacency
        else:
            self.adjacency = None  # Its own sorting does not serve.
            self.target, self.order = self.target.sort(stable=True)
            self.source = self.source[self.order]
        self.pointer = index2ptr(self.target, num_targets)

    @cached_property
    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pointer and targets of the CSR matrix by source, and the edge of each entry."""
        order = self._kept_order()
        source = None if order is None else _sorted_by(self.source, order)
        if order is None or source is None:
            source, order = self.source.sort(stable=True)
        return index2ptr(source, self.num_sources), self.target[order], order

    def _kept_order(self) -> Tensor | None:
        """The order by source that the adjacency keeps, if it keeps one."""
        if isinstance(self.adjacency, SparseTensor):
            return self.adjacency.storage.csr2csc()
        # One without a size would keep the size that it guesses from its edges.
        if (
            isinstance(self.adjacency, EdgeIndex)
            and self.adjacency.is_sorted_by_col
            and None not in self.adjacency.sparse_size()
        ):
            _, order = self.adjacency.get_csr()
            return None if order is None else order.long()
        return None

    def ordered(self, edge_features: EdgeFeatures, dtype: torch.dtype) -> EdgeFeatures:
        """Edge features in the order of our edges."""
        edge_features.check(self.source.numel())
        attr, projection = (x.to(dtype) for x in edge_features)
        return EdgeFeatures(attr if self.order is None else attr[self.order], projection)

    def serves(self, x: Tensor) -> bool:
        return kernels.serves(x)

    def pairs(self, a: Tensor, b: Tensor) -> list[Tensor]:
        return [kernels.csr_pairs(self.pointer, self.source, a, b, [])]

    def cosines(self, a: Tensor, b: Tensor, scales: tuple[Tensor, Tensor]) -> list[Tensor]:
        return [kernels.csr_pairs(self.pointer, self.source, a, b, list(scales))]

    def spread(self, x: Tensor, weights: list[Tensor], transpose: bool) -> Tensor:
        (weight,) = weights
        pointer, index, order = self.transposed if transpose else (self.pointer, self.source, None)
        return kernels.csr_spread(pointer, index, order, x, weight.contiguous())

    def composed_pairs(self, a: Tensor, b: Tensor) -> list[Tensor]:
        return [(a.index_select(0, self.target) * b.index_select(0, self.source)).sum(-1)]

    def composed_spread(self, x: Tensor, weights: list[Tensor], transpose: bool) -> Tensor:
        (weight,) = weights
        sender, receiver = (self.target, self.source) if transpose else (self.source, self.target)
        size = self.num_sources if transpose else self.num_targets
        carried = weight.unsqueeze(-1) * x.index_select(0, sender)
        sums = carried.new_zeros(size, *carried.shape[1:]).index_add(0, receiver, carried)
        return sums.to(x.dtype)

    def ends(self, targets: Tensor, sources: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(targets.index_select(0, self.target), sources.index_select(0, self.source))]

    def sums(self, weights: list[Tensor], transpose: bool) -> Tensor:
        """As the product with ones, in one order, where index_add has none on a GPU."""
        senders = self.num_targets if transpose else self.num_sources
        ones = weights[0].new_ones(senders, weights[0].size(1), 1)
        return spread(self, ones, weights, transpose).squeeze(-1)

    def repeated(self, times: int) -> _CsrLayout:
        return self  # It takes any number of heads.


class _RowNeighbors(EdgeNeighbors):
    """Reductions over the edges of each target, whose sums and their gradients have one order."""

    def __init__(self, layout: _CsrLayout) -> None:
        super().__init__(layout.target, layout.num_targets)
        self.layout = layout

    def sum(self, value: Tensor) -> Tensor:
        total = self.layout.sums([value], False)
        ones = total.new_ones(self.layout.num_sources, total.size(1), 1)
        return pairs(self.layout, total.unsqueeze(-1), ones)[0]


def _sorted_by(index: Tensor, order: Tensor) -> Tensor | None:
    """``index`` in the order given; ``None`` if that is none, or does not sort it."""
    if order.shape != index.shape or order.numel() == 0:
        return None
    low, high = (int(number) for number in order.aminmax())
    if low < 0 or high >= order.numel():
        return None
    found = order.new_zeros(order.numel(), dtype=torch.bool).index_fill_(0, order, True)
    index = index[order]
    return index if bool(found.all() & (index[1:] >= index[:-1]).all()) else None
