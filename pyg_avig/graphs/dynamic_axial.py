"""SVGA's edges, between nodes that resemble each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_avig.graphs.axial_graph import AxialGraph
from pyg_avig.graphs.constructors import GraphConstructor, points_of, register_graph
from pyg_avig.graphs.lattice_edges import AxialEdges
from pyg_avig.graphs.masked_axial import MaskedAxialGraph


@register_graph("dynamic_axial")
class DynamicAxialEdges(GraphConstructor):
    r"""Dynamic axial graph construction (DAGC): of SVGA's edges those between similar features.

    From `"GreedyViG: Dynamic Axial Graph Construction for Efficient Vision GNNs"
    <https://arxiv.org/abs/2405.06849>`_. Node :math:`i` keeps its neighbour :math:`j` along an axis
    (see :class:`AxialGraph`) if

    .. math::
        \lVert \mathbf{x}_i - \mathbf{x}_j \rVert_2 < \mu - \sigma,

    where :math:`\mu` and :math:`\sigma` are the mean and standard deviation of the distances
    between all nodes of a lattice, estimated from as many pairs as it has nodes: of each node and
    the one in its place after the quadrants have changed places across the diagonals. A node may
    be left without neighbours.

    As in the public code, where the paper does not say: the deviation divides by N - 1, and an axis
    of odd length is rolled by its larger half. That code sums absolute differences (the L1
    distance); the paper's distance is Euclidean, and so is this one. GreedyViG's hops are 8, 4, 2
    and 1 in its four stages.

    Takes a ``Data`` or ``Batch`` with ``x`` and ``lattice_size``, of one to three axes; edges
    change with the features, and so from block to block of a model. The graph is a mask on the
    lattice, which :func:`pyg_avig.ops.cross_attention` takes without edges.

    Args:
        stride: Distance between neighbours along an axis, in nodes: one for all axes or one each.
    """

    of = "x"

    def __init__(self, stride: int | Sequence[int] = 1) -> None:
        self.stride = stride

    def graph(self, data: Data) -> AxialGraph:
        """The graph, which holds no edges."""
        lattice = AxialEdges(self.stride).graph(data)
        return (
            nearer_than_usual(points_of(data, self.of), lattice) if lattice.num_edges else lattice
        )

    def on_lattice(self, x: Tensor, size: Sequence[int]) -> AxialGraph:
        """The graph of node features (B * N, C) on lattices of one size."""
        lattice = AxialEdges(self.stride).on_lattice(x, size)
        return nearer_than_usual(x, lattice) if lattice.num_edges else lattice


@torch.no_grad()
def nearer_than_usual(x: Tensor, lattice: AxialGraph) -> MaskedAxialGraph:
    """Those edges of a lattice whose ends' features lie nearer than the mean less the deviation.

    Args:
        x: Node features, (B * N, C).
        lattice: The graph of SVGA, with edges.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    grid = x.view(lattice.batch_size, *lattice.size, x.size(1))
    axes = range(1, 1 + lattice.num_axes)
    swapped = grid.roll([(length + 1) // 2 for length in lattice.size], tuple(axes))
    pairs = _distance(grid, swapped).flatten(1)
    limit = (pairs.mean(1) - pairs.std(1)).view(-1, *[1] * lattice.num_axes)
    # In the order of the lattice's own edges.
    near = [
        _distance(grid, grid.roll(hop, axis)) < limit
        for axis, length, stride in zip(axes, lattice.size, lattice.stride, strict=True)
        for hop in range(stride, length, stride)
    ]
    return MaskedAxialGraph(lattice, torch.stack(near, -1).flatten(0, -2))


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vector_norm(a - b, dim=-1)
