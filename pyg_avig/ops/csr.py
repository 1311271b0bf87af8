"""Cross-attention on any edge list, through sparse matrix products.

The similarities are a sampled dense-dense product, the sums a sparse-dense one; memory is that of
the features plus one weight per edge and head. The edges are sorted by target, and by source for
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
from pyg_avig.ops.affinity import get_affinity
from pyg_avig.ops.products import Cosine, Spread
from pyg_avig.ops.reference import EdgeNeighbors, full_precision


def refuse(graph: Adjacency, device: torch.device) -> str | None:
    """Why this path does not run; ``None`` if it does."""
    if device.type != "cpu":
        return f"it has been tried on the CPU only (got {device.type})"
    if torch.compiler.is_compiling():
        return "a compiled or exported program takes no sparse matrices"
    return None


def cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    graph: Adjacency,
    beta: Tensor,
    affinity: str = "exponential",
    dropout: float = 0.0,
) -> Tensor:
    """:func:`pyg_avig.ops.cross_attention` on any adjacency."""
    layout = _Rows(graph, key.size(0), query.size(0), query.device)
    with full_precision(query.device):
        # The products exist in single and double precision.
        wide = torch.promote_types(torch.promote_types(query.dtype, value.dtype), torch.float32)
        (similarity,) = Cosine.apply(layout, query.to(wide), key.to(wide))
        weight = get_affinity(affinity).function(
            similarity, beta.to(wide), EdgeNeighbors(layout.target, query.size(0))
        )
        out = Spread.apply(layout, False, value.to(wide), F.dropout(weight, dropout))
    return out.to(value.dtype)


class _Rows:
    """The :class:`~pyg_avig.ops.products.Layout` of weights by edge, (E, heads).

    In the order of ``pointer`` and ``source``: a CSR matrix whose rows are the targets.
    """

    def __init__(
        self, adjacency: Adjacency, num_sources: int, num_targets: int, device: torch.device
    ) -> None:
        self.num_sources, self.num_targets = num_sources, num_targets
        self.adjacency = adjacency
        edges, _ = checked_edge_list(adjacency, num_sources, num_targets, device)
        if isinstance(adjacency, SparseTensor):
            self.pointer, self.source, _ = adjacency.csr()
            return
        if isinstance(adjacency, EdgeIndex) and adjacency.is_sorted_by_col:
            (self.pointer, self.source), _ = adjacency.get_csc()
            if self.pointer.numel() == num_targets + 1:
                return
        self.adjacency = None  # Its own sorting does not serve.
        source, target = edges
        if not bool((target[1:] >= target[:-1]).all()):
            target, order = target.sort(stable=True)
            source = source[order]
        self.pointer, self.source = index2ptr(target, num_targets), source

    @cached_property
    def target(self) -> Tensor:
        """The target of each edge, (E,)."""
        return ptr2index(self.pointer.long(), self.source.numel())

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
                return pointer, target, order
        source, order = self.source.long().sort(stable=True)
        return index2ptr(source, self.num_sources), self.target[order], order

    def pairs(self, a: Tensor, b: Tensor) -> list[Tensor]:
        if self.source.numel() > self.num_targets * self.num_sources:
            # So many edges come more than once that the product would cut them off.
            return [(a.index_select(0, self.target) * b.index_select(0, self.source)).sum(-1)]
        products = a.new_zeros(a.size(1), self.source.numel())
        for h, values in enumerate(products):
            matrix = self._matrix(values, transpose=False)
            torch.sparse.sampled_addmm(matrix, a[:, h], b[:, h].t(), out=matrix)
        return [products.t()]

    def cosines(self, a: Tensor, b: Tensor, scales: tuple[Tensor, Tensor]) -> list[Tensor]:
        (products,), ((target, source),) = self.pairs(a, b), self.ends(*scales)
        return [products.mul_(target).mul_(source).clamp_(-1, 1)]

    def spread(self, x: Tensor, weights: list[Tensor], transpose: bool) -> Tensor:
        (weight,) = weights
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
