import pytest
import torch
from torch_geometric import EdgeIndex

from pyg_avig import AxialGraph, InputError
from pyg_avig.graphs.adjacency import check_edges, check_size, num_edges, to_edge_list, with_value

EDGES = torch.tensor([[3, 1, 0, 2], [0, 0, 2, 1]])


def matrix():
    return torch.sparse_coo_tensor(EDGES.flip(0), torch.arange(4.0), (3, 4)).coalesce()


def edges_and_values(adjacency):
    edge_index, value = to_edge_list(adjacency)
    assert edge_index.dtype == torch.int64
    assert type(edge_index) is torch.Tensor
    return set(zip(*edge_index.tolist(), value.tolist(), strict=True))


def test_matrices_are_read_by_target_and_source():
    expected = set(zip(*EDGES.tolist(), [0.0, 1.0, 2.0, 3.0], strict=True))
    for adjacency in (matrix(), matrix().to_sparse_csr(), matrix().to_sparse_csc()):
        assert edges_and_values(adjacency) == expected


def test_new_values_go_to_their_edges():
    for adjacency in (matrix(), matrix().to_sparse_csr(), matrix().to_sparse_csc()):
        value = to_edge_list(adjacency).value
        weighted = with_value(adjacency, value + 10)
        rows, columns = matrix().indices()
        expected = torch.zeros(3, 4).index_put((rows, columns), matrix().values() + 10)
        assert torch.equal(weighted.to_dense(), expected)


@pytest.mark.parametrize(
    "edges", [EDGES, EDGES.int(), EDGES.to(torch.uint8), EdgeIndex(EDGES, sparse_size=(4, 3))]
)
def test_edge_lists_keep_their_order(edges):
    edge_index, value = to_edge_list(edges)
    assert torch.equal(edge_index, EDGES)
    assert value is None


def test_edges_are_counted():
    sparse = matrix(), matrix().to_sparse_csr(), matrix().to_sparse_csc()
    index = EdgeIndex(EDGES, sparse_size=(4, 3))
    for adjacency in (EDGES, EDGES.int(), index, AxialGraph((2, 3)), *sparse):
        assert num_edges(adjacency) == to_edge_list(adjacency).edge_index.size(1)


def test_lattices_give_their_edges():
    graph = AxialGraph((2, 3))
    assert to_edge_list(graph).edge_index is graph.edge_index


@pytest.mark.parametrize(
    ("adjacency", "message"),
    [
        (torch.zeros(3, 4).long(), r"got Tensor of shape \(3, 4\)"),
        (torch.zeros(2).long(), r"got Tensor of shape \(2,\)"),
        (EDGES.float(), "integer dtype .got torch.float32"),
        (EDGES.bool(), "integer dtype .got torch.bool"),
        ([[0], [1]], "got list"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_adjacency_is_refused(adjacency, message):
    for read in (to_edge_list, num_edges):
        with pytest.raises(InputError, match=message):
            read(adjacency)


def test_uncoalesced_matrices_are_refused_and_left_alone():
    matrix = torch.sparse_coo_tensor(EDGES.flip(0), torch.ones(4), (3, 4))
    with pytest.raises(InputError, match="coalesce"):
        to_edge_list(matrix)
    assert not matrix.is_coalesced()


def test_vector_values_are_replaced_too():
    values = torch.arange(8.0).view(4, 2)
    plain = torch.sparse_coo_tensor(EDGES.flip(0), values, (3, 4, 2)).coalesce()
    weighted = with_value(plain, torch.ones(4, 3))
    assert weighted.shape == (3, 4, 3)


def test_known_sizes_must_fit():
    matrix_ = matrix()
    check_size(matrix_, 4, 3)
    with pytest.raises(InputError, match=r"shape \(4, 3\), targets by sources \(got \(3, 4\)"):
        check_size(matrix_, 3, 4)
    index = EdgeIndex(EDGES, sparse_size=(4, None))
    check_size(index, 4, 7)
    with pytest.raises(InputError, match=r"sparse_size \(5, 7\) \(got \(4, None\)\)"):
        check_size(index, 5, 7)
    with pytest.raises(InputError, match="features of 4 nodes.*got 5"):
        check_size(AxialGraph((2, 2)), 4, 5)


def test_nodes_that_are_not_there_are_named():
    cpu = torch.device("cpu")
    check_edges(EDGES, 4, 3, cpu)
    with pytest.raises(IndexError, match=r"edge_index\[0\].*\[0, 3\), the source nodes"):
        check_edges(EDGES, 3, 3, cpu)
    with pytest.raises(IndexError, match=r"edge_index\[1\].*\[0, 2\), the target nodes"):
        check_edges(EDGES, 4, 2, cpu)
    with pytest.raises(InputError, match="one device .got cpu and meta"):
        check_edges(EDGES, 4, 3, torch.device("meta"))
