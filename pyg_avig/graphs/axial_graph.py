"""SVGA, the lattice graph of MobileViG and AttentionViG, without its edges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pyg_avig.errors import InputError


class AxialGraph:
    r"""Sparse Vision Graph Attention (SVGA) on a lattice of one to three axes.

    The graph of `"MobileViG: Graph-Based Sparse Attention for Mobile Vision
    Applications" <https://arxiv.org/abs/2307.00395>`_: along each axis of length
    :math:`S` with stride :math:`K`, node :math:`r` receives from

    .. math::
        (r - i) \bmod S \quad \text{for} \quad i = K, 2K, \ldots < S,

    which is what rolling a feature map by :math:`i` does, whether :math:`K`
    divides :math:`S` or not. No hop leads a node to itself, and an axis with
    :math:`K \ge S` adds none. With ``self_loops`` each node is a neighbour of its own, once.

    The graph is implicit: it holds its sizes, not its edges. :attr:`edge_index`
    materialises them for any layer that needs them. Nodes are numbered row-major,
    graph after graph, so node features of shape :math:`(B \cdot N, C)` viewed as
    :math:`(B, S_1, \ldots, C)` are a channels-last image.

    Args:
        size: Nodes along each axis: an int (one axis) or one to three ints,
            (W), (H, W) or (T, H, W).
        stride: Distance :math:`K` between neighbours along an axis, in nodes: an
            int for all axes or one per axis.
        batch_size: Number of disjoint copies of the lattice.
        device: Where :attr:`edge_index` lives (default: CPU).
        self_loops: Whether each node has a self-loop too.

    Raises:
        InputError: If a size or stride is not a positive int, or their numbers
            of axes differ.

    Example:
        >>> from pyg_avig import AxialGraph
        >>> graph = AxialGraph(size=(8, 8), stride=2, batch_size=4)
        >>> graph.num_nodes, graph.degree, graph.num_edges
        (256, 6, 1536)
        >>> graph.edge_index.shape  # built when first asked for
        torch.Size([2, 1536])
    """

    def __init__(
        self,
        size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        batch_size: int = 1,
        device: torch.device | str | None = None,
        self_loops: bool = False,
    ) -> None:
        self.size = _positive_ints("size", size)
        self.stride = _positive_ints("stride", stride)
        if not 1 <= len(self.size) <= 3:
            raise InputError(f"size must have one to three axes (got {self.size})")
        if isinstance(stride, _INTEGERS):
            self.stride = self.stride * len(self.size)
        if len(self.stride) != len(self.size):
            raise InputError(
                f"stride must be an int or have one value per axis of size "
                f"{self.size} (got {self.stride})"
            )
        if not isinstance(batch_size, _INTEGERS) or batch_size < 0:
            raise InputError(f"batch_size must be an int, not negative (got {batch_size!r})")
        self.batch_size = batch_size
        self.device = torch.device("cpu" if device is None else device)
        self.self_loops = self_loops
        self._edge_index: Tensor | None = None

    @property
    def num_axes(self) -> int:
        """Number of lattice axes."""
        return len(self.size)

    @property
    def num_nodes_per_graph(self) -> int:
        """Nodes of one lattice."""
        return math.prod(self.size)

    @property
    def num_nodes(self) -> int:
        """Nodes of all lattices of the batch."""
        return self.batch_size * self.num_nodes_per_graph

    @property
    def degrees(self) -> tuple[int, ...]:
        """Number of neighbours along each axis, without the node itself; the same for all."""
        return tuple((s - 1) // k for s, k in zip(self.size, self.stride, strict=True))

    @property
    def degree(self) -> int:
        """Number of neighbours of every node, itself included if it has a self-loop."""
        return sum(self.degrees) + int(self.self_loops)

    def neighbor_counts(self, like: Tensor) -> Tensor:
        """The number of neighbours of all nodes, at least 1, (), of the dtype of ``like``."""
        return like.new_full((), max(self.degree, 1))  # Nothing is copied from the host.

    @property
    def num_edges(self) -> int:
        """Directed edges of all lattices of the batch."""
        return self.num_nodes * self.degree

    @property
    def edge_index(self) -> Tensor:
        """The edges, (2, E), source to target, ordered by target; cached.

        A node's edges come axis by axis, nearest hop first, a self-loop before all. Do not write
        into it.
        """
        if self._edge_index is None:
            # What is kept must be an ordinary tensor, whatever mode it is first asked for in.
            with torch.inference_mode(False):
                edge_index = self._build_edge_index()
            if type(edge_index) is not Tensor:  # A tracer's stand-in must not outlive the trace.
                return edge_index
            self._edge_index = edge_index
        return self._edge_index

    def _build_edge_index(self) -> Tensor:
        per_graph = self.num_nodes_per_graph
        nodes = torch.arange(per_graph, device="cpu").view(self.size)
        sources = [nodes.flatten()] if self.self_loops else []
        sources += [
            nodes.roll(hop, dims=axis).flatten()
            for axis in range(self.num_axes)
            for hop in range(self.stride[axis], self.size[axis], self.stride[axis])
        ]
        if not sources:
            return torch.empty(2, 0, dtype=torch.long, device=self.device)
        source = torch.stack(sources, dim=1)
        target = nodes.view(-1, 1).expand_as(source)
        edge_index = torch.stack([source.flatten(), target.flatten()])
        first = torch.arange(self.batch_size, device="cpu") * per_graph
        edge_index = (edge_index.unsqueeze(1) + first.view(1, -1, 1)).flatten(1)
        return edge_index.to(self.device)

    @property
    def batch(self) -> Tensor:
        """The lattice that each node belongs to, (B * N,), as in PyG's ``Batch``."""
        graphs = torch.arange(self.batch_size, device=self.device)
        return graphs.repeat_interleave(self.num_nodes_per_graph)

    def to(self, device: torch.device | str) -> AxialGraph:
        """The same graph with its edges on ``device``."""
        if torch.device(device) == self.device:
            return self
        return AxialGraph(self.size, self.stride, self.batch_size, device, self.self_loops)

    def repeated(self, times: int) -> AxialGraph:
        """So many disjoint copies of the graph."""
        number = times * self.batch_size
        return AxialGraph(self.size, self.stride, number, self.device, self.self_loops)

    def with_self_loops(self) -> AxialGraph:
        """The same graph with a self-loop at each node."""
        if self.self_loops:
            return self
        return AxialGraph(self.size, self.stride, self.batch_size, self.device, True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AxialGraph) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple:
        return self.size, self.stride, self.batch_size, self.device, self.self_loops

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_edge_index": None}

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(size={self.size}, stride={self.stride}, "
            f"batch_size={self.batch_size}{', self_loops=True' if self.self_loops else ''})"
        )


def _positive_ints(name: str, value: int | Sequence[int]) -> tuple[int, ...]:
    values = (value,) if isinstance(value, _INTEGERS) else value
    if not isinstance(values, Sequence) or not all(
        isinstance(v, _INTEGERS) and v > 0 for v in values
    ):
        raise InputError(f"{name} must be a positive int or several (got {value!r})")
    return tuple(int(v) if isinstance(v, np.integer) else v for v in values)


# A traced program has symbolic sizes.
_INTEGERS = (int, np.integer, torch.SymInt)
