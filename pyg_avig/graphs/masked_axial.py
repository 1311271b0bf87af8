"""A lattice graph of which some edges are left out, still without its edges."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_avig.errors import InputError
from pyg_avig.graphs.axial_graph import AxialGraph


class MaskedAxialGraph(AxialGraph):
    """An :class:`AxialGraph` with some of its edges.

    Nodes may have different numbers of neighbours, or none; ``degree`` is the most they can have.

    Args:
        lattice: The graph whose edges they are.
        keep: Which of a node's edges there are, (N, neighbours), bool, in the order of the
            lattice's ``edge_index``; its self-loop, if it has one, stays.

    Raises:
        InputError: If ``keep`` has another shape or dtype.
    """

    def __init__(self, lattice: AxialGraph, keep: Tensor) -> None:
        super().__init__(
            lattice.size, lattice.stride, lattice.batch_size, lattice.device, lattice.self_loops
        )
        shape = (self.num_nodes, sum(self.degrees))
        if keep.dtype != torch.bool or keep.shape != shape:
            raise InputError(
                f"expected keep of shape {shape}, bool (got {tuple(keep.shape)}, {keep.dtype})"
            )
        self.keep = keep

    @property
    def num_edges(self) -> int:
        """Directed edges of all lattices of the batch."""
        return int(self.keep.sum()) + int(self.self_loops) * self.num_nodes

    def neighbor_counts(self, like: Tensor) -> Tensor:
        """The number of neighbours of each node, at least 1, (N,), of the dtype of ``like``."""
        return (self.keep.sum(1) + int(self.self_loops)).clamp(min=1).to(like)

    def kept_along(self, axis: int) -> Tensor:
        """Which of a node's edges along an axis there are, (N, ``degrees[axis]``)."""
        first = sum(self.degrees[:axis])
        return self.keep[:, first : first + self.degrees[axis]]

    def _build_edge_index(self) -> Tensor:
        loops = self.keep.new_ones(self.num_nodes, int(self.self_loops))
        kept = torch.cat([loops, self.keep], 1).flatten()
        return super()._build_edge_index()[:, kept.to(self.device)]

    def to(self, device: torch.device | str) -> AxialGraph:
        """The same graph with its edges on ``device``."""
        if torch.device(device) == self.device:
            return self
        return MaskedAxialGraph(super().to(device), self.keep.to(device))

    def repeated(self, times: int) -> AxialGraph:
        """So many disjoint copies of the graph."""
        return MaskedAxialGraph(super().repeated(times), self.keep.repeat(times, 1))

    def with_self_loops(self) -> AxialGraph:
        """The same graph with a self-loop at each node."""
        if self.self_loops:
            return self
        return MaskedAxialGraph(super().with_self_loops(), self.keep)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, MaskedAxialGraph)
            and super().__eq__(other)
            and torch.equal(self.keep, other.keep)
        )

    __hash__ = AxialGraph.__hash__
