"""Cross-attention on any edge list, through sparse matrix products.

The similarities are a sampled dense-dense product, the sums a sparse-dense one, in kernels of ours
(:mod:`pyg_avig.ops.kernels`) or PyTorch's; memory is that of the features plus one weight per edge
and head. The edges are sorted by target, and by source for
the gradients; an ``EdgeIndex`` or ``SparseTensor`` keeps its sorting, so that a training loop
sorts once.
"""

from __future__ import annotations

import warnings
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor
from torch_geometric.utils.sparse import index2ptr, ptr2index

from pyg_avig.graphs.adjacency import Adjacency, checked_edge_list
from pyg_avig.ops import kernels
from pyg_avig.ops.affinity import get_affinity
from pyg_avig.ops.products import Cosine, Pairs, Spread
from pyg_avig.ops.reference import EdgeFeatures, EdgeNeighbors, full_precision, unit


def refuse(graph: Adjacency, device: torch.device) -> str | None:
    """Why this path does not run; ``None`` if it does."""
    if device.type != "cpu":
        return f"it has been tried on the CPU only (got {device.type})"
    if torch.compiler.is_compiling():
        return "a compiled or exported program takes no sparse matrices"
    return None


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
        # The products exist in single and double precision.
        wide = torch.promote_types(torch.promote_types(query.dtype, value.dtype), torch.float32)
        query, key = query.to(wide), key.to(wide)
        if edge_features is None:
            (similarity,) = Cosine.apply(layout, query, key)
        else:
            edge_features = layout.ordered(edge_features, wide)
            similarity = _cosine_with_edges(layout, unit(query), key, edge_features)
        weight = get_affinity(affinity).function(
            similarity, beta.to(wide), EdgeNeighbors(layout.target, query.size(0))
        )
        weight = F.dropout(weight, dropout).to(wide)
        out = Spread.apply(layout, False, value.to(wide), weight)
        if edge_features is not None:
            attr, projection = edge_features
            weighted = weight.unsqueeze(-1) * attr.unsqueeze(1)
            sums = weighted.new_zeros(query.size(0), *weighted.shape[1:])
            sums = sums.index_add(0, layout.target, weighted)
            out = out + torch.einsum("nhd,hcd->nhc", sums, projection)
    return out.to(value.dtype)


def _cosine_with_edges(
    layout: _CsrLayout, query: Tensor, key: Tensor, edge_features: EdgeFeatures
) -> Tensor:
    r"""The cosine of :math:`q_i`, of length one, and :math:`k_j + P a_{ij}`, (E, heads).

    Both :math:`q_i \cdot (k_j + P a_{ij})` and :math:`|k_j + P a_{ij}|^2` are expanded, with
    :math:`P^\top q_i` and :math:`P^\top k_j` computed once a node: D numbers an edge are held,
    not C. The few edges whose feature all but cancels the key, where that would round badly, are
    taken one by one, as all are if D is no smaller than C.
    """
    attr, projection = edge_features

    def one_by_one(edges: Tensor) -> Tensor:
        query_i = query.index_select(0, layout.target[edges])
        key_j = key.index_select(0, layout.source[edges])
        projected = EdgeFeatures(attr[edges], projection).projected(edges.numel())
        return (query_i * unit(key_j + projected)).sum(-1)

    if attr.size(1) >= key.size(2):
        return one_by_one(torch.arange(attr.size(0))).clamp(-1, 1)

    def with_attr(x: Tensor, index: Tensor) -> Tensor:
        """P a of each edge times the row of x at one of its ends."""
        x = torch.einsum("nhc,hcd->nhd", x, projection).index_select(0, index)
        return (x * attr.unsqueeze(1)).sum(-1)

    product = Pairs.apply(layout, query, key)[0] + with_attr(query, layout.target)
    gram = torch.einsum("hcd,hcb->hdb", projection, projection)
    separate = key.square().sum(-1).index_select(0, layout.source) + torch.einsum(
        "ed,hdb,eb->eh", attr, gram, attr
    )
    square = separate + 2 * with_attr(key, layout.source)
    cancelled = square <= 0.01 * separate
    similarity = (product * square.masked_fill(cancelled, 1).rsqrt()).masked_fill(cancelled, 0)
    edges = cancelled.any(-1).nonzero().squeeze(-1)
    if edges.numel() > 0:
        exact = torch.where(cancelled[edges], one_by_one(edges), similarity[edges])
        similarity = similarity.index_copy(0, edges, exact)
    return similarity.clamp(-1, 1)


class _CsrLayout:
    """The :class:`~pyg_avig.ops.products.Layout` of weights by edge, (E, heads).

    In the order of ``pointer`` and ``source``: a CSR matrix whose rows are the targets.
    """

    def __init__(
        self, adjacency: Adjacency, num_sources: int, num_targets: int, device: torch.device
    ) -> None:
        self.num_sources, self.num_targets = num_sources, num_targets
        self.adjacency = adjacency
        self.order: Tensor | None = None  # Where our edges are in theirs, if elsewhere.
        edges, _ = checked_edge_list(adjacency, num_sources, num_targets, device)
        if isinstance(adjacency, SparseTensor):
            self.pointer, self.source, _ = adjacency.csr()
            return
        # One without a size would keep the size that it guesses from its edges.
        if (
            isinstance(adjacency, EdgeIndex)
            and adjacency.is_sorted_by_col
            and None not in adjacency.sparse_size()
        ):
            (pointer, source), _ = adjacency.get_csc()
            if pointer.numel() == num_targets + 1:
                self.pointer, self.source = pointer.long(), source.long()
                return
        self.adjacency = None  # Its own sorting does not serve.
        source, target = edges.contiguous()
        if not bool((target[1:] >= target[:-1]).all()):
            target, self.order = target.sort(stable=True)
            source = source[self.order]
        self.pointer, self.source = index2ptr(target, num_targets), source

    @cached_property
    def target(self) -> Tensor:
        """The target of each edge, (E,)."""
        return ptr2index(self.pointer, self.source.numel())

    @cached_property
    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pointer and targets of the CSR matrix by source, and the edge of each entry."""
        if isinstance(self.adjacency, SparseTensor):
            storage = self.adjacency.storage
            order = storage.csr2csc()
            return storage.colptr(), storage.row()[order], order
        if isinstance(self.adjacency, EdgeIndex):
            (pointer, target), order = self.adjacency.get_csr()
            if pointer.numel() == self.num_sources + 1 and order is not None:
                return pointer.long(), target.long(), order.long()
        source, order = self.source.sort(stable=True)
        return index2ptr(source, self.num_sources), self.target[order], order

    def ordered(self, edge_features: EdgeFeatures, dtype: torch.dtype) -> EdgeFeatures:
        """Edge features in the order of our edges."""
        edge_features.check(self.source.numel())
        attr, projection = (x.to(dtype) for x in edge_features)
        return EdgeFeatures(attr if self.order is None else attr[self.order], projection)

    def pairs(self, a: Tensor, b: Tensor) -> list[Tensor]:
        if kernels.serves(a):
            return [kernels.csr_pairs(self.pointer, self.source, a, b, [])]
        if self.source.numel() > self.num_targets * self.num_sources:
            # So many edges come more than once that the product would cut them off.
            return [(a.index_select(0, self.target) * b.index_select(0, self.source)).sum(-1)]
        products = a.new_zeros(a.size(1), self.source.numel())
        for h, values in enumerate(products):
            matrix = self._matrix(values, transpose=False)
            torch.sparse.sampled_addmm(matrix, a[:, h], b[:, h].t(), out=matrix)
        return [products.t()]

    def cosines(self, a: Tensor, b: Tensor, scales: tuple[Tensor, Tensor]) -> list[Tensor]:
        if kernels.serves(a):
            return [kernels.csr_pairs(self.pointer, self.source, a, b, list(scales))]
        (products,), ((target, source),) = self.pairs(a, b), self.ends(*scales)
        return [products.mul_(target).mul_(source).clamp_(-1, 1)]

    def spread(self, x: Tensor, weights: list[Tensor], transpose: bool) -> Tensor:
        (weight,) = weights
        if kernels.serves(x):
            pointer, index, order = (
                self.transposed if transpose else (self.pointer, self.source, None)
            )
            return kernels.csr_spread(pointer, index, order, x, weight.contiguous())
        if transpose:
            weight = weight.index_select(0, self.transposed[2])
        sums = [
            self._matrix(weight[:, h].contiguous(), transpose) @ x[:, h] for h in range(x.size(1))
        ]
        return torch.stack(sums, dim=1)

    def ends(self, targets: Tensor, sources: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(targets.index_select(0, self.target), sources.index_select(0, self.source))]

    def sums(self, weights: list[Tensor], transpose: bool) -> Tensor:
        (weight,) = weights
        index, size = (
            (self.source, self.num_sources) if transpose else (self.target, self.num_targets)
        )
        return weight.new_zeros(size, weight.size(1)).index_add(0, index, weight)

    def _matrix(self, values: Tensor, transpose: bool) -> Tensor:
        size = self.num_targets, self.num_sources
        pointer, index = self.pointer, self.source
        if transpose:
            (pointer, index, _), size = self.transposed, size[::-1]
        with warnings.catch_warnings():  # PyTorch calls its CSR tensors a beta, once a process.
            warnings.simplefilter("ignore", UserWarning)
            return torch.sparse_csr_tensor(pointer, index, values, size, check_invariants=False)
