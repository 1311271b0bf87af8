import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_avig import InputError
from pyg_avig.graphs import graph_images, grid_to_nodes, lattice_size, nodes_to_grid


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
