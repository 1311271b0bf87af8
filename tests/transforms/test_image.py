import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose, ToUndirected

from pyg_avig import AxialGraph, InputError
from pyg_avig.transforms import GraphToImage, ImageToGraph


@given(
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_there_and_back(channels, rows, columns, patch_height, patch_width):
    image = torch.randn(channels, rows * patch_height, columns * patch_width)
    data = ImageToGraph((patch_height, patch_width))(image)
    assert data.x.shape == (rows * columns, channels * patch_height * patch_width)
    assert data.lattice_size == (rows, columns)
    assert torch.equal(GraphToImage()(data), image)
    assert torch.equal(GraphToImage()(Batch.from_data_list([data, data]))[1], image)
    assert torch.equal(data.edge_index, AxialGraph((rows, columns), 2).edge_index)


def test_x_is_flattened_channel_by_channel_and_pos_is_the_centre():
    image = torch.arange(2 * 4 * 6.0).view(2, 4, 6)
    data = ImageToGraph(patch_size=2)(image)
    assert data.x[1].tolist() == image[:, 0:2, 2:4].flatten().tolist()
    assert data.pos[0].tolist() == [0.5, 0.5]
    assert data.pos[-1].tolist() == [2.5, 4.5]
    assert ImageToGraph(patch_size=1)(image).pos[7].tolist() == [1, 1]


def test_edges_are_built_once_per_size_and_shared():
    transform = ImageToGraph(4)
    first, second = (transform(torch.rand(3, 16, 16)) for _ in range(2))
    assert first.edge_index is second.edge_index
    assert first.pos is second.pos
    assert "edge_index" not in ImageToGraph(4, edges=False)(torch.rand(3, 16, 16))


def test_pixels_of_every_kind_of_image_agree():
    array = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    transform = ImageToGraph(4)
    pil = transform(Image.fromarray(array))
    integers = transform(torch.from_numpy(array).permute(2, 0, 1))
    floats = transform(torch.from_numpy(array).permute(2, 0, 1).float() / 255)
    assert torch.equal(pil.x, integers.x)
    assert torch.equal(pil.x, floats.x)
    assert pil.x.max() <= 1
    grey = transform(Image.fromarray(array[..., 0]))
    assert grey.x.shape == (4, 16)
    assert transform(torch.rand(3, 8, 8).double()).x.dtype == torch.float64


def test_y_and_other_fields_are_carried_over():
    image = torch.rand(1, 8, 8)
    assert ImageToGraph(4)((image, 3)).y.tolist() == [3]
    soft = torch.tensor([[0.2, 0.8]])
    assert ImageToGraph(4)((image, soft)).y is soft
    source = Data(image=image, y=torch.tensor([5]), name="seven")
    data = ImageToGraph(4)(source)
    assert (data.y.item(), data.name) == (5, "seven")
    assert "image" not in data
    assert "image" in source
    assert "y" not in ImageToGraph(4)(image)


def test_batches_know_the_size_of_each_graph():
    transform = ImageToGraph(4)
    images = [torch.rand(1, 8, 8), torch.rand(1, 8, 12)]
    batch = next(iter(DataLoader([transform((x, i)) for i, x in enumerate(images)], 2)))
    assert batch.lattice_size == [(2, 2), (2, 3)]
    assert batch.y.tolist() == [0, 1]
    assert batch[1].lattice_size == (2, 3)
    with pytest.raises(InputError, match=r"\(2, 2\) and \(2, 3\)"):
        GraphToImage()(batch)


def test_composes_with_pygs_transforms():
    data = Compose([ImageToGraph(4, stride=1), ToUndirected()])(torch.rand(1, 16, 16))
    assert data.is_undirected()
    assert str(ImageToGraph(4)) == "ImageToGraph(patch_size=(4, 4), stride=(2, 2), edges=True)"


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("1", 1), ("L", 1), ("LA", 2), ("P", 3), ("RGB", 3), ("RGBA", 4), ("CMYK", 3), ("I;16", 1)],
)
def test_pil_modes(mode, channels):
    greys = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    image = Image.fromarray(greys)
    if mode == "I;16":
        image = Image.fromarray(greys.astype(np.uint16) * 257)
    elif mode != "L":
        image = image.convert("RGB").convert(mode)
    data = ImageToGraph(1)(image)
    assert data.x.size(1) == channels
    expected = torch.from_numpy(greys).float().flatten() / 255
    if mode != "1":
        # The standard palette has six levels a channel.
        assert (data.x[:, 0] - expected).abs().max() < (0.2 if mode == "P" else 0.05)
    assert 0 <= data.x.min() <= data.x.max() <= 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.rand(3, 9, 8), r"4 x 4 patches \(got 9 x 8 pixels\)"),
        (torch.rand(3, 0, 8), "whole number of 4 x 4 patches"),
        (torch.rand(8, 8), r"shape \(C, H, W\) \(got \(8, 8\)\)"),
        (torch.ones(3, 8, 8).long(), "uint8 or float .got torch.int64"),
        (torch.full((1, 8, 8), torch.nan), "finite pixels .got NaN or infinity in 64"),
        (torch.full((1, 8, 8), torch.inf), "finite pixels"),
        ("cat.png", r"PIL image \(got str\)"),
        (Image.new("F", (8, 8)), "8 or 16 bits .got mode 'F'"),
        ((torch.rand(1, 8, 8), "cat"), "y as a number or a tensor .got 'cat'"),
        ((torch.rand(1, 8, 8), 1, 2), "got 3 items"),
        (Data(x=torch.ones(1, 1)), "the field `image`"),
    ],
)
def test_bad_images(image, message):
    with pytest.raises(InputError, match=message):
        ImageToGraph(4)(image)


def test_bad_options():
    with pytest.raises(InputError, match="patch_size must be a positive int"):
        ImageToGraph(patch_size=0)
    with pytest.raises(InputError, match="patch_size must be a positive int"):
        ImageToGraph(patch_size=4.0)
    with pytest.raises(InputError, match="stride must be"):
        ImageToGraph(stride=(1, 2, 3))


def test_numpys_integers_are_integers():
    image = torch.rand(3, 8, 8)
    expected = ImageToGraph(4, 1)(image)
    for size in (np.int64(4), np.array([4, 4]), (np.int32(4), 4)):
        data = ImageToGraph(size, np.int64(1))(image)
        assert torch.equal(data.x, expected.x)
        assert data.patch_size == (4, 4)
        assert data.lattice_size == (2, 2)


def test_few_sizes_are_kept():
    transform = ImageToGraph(1)
    first = weakref.ref(transform(torch.rand(1, 2, 3)).pos)
    again = transform(torch.rand(1, 2, 3)).pos
    assert first() is again
    del again
    for side in range(4, 20):
        transform(torch.rand(1, side, side))
    gc.collect()
    assert first() is None


@pytest.mark.parametrize("patch_size", [1, 2, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_nodes_are_a_copy_of_the_image(patch_size, channels):
    image = torch.rand(channels, 4, 4)
    before = image.clone()
    x = ImageToGraph(patch_size)(image).x
    assert x.is_contiguous()
    x.zero_()
    assert torch.equal(image, before)
