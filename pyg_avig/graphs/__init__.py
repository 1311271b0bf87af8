"""Graph constructors: data, not flags."""

from pyg_avig.graphs.adjacency import Adjacency
from pyg_avig.graphs.axial_graph import AxialGraph
from pyg_avig.graphs.constructors import (
    GraphConstructor,
    graph_names,
    make_graph,
    register_graph,
)
from pyg_avig.graphs.dynamic_axial import DynamicAxialEdges
from pyg_avig.graphs.knn import KNNEdges
from pyg_avig.graphs.lattice import (
    graph_images,
    grid_to_nodes,
    image_nodes,
    lattice_size,
    nodes_to_grid,
)
from pyg_avig.graphs.lattice_edges import AxialEdges, NeighborhoodEdges, WindowEdges
from pyg_avig.graphs.masked_axial import MaskedAxialGraph
from pyg_avig.graphs.mobile_graph import MobileGraphEdges
from pyg_avig.graphs.neighborhood_attention import NeighborhoodAttentionEdges
from pyg_avig.graphs.radius import RadiusEdges
from pyg_avig.graphs.random import DegradedEdges, ExpanderEdges

__all__ = [
    "Adjacency",
    "AxialEdges",
    "AxialGraph",
    "DegradedEdges",
    "DynamicAxialEdges",
    "ExpanderEdges",
    "GraphConstructor",
    "KNNEdges",
    "MaskedAxialGraph",
    "MobileGraphEdges",
    "NeighborhoodAttentionEdges",
    "NeighborhoodEdges",
    "RadiusEdges",
    "WindowEdges",
    "graph_images",
    "graph_names",
    "grid_to_nodes",
    "image_nodes",
    "lattice_size",
    "make_graph",
    "nodes_to_grid",
    "register_graph",
]
