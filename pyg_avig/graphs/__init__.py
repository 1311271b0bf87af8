"""Graph constructors: data, not flags."""

from pyg_avig.graphs.adjacency import Adjacency
from pyg_avig.graphs.axial import AxialGraph
from pyg_avig.graphs.lattice import (
    graph_images,
    grid_to_nodes,
    image_nodes,
    lattice_size,
    nodes_to_grid,
)

__all__ = [
    "Adjacency",
    "AxialGraph",
    "graph_images",
    "grid_to_nodes",
    "image_nodes",
    "lattice_size",
    "nodes_to_grid",
]
