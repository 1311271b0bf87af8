import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_avig import InputError
from pyg_avig.graphs import (
    AxialEdges,
    graph_images,
    grid_to_nodes,
    image_nodes,
    lattice_size,
    nodes_to_grid,
)


def test_node_major_is_channels_last():
    x = torch.randn(2 * 3 * 4, 5)
    grid = nodes_to_grid(x, (3, 4))
    assert grid.shape == (2, 5, 3, 4)
    assert grid.is_contiguous(memory_format=torch.channels_last)
    assert grid[1, :, 2, 3].tolist() == x[-1].tolist()
    assert grid_to_nodes(grid).data_ptr() == grid.data_ptr() == x.data_ptr()


def test_lattice_size_of_a_graph_and_a_batch():
    data = Data(x=torch.zeros(6, 1), lattice_size=(2, 3))
    assert lattice_size(data) == (2, 3)
    assert lattice_size(Batch.from_data_list([data, data])) == (2, 3)


@pytest.mark.parametrize("copies", [1, 2, 3])
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((2, 3), (2, 3)),
        ([2, 3], (2, 3)),
        (torch.tensor([2, 3]), (2, 3)),
        (torch.tensor([[2, 3]]), (2, 3)),
        (np.array([2, 3]), (2, 3)),
        ((np.int64(2), np.int32(3)), (2, 3)),
        (6, (6,)),
        (np.int64(6), (6,)),
        (torch.tensor(6), (6,)),
        (torch.tensor([6]), (6,)),
        ([6], (6,)),
    ],
    ids=repr,
)
def test_a_size_is_written_as_one_likes(size, expected, copies):
    data = Data(x=torch.zeros(6, 1), lattice_size=size)
    batch = Batch.from_data_list([data] * copies)
    for graphs in (data, batch, Data.from_dict(data.to_dict())):
        found = lattice_size(graphs)
        assert found == expected
        assert all(type(length) is int for length in found)
    if expected == (2, 3):
        assert lattice_size(Data.from_dict(batch.to_dict())) == expected
    assert AxialEdges().graph(batch).batch_size == copies


@pytest.mark.parametrize("size", [(), (2, 0), (-2, 3), (2.0, 3.0), "ab", torch.tensor(2.5), True])
def test_what_is_no_size_is_named(size):
    with pytest.raises(InputError, match=r"lattice_size as positive ints, one an axis \(got"):
        lattice_size(Data(x=torch.zeros(6, 1), lattice_size=size))


@pytest.mark.parametrize("patch_size", [(2, 2), [2, 2], 2, torch.tensor([2, 2]), np.int64(2)])
def test_patches_are_written_as_one_likes(patch_size):
    images = torch.rand(2, 3, 4, 6)
    graphs = [
        Data(x=image_nodes(image[None], (2, 2)), lattice_size=(2, 3), patch_size=patch_size)
        for image in images
    ]
    assert torch.equal(graph_images(Batch.from_data_list(graphs)), images)
    with pytest.raises(InputError, match=r"two axes \(got \(6,\) and"):
        graph_images(Data(x=graphs[0].x, lattice_size=6, patch_size=patch_size))


def test_a_batch_without_graphs_has_no_size():
    with pytest.raises(InputError, match="lattice_size as positive ints"):
        lattice_size(Batch(lattice_size=[], ptr=torch.zeros(1, dtype=torch.long)))


def test_unequal_lattices_are_refused_with_both_sizes():
    batch = Batch.from_data_list(
        [Data(x=torch.zeros(h * 3, 1), lattice_size=(h, 3)) for h in (2, 4)]
    )
    with pytest.raises(InputError, match=r"\(2, 3\) and \(4, 3\)"):
        lattice_size(batch)


def test_missing_fields_are_named():
    with pytest.raises(InputError, match="lattice_size"):
        lattice_size(Data(x=torch.zeros(6, 1)))
    with pytest.raises(InputError, match=r"lattices \(2, 3\) \(got \(7, 1\)\)"):
        nodes_to_grid(torch.zeros(7, 1), (2, 3))
    broken = Data(x=torch.zeros(6, 5), lattice_size=(2, 3), patch_size=(2, 2))
    with pytest.raises(InputError, match=r"2 x 2 pixels.*got 5"):
        graph_images(broken)
    with pytest.raises(InputError, match="patch_size"):
        graph_images(Data(x=torch.zeros(6, 1), lattice_size=(2, 3)))
