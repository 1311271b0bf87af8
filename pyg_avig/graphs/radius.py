"""All neighbours within a distance."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_avig.graphs.constructors import (
    GraphConstructor,
    graphs_of,
    ordered,
    points_of,
    positive,
    register_graph,
)
from pyg_avig.graphs.distances import pair_distances, within
from pyg_avig.graphs.knn import KNNEdges


@register_graph("radius")
class RadiusEdges(GraphConstructor):
    """Join each node with all others within a distance.

    Args:
        r: The largest distance that is joined, in the unit of the points.
        of: Field of the points: ``pos``, or ``x`` for distances between features.
        max_neighbors: Keep the nearest so many; ``None`` keeps all.
    """

    def __init__(self, r: float = 1.0, of: str = "pos", max_neighbors: int | None = None) -> None:
        self.r = positive("r", r, float)
        self.of = of
        if max_neighbors is not None:
            max_neighbors = positive("max_neighbors", max_neighbors)
        self.max_neighbors = max_neighbors

    def graph(self, data: Data) -> Tensor:
        """The edges, (2, E)."""
        points = points_of(data, self.of)
        if self.max_neighbors is not None:
            nearest = KNNEdges(self.max_neighbors, self.of).graph(data)
            return nearest[:, pair_distances(points, nearest) <= self.r]
        edges = [within(points[nodes], self.r) + nodes.start for nodes in graphs_of(data)]
        none = torch.empty(2, 0, dtype=torch.long, device=points.device)
        return ordered(torch.cat([none, *edges], 1))
