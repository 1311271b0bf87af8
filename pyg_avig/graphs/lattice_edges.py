"""Graphs on the lattices that images and clips lie on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data

from pyg_avig.errors import InputError
from pyg_avig.graphs.adjacency import disjoint_copies, is_recorded
from pyg_avig.graphs.axial_graph import AxialGraph
from pyg_avig.graphs.cache import cache_by_size
from pyg_avig.graphs.constructors import (
    GraphConstructor,
    device_of,
    ordered,
    positive,
    register_graph,
)
from pyg_avig.graphs.lattice import lattice_size


@register_graph("axial")
class AxialEdges(GraphConstructor):
    """Join the nodes of a lattice as SVGA does; see :class:`AxialGraph`.

    Takes a ``Data`` or ``Batch`` with ``lattice_size``, of one to three axes.

    Args:
        stride: Distance between neighbours along an axis, in nodes: one for all axes or one each.
    """

    def __init__(self, stride: int | Sequence[int] = 1) -> None:
        self.stride = stride

    def graph(self, data: Data) -> AxialGraph:
        """The graph, which holds no edges."""
        size = lattice_size(data)
        return AxialGraph(size, self.stride, _copies(data, size), device_of(data))

    def on_lattice(self, x: Tensor, size: Sequence[int]) -> AxialGraph:
        """The graph of node features (B * N, C) on lattices of one size."""
        return AxialGraph(size, self.stride, x.size(0) // math.prod(size), x.device)


class _LatticeEdges(GraphConstructor):
    """Edges that depend on the size of the lattice alone."""

    def graph(self, data: Data) -> Tensor:
        """The edges, (2, E)."""
        size = lattice_size(data)
        edges = _edges_of_copies(self, size, _copies(data, size), device_of(data))
        return edges.as_tensor().clone()

    @torch.compiler.disable  # Which edges there are hangs on values.
    def on_lattice(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """The edges, kept for the last few sizes together with their sorting by source.

        A program that is exported holds those of one lattice, and takes any number of it.
        """
        size = tuple(map(int, size))
        copies = x.size(0) // math.prod(size)
        if not is_recorded():
            return _edges_of_copies(self, size, copies, x.device)
        with _disable_current_modes():
            known = _edges_of_copies(self, size, 1, torch.device("cpu")).tolist()
        one = torch.tensor(known, dtype=torch.long, device=x.device).view(2, -1)
        return disjoint_copies(one, copies, (math.prod(size),) * 2)

    def _joined(self, nodes: Tensor, size: tuple[int, ...]) -> Tensor:
        raise NotImplementedError


@cache_by_size
def _edges_of_copies(
    constructor: _LatticeEdges, size: tuple[int, ...], copies: int, device: torch.device
) -> EdgeIndex:
    """The edges of so many lattices, ordered by target."""
    nodes = torch.cartesian_prod(*map(torch.arange, size)).view(-1, len(size))
    edges = ordered(constructor._joined(nodes, size))
    edges = disjoint_copies(edges, copies, (len(nodes), len(nodes))).to(device)
    sizes = (copies * len(nodes),) * 2
    return EdgeIndex(edges, sparse_size=sizes, sort_order="col")


@register_graph("neighborhood")
class NeighborhoodEdges(_LatticeEdges):
    """Join each node of a lattice with the k x ... x k nodes around it, cropped at the border.

    Takes a ``Data`` or ``Batch`` with ``lattice_size``. The neighbourhood of a convolution, dilated
    or not; `"Neighborhood Attention Transformer" <https://arxiv.org/abs/2204.07143>`_ moves it
    inwards at the border instead.

    Args:
        kernel: Side k of the neighbourhood, odd.
        dilation: Distance between neighbours, in nodes.
    """

    def __init__(self, kernel: int = 3, dilation: int = 1) -> None:
        self.kernel = positive("kernel", kernel)
        if self.kernel % 2 == 0:
            raise InputError(f"kernel must be odd (got {kernel})")
        self.dilation = positive("dilation", dilation)

    def _joined(self, nodes: Tensor, size: tuple[int, ...]) -> Tensor:
        reach = self.kernel // 2 * self.dilation
        steps = torch.arange(-reach, reach + 1, self.dilation)
        hops = torch.cartesian_prod(*[steps] * len(size)).view(-1, len(size))
        hops = hops[hops.any(1)]
        places = nodes.unsqueeze(1) + hops
        inside = ((places >= 0) & (places < torch.tensor(size))).all(-1)
        strides = torch.tensor(size).flip(0).cumprod(0).flip(0) // torch.tensor(size)
        sources = (places * strides).sum(-1)
        targets = torch.arange(len(nodes)).view(-1, 1).expand_as(sources)
        return torch.stack([sources[inside], targets[inside]])


@register_graph("window")
class WindowEdges(_LatticeEdges):
    """Join all nodes of a lattice within the same window; windows do not overlap.

    Takes a ``Data`` or ``Batch`` with ``lattice_size``. The windows of `"Swin Transformer"
    <https://arxiv.org/abs/2103.14030>`_; the last of an axis are smaller where ``side`` does not
    divide it.

    Args:
        side: Side of a window, in nodes.
    """

    def __init__(self, side: int = 7) -> None:
        self.side = positive("side", side)

    def _joined(self, nodes: Tensor, size: tuple[int, ...]) -> Tensor:
        _, window = (nodes // self.side).unique(dim=0, return_inverse=True)
        members = window.argsort(stable=True)
        edges = []
        for inside in members.split(window.bincount().tolist()):
            pairs = torch.cartesian_prod(inside, inside).T
            edges.append(pairs[:, pairs[0] != pairs[1]])
        return torch.cat(edges, 1)


def _copies(data: Data, size: tuple[int, ...]) -> int:
    """How many lattices of this size the nodes are."""
    nodes = data.x if data.x is not None else data.pos
    if nodes is None:
        return data.num_graphs if isinstance(data, Batch) else 1
    copies, rest = divmod(len(nodes), math.prod(size))
    if rest:
        raise InputError(
            f"expected the nodes of whole lattices {size}, {math.prod(size)} each (got "
            f"{len(nodes)})"
        )
    return copies
