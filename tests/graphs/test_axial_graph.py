import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_avig import AxialGraph, InputError

sizes = st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple)


@st.composite
def graphs(draw):
    size = draw(sizes)
    stride = tuple(draw(st.integers(1, 9)) for _ in size)
    return AxialGraph(size, stride, draw(st.integers(1, 3)))


@given(graphs())
def test_edges_equal_rolls(graph):
    x = torch.randn(graph.num_nodes, 2, dtype=torch.double)
    source, target = graph.edge_index
    by_edges = torch.zeros_like(x).index_add(0, target, x[source])

    grid = x.view(graph.batch_size, *graph.size, 2)
    by_rolls = torch.zeros_like(grid)
    for axis, (length, stride) in enumerate(zip(graph.size, graph.stride, strict=True)):
        for hop in range(stride, length, stride):
            by_rolls += grid.roll(hop, dims=axis + 1)
    assert torch.allclose(by_edges, by_rolls.view_as(x))


@given(graphs())
def test_edges_equal_the_modular_rule(graph):
    expected = set()
    nodes = torch.cartesian_prod(*(torch.arange(s) for s in graph.size))
    nodes = nodes.view(-1, graph.num_axes).tolist()
    number = {tuple(node): i for i, node in enumerate(nodes)}
    for b in range(graph.batch_size):
        first = b * graph.num_nodes_per_graph
        for node in nodes:
            for axis, (length, stride) in enumerate(zip(graph.size, graph.stride, strict=True)):
                for hop in range(stride, length, stride):
                    other = list(node)
                    other[axis] = (other[axis] - hop) % length
                    expected.add((first + number[tuple(other)], first + number[tuple(node)]))
    edges = list(map(tuple, graph.edge_index.T.tolist()))
    assert len(edges) == len(set(edges)) == graph.num_edges
    assert set(edges) == expected


@given(graphs())
def test_with_self_loops(graph):
    looped = graph.with_self_loops()
    assert looped.with_self_loops() is looped
    assert looped.to("meta").self_loops
    assert looped != graph
    assert looped.num_edges == looped.edge_index.size(1) == graph.num_edges + graph.num_nodes
    source, target = looped.edge_index
    assert (target.bincount(minlength=graph.num_nodes) == looped.degree).all()
    assert (target.diff() >= 0).all()
    assert torch.equal(looped.edge_index[:, source != target], graph.edge_index)
    twice = looped.repeated(2)
    assert twice == AxialGraph(graph.size, graph.stride, 2 * graph.batch_size, self_loops=True)
    assert "self_loops=True" in repr(looped)


@given(graphs())
def test_counts_and_order(graph):
    source, target = graph.edge_index
    assert graph.edge_index.shape == (2, graph.num_edges)
    assert (target.bincount(minlength=graph.num_nodes) == graph.degree).all()
    assert (target.diff() >= 0).all()
    assert (source != target).all()
    assert (graph.batch[source] == graph.batch[target]).all()


def test_stride_beyond_the_axis_gives_no_neighbour():
    assert AxialGraph((4, 3), stride=(4, 5)).num_edges == 0
    assert AxialGraph((4, 3), stride=(4, 2)).degrees == (0, 1)


def test_edge_index_is_cached():
    graph = AxialGraph((6, 6), 2)
    assert graph.edge_index is graph.edge_index


@pytest.mark.parametrize("mode", [torch.inference_mode, lambda: torch.device("meta")])
def test_edges_first_asked_for_in_another_mode_are_ordinary(mode):
    graph = AxialGraph((3, 5))
    with mode():
        graph.edge_index  # noqa: B018
    assert not graph.edge_index.is_inference()
    assert torch.equal(graph.edge_index, AxialGraph((3, 5)).edge_index)


def test_numpy_sizes():
    assert AxialGraph(np.int64(4), np.int32(2)) == AxialGraph(4, 2)


def test_value_semantics():
    graph = AxialGraph((4, 6), (1, 2), batch_size=2)
    assert repr(graph) == "AxialGraph(size=(4, 6), stride=(1, 2), batch_size=2)"
    assert graph == AxialGraph((4, 6), (1, 2), 2) != AxialGraph((4, 6), (1, 2), 3)
    assert len({graph, AxialGraph((4, 6), (1, 2), 2)}) == 1
    assert pickle.loads(pickle.dumps(graph)) == graph
    assert graph.to("cpu") is graph
    assert graph.to("meta").edge_index.device.type == "meta"
    assert AxialGraph(5).size == (5,)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (((4, 0), 1), "size must be a positive int"),
        (((4, 4), 0), "stride must be a positive int"),
        (((4, 4.0), 1), "size must be a positive int"),
        (((4, 4), (1, 2, 3)), r"one value per axis of size \(4, 4\) \(got \(1, 2, 3\)\)"),
        (((2, 2, 2, 2), 1), "one to three axes"),
        ((4.0, 1), "size must be a positive int"),
        (((4, 4), 1, 2.5), "batch_size must be an int"),
        (((4, 4), 1, -1), "batch_size must be an int, not negative"),
    ],
)
def test_bad_input(args, message):
    with pytest.raises(InputError, match=message):
        AxialGraph(*args)
