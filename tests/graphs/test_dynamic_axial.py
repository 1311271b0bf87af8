import itertools
import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from pyg_avig import InputError
from pyg_avig.graphs import AxialEdges, DynamicAxialEdges


def by_hand(x, size, stride):
    """The edges of one lattice, node by node, as sets of (source, target)."""
    places = list(itertools.product(*map(range, size)))
    number = {place: n for n, place in enumerate(places)}

    def distance(a, b):
        return math.dist(x[number[a]].tolist(), x[number[b]].tolist())

    # The quadrants change places: a place holds what lay half an axis before it.
    halves = [(length + 1) // 2 for length in size]
    swapped = [
        distance(p, tuple((r - h) % s for r, h, s in zip(p, halves, size, strict=True)))
        for p in places
    ]
    if len(places) == 1:
        return set()
    limit = statistics.mean(swapped) - statistics.stdev(swapped)
    edges = set()
    for place in places:
        for axis, length in enumerate(size):
            for hop in range(stride, length, stride):
                other = list(place)
                other[axis] = (place[axis] - hop) % length
                if distance(place, tuple(other)) < limit:
                    edges.add((number[tuple(other)], number[place]))
    return edges


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple),
    st.integers(1, 3),
    st.integers(0, 1000),
)
def test_edges_are_those_of_the_algorithm(size, stride, seed):
    generator = torch.Generator().manual_seed(seed)
    graphs = [
        # Few values, so that some distances lie below the mean by more than the deviation.
        Data(x=torch.randn(math.prod(size), 2, generator=generator).double(), lattice_size=size)
        for _ in range(2)
    ]
    constructor = DynamicAxialEdges(stride)
    for graph in graphs:
        edges = constructor.graph(graph).edge_index
        assert set(map(tuple, edges.T.tolist())) == by_hand(graph.x, size, stride)
    both = constructor.graph(Batch.from_data_list(graphs))
    first, second = (constructor.graph(graph).edge_index for graph in graphs)
    assert torch.equal(both.edge_index, torch.cat([first, second + math.prod(size)], 1))
    assert constructor.on_lattice(torch.cat([graph.x for graph in graphs]), size) == both


def test_equal_nodes_are_not_nearer_than_usual():
    data = Data(x=torch.ones(16, 3), lattice_size=(4, 4))
    assert DynamicAxialEdges().graph(data).num_edges == 0


def test_edges_follow_the_features_and_their_gradients_stay():
    data = Data(x=torch.randn(36, 3, requires_grad=True), lattice_size=(6, 6))
    assert DynamicAxialEdges().reads_features
    edges = DynamicAxialEdges().graph(data).edge_index
    assert not edges.requires_grad
    assert 0 < edges.size(1) < AxialEdges().graph(data).num_edges
    data.x = torch.randn(36, 3)
    assert not torch.equal(DynamicAxialEdges().graph(data).edge_index, edges)


def test_half_precision_is_compared_in_single():
    x = torch.randn(36, 3).half()
    graphs = [DynamicAxialEdges(2).graph(Data(x=y, lattice_size=(6, 6))) for y in (x, x.float())]
    assert graphs[0] == graphs[1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(x=torch.randn(4, 1)), "lattice_size"),
        (Data(pos=torch.randn(4, 2), lattice_size=(2, 2)), "data.x of shape"),
        (Data(x=torch.full((4, 1), torch.nan), lattice_size=(2, 2)), "NaN"),
        (Data(x=torch.randn(5, 1), lattice_size=(2, 2)), "whole lattices"),
    ],
)
def test_bad_input(data, message):
    with pytest.raises(InputError, match=message):
        DynamicAxialEdges()(data)
