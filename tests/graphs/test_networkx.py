import math

import networkx as nx
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import from_networkx, to_networkx

from pyg_avig import AxialGraph, CrossAttnConv

GRAPHS = [
    AxialGraph((8, 6), (4, 2)),
    AxialGraph((7, 6), (3, 4)),
    AxialGraph((4, 4)),
    AxialGraph((4, 6, 3), (2, 3, 3)),
    AxialGraph(9, 3),
    AxialGraph((6, 4), (2, 2), batch_size=2),
]


def to_nx(graph):
    return to_networkx(Data(edge_index=graph.edge_index, num_nodes=graph.num_nodes))


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_every_node_has_the_degree_of_the_lattice(graph):
    drawn = to_nx(graph)
    assert {degree for _, degree in drawn.in_degree()} == {graph.degree}
    # Rolling is a bijection, so what is received is also sent.
    assert {degree for _, degree in drawn.out_degree()} == {graph.degree}


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_components_are_the_products_of_residue_classes(graph):
    # Hops of K generate the multiples of gcd(K, S) in the cycle of length S.
    per_axis = [
        math.gcd(k, s) if k < s else s for s, k in zip(graph.size, graph.stride, strict=True)
    ]
    components = list(nx.strongly_connected_components(to_nx(graph)))
    assert len(components) == math.prod(per_axis) * graph.batch_size
    assert {len(component) for component in components} == {graph.num_nodes // len(components)}


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_where_strides_divide_a_component_is_a_product_of_complete_graphs(graph):
    if any(s % k for s, k in zip(graph.size, graph.stride, strict=True)):
        pytest.skip("a stride that does not divide its axis gives a circulant graph")
    drawn = to_nx(graph)
    members = [s // k for s, k in zip(graph.size, graph.stride, strict=True)]
    expected = nx.empty_graph(1)
    for m in members:
        expected = nx.cartesian_product(expected, nx.complete_graph(m))
    for component in nx.weakly_connected_components(drawn):
        part = drawn.subgraph(component)
        assert all(part.has_edge(b, a) for a, b in part.edges)
        assert nx.diameter(part.to_undirected()) == sum(m > 1 for m in members)
        assert nx.is_isomorphic(part.to_undirected(), expected)


def test_a_networkx_graph_goes_through_the_layer():
    data = from_networkx(nx.karate_club_graph())
    x = torch.randn(data.num_nodes, 5)
    assert CrossAttnConv(5, 3)(x, data.edge_index).shape == (34, 3)
