import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data

from pyg_avig.data.loading.lattices import PixelsToGraph, collate_lattices
from pyg_avig.graphs import graph_images
from pyg_avig.transforms import ImageToGraph


def graph(height=4, width=6, y=1, patch_size=1, edges=False):
    to_graph = ImageToGraph(patch_size=patch_size, edges=edges)
    return to_graph((torch.randn(3, height, width), y))


def same(a, b):
    """Two batches, and the graphs that they can be taken apart into, are the same."""
    assert type(a) is type(b)
    assert (a.num_graphs, a.num_nodes, set(a.keys())) == (b.num_graphs, b.num_nodes, set(b.keys()))
    for one, other in [(a, b), *zip(a.to_data_list(), b.to_data_list(), strict=True)]:
        assert set(one.keys()) == set(other.keys())
        for name, value in other.to_dict().items():
            if isinstance(value, torch.Tensor):
                assert one[name].dtype == value.dtype
                assert torch.equal(one[name], value)
            else:
                assert one[name] == value


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.sampled_from([1, (1, 2)]))
def test_equal_lattices_make_the_batch_that_pyg_makes(height, width, number, patch_size):
    for y in (2, None, torch.rand(1, 5)):
        graphs = [graph(height, 2 * width, y, patch_size) for _ in range(number)]
        same(collate_lattices(graphs), Batch.from_data_list(graphs))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_pixels_that_nobody_else_holds_are_not_copied(height, width, channels, number):
    images = [torch.rand(channels, height, width) for _ in range(number)]
    to_graph, copying = PixelsToGraph(), ImageToGraph(patch_size=1, edges=False)
    graphs = [to_graph((image, n)) for n, image in enumerate(images)]
    assert [graph.x.data_ptr() for graph in graphs] == [image.data_ptr() for image in images]
    batch = collate_lattices(graphs)
    same(batch, Batch.from_data_list([copying((image, n)) for n, image in enumerate(images)]))
    assert batch.x.is_contiguous()
    assert batch.x.data_ptr() != images[0].data_ptr()


@pytest.mark.parametrize(
    "graphs",
    [
        [graph(), graph(6, 4)],
        [graph(y=torch.rand(1, 5)), graph(y=torch.rand(2, 5))],
        [graph(edges=True), graph(edges=True)],
        [Data(x=torch.randn(2, 3)), Data(x=torch.randn(2, 3))],
    ],
    ids=["sizes", "labels", "edges", "no lattices"],
)
def test_others_are_left_to_pyg(graphs):
    same(collate_lattices(graphs), Batch.from_data_list(graphs))


def test_what_hangs_on_the_size_alone_is_shared():
    first, second = (collate_lattices([graph(), graph()]) for _ in range(2))
    assert first.batch is second.batch
    assert first.ptr is second.ptr
    assert first.x.data_ptr() != second.x.data_ptr()
    first.y.zero_()
    assert second.y.tolist() == [1, 1]
    first.more = 1
    assert "more" not in second
    assert graph_images(first).shape == (2, 3, 4, 6)
