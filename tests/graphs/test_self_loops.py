import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.utils import add_self_loops, remove_self_loops

from pyg_avig import InputError
from pyg_avig.graphs.self_loops import FILLS, check_fill_value, with_self_loops


@pytest.mark.parametrize("fill_value", [0.5, torch.tensor([1.0, -2.0]), *FILLS], ids=str)
@given(st.integers(1, 6), st.integers(0, 12))
def test_as_pyg_does_it(fill_value, num_nodes, num_edges):
    edges, features = torch.randint(num_nodes, (2, num_edges)), torch.randn(num_edges, 2)
    found = with_self_loops(edges, num_nodes, num_nodes, features, fill_value)
    expected = add_self_loops(*remove_self_loops(edges, features), fill_value, num_nodes)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    alone, nothing = with_self_loops(edges, num_nodes, num_nodes)
    assert nothing is None
    assert torch.equal(alone, expected[0])


def test_features_of_self_loops_come_from_the_edges_to_their_target():
    edges = torch.tensor([[0, 1, 2, 2], [1, 1, 0, 1]])
    features = torch.tensor([[1.0], [100.0], [3.0], [5.0]])
    for row, expected in ((1, [3.0, 3.0, 0.0]), (0, [1.0, 0.0, 4.0])):
        _, filled = with_self_loops(edges, 3, 3, features, "mean", target_row=row)
        assert filled[3:].flatten().tolist() == expected


@pytest.mark.parametrize(("num_sources", "num_targets"), [(4, 2), (2, 4)])
def test_in_a_bipartite_graph_as_far_as_there_are_both(num_sources, num_targets):
    edges = torch.tensor([[0, 1, 1], [1, 1, 0]])
    found, _ = with_self_loops(edges, num_sources, num_targets)
    assert found.tolist() == [[0, 1, 0, 1], [1, 0, 0, 1]]


@pytest.mark.parametrize("row", [0, 1])
def test_padded_edges_are_as_many_as_the_shapes_say(row):
    edges = torch.tensor([[0, 1, 2, 2], [1, 1, 0, 2]])
    features = torch.arange(4.0).view(4, 1)
    expected, expected_features = with_self_loops(edges, 3, 3, features, target_row=row)
    found, found_features = with_self_loops(edges, 3, 3, features, target_row=row, padded=True)
    assert found.shape == (2, 4 + 3)
    kept = found[row] < 3
    assert torch.equal(found[:, kept], expected)
    assert torch.equal(found_features[kept], expected_features)


def test_bad_fill_value():
    with pytest.raises(InputError, match=r"a tensor or one of add, .* \(got 'median'\)"):
        check_fill_value("median")
