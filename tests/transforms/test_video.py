import gc
import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose, ToUndirected

from pyg_avig import AxialGraph, InputError
from pyg_avig.transforms.video import RandomClipCrop, RandomClipFlip, VideoToGraph


def rebuilt(data, channels):
    """The clip (T, C, H, W), put together box by box at the places that `pos` names."""
    size = torch.tensor(data.tubelet_size)
    frames, height, width = (torch.tensor(data.lattice_size) * size).tolist()
    clip = torch.full((frames, channels, height, width), torch.nan)
    for x, pos in zip(data.x, data.pos, strict=True):
        box = x.view(channels, *data.tubelet_size)
        t, row, column = (pos - (size - 1) / 2).long().tolist()
        for frame in range(box.size(1)):
            place = clip[t + frame, :, row : row + box.size(2), column : column + box.size(3)]
            place.copy_(box[:, frame])
    return clip


@given(
    st.integers(1, 3),
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)),
)
def test_the_tubelets_are_the_clip(channels, size, tubelet):
    frames, height, width = (n * p for n, p in zip(size, tubelet, strict=True))
    clip = torch.randn(frames, channels, height, width)
    data = VideoToGraph(tubelet)(clip)
    assert data.x.shape == (math.prod(size), channels * math.prod(tubelet))
    assert (data.lattice_size, data.tubelet_size) == (size, tubelet)
    assert torch.equal(rebuilt(data, channels), clip)
    assert torch.equal(data.edge_index, AxialGraph(size, 2).edge_index)


def test_x_is_flattened_by_channel_then_frame_and_pos_is_the_centre():
    clip = torch.arange(4 * 2 * 4 * 6.0).view(4, 2, 4, 6)
    data = VideoToGraph(tubelet_size=2)(clip)
    assert data.x[1].tolist() == clip[0:2, :, 0:2, 2:4].transpose(0, 1).flatten().tolist()
    assert data.x[6].tolist() == clip[2:4, :, 0:2, 0:2].transpose(0, 1).flatten().tolist()
    assert data.pos[0].tolist() == [0.5, 0.5, 0.5]
    assert data.pos[-1].tolist() == [2.5, 2.5, 4.5]
    assert VideoToGraph((1, 2, 2))(clip).pos[7].tolist() == [1, 0.5, 2.5]


def test_strides_are_per_axis():
    data = VideoToGraph(1, stride=(1, 2, 3))(torch.rand(4, 1, 4, 4))
    assert torch.equal(data.edge_index, AxialGraph((4, 4, 4), (1, 2, 3)).edge_index)


def test_edges_are_built_once_per_size_and_shared():
    transform = VideoToGraph((2, 4, 4))
    first, second = (transform(torch.rand(4, 3, 8, 8)) for _ in range(2))
    assert first.edge_index is second.edge_index
    assert first.pos is second.pos
    longer = transform(torch.rand(8, 3, 8, 8))
    assert torch.equal(longer.edge_index, AxialGraph((4, 2, 2), 2).edge_index)
    implicit = VideoToGraph((2, 4, 4), edges=False)(torch.rand(4, 3, 8, 8))
    assert "edge_index" not in implicit
    assert "pos" not in implicit


def test_bytes_and_floats_agree():
    clip = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    transform = VideoToGraph((2, 4, 4))
    assert torch.equal(transform(clip).x, transform(clip.float() / 255).x)
    assert transform(clip.double() / 255).x.dtype == torch.float64
    assert transform(torch.full_like(clip, 255)).x.unique().tolist() == [1]


def test_differences_are_of_each_frame_from_the_one_before():
    clip = torch.randint(0, 256, (4, 2, 8, 8), dtype=torch.uint8)
    moved = rebuilt(VideoToGraph((2, 4, 4), difference=True)(clip), 2)
    assert moved[0].abs().max() == 0
    pixels = clip.float() / 255
    for t in range(1, 4):
        assert torch.equal(moved[t], pixels[t] - pixels[t - 1])


def test_a_leading_dimension_of_one_is_that_of_a_data_set():
    clip = torch.rand(2, 1, 8, 8)
    assert torch.equal(VideoToGraph()(clip.unsqueeze(0)).x, VideoToGraph()(clip).x)


def test_y_and_other_fields_are_carried_over():
    clip = torch.rand(2, 1, 8, 8)
    assert VideoToGraph()((clip, 2)).y.tolist() == [2]
    soft = torch.tensor([[0.2, 0.8]])
    assert VideoToGraph()((clip, soft)).y is soft
    assert "y" not in VideoToGraph()((clip, None))
    source = Data(clip=clip.unsqueeze(0), y=torch.tensor([1]), name="bikes")
    data = VideoToGraph()(source)
    assert (data.y.item(), data.name) == (1, "bikes")
    assert "clip" not in data
    assert "clip" in source
    assert "y" not in VideoToGraph()(clip)


def test_batches_know_the_size_of_each_graph():
    transform = VideoToGraph((2, 4, 4))
    clips = [torch.rand(4, 1, 8, 8), torch.rand(2, 1, 8, 12)]
    batch = next(iter(DataLoader([transform((x, i)) for i, x in enumerate(clips)], 2)))
    assert batch.lattice_size == [(2, 2, 2), (1, 2, 3)]
    assert batch.y.tolist() == [0, 1]
    assert batch[1].lattice_size == (1, 2, 3)


def test_composes_with_pygs_transforms():
    data = Compose([VideoToGraph((1, 4, 4), stride=1), ToUndirected()])(torch.rand(4, 1, 16, 16))
    assert data.is_undirected()
    assert str(VideoToGraph()) == (
        "VideoToGraph(tubelet_size=(2, 8, 8), stride=(2, 2, 2), edges=True, difference=False)"
    )


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (torch.rand(3, 3, 8, 8), r"2 x 4 x 4 tubelets \(got 3 frames of 8 x 8 pixels\)"),
        (torch.rand(2, 3, 9, 8), r"2 x 4 x 4 tubelets \(got 2 frames of 9 x 8 pixels\)"),
        (torch.rand(2, 3, 8, 6), "whole number"),
        (torch.rand(0, 3, 8, 8), "whole number"),
        (torch.rand(2, 0, 8, 8), "whole number"),
        (torch.rand(3, 8, 8), r"shape \(T, C, H, W\) \(got \(3, 8, 8\)\)"),
        (torch.rand(2, 2, 3, 8, 8), r"shape \(T, C, H, W\) \(got \(2, 2, 3, 8, 8\)\)"),
        (torch.ones(2, 3, 8, 8).long(), "uint8 or float .got torch.int64"),
        (torch.full((2, 1, 8, 8), torch.nan), "finite pixels .got NaN or infinity in 128"),
        (torch.full((2, 1, 8, 8), torch.inf), "finite pixels"),
        ("bikes.mp4", r"as a tensor \(T, C, H, W\) \(got str\)"),
        ((torch.rand(2, 1, 8, 8), "fast"), "y as a number or a tensor .got 'fast'"),
        ((torch.rand(2, 1, 8, 8), 1, 2), "got 3 items"),
        (Data(x=torch.ones(1, 1)), "the field `clip`"),
    ],
)
def test_bad_clips(clip, message):
    with pytest.raises(InputError, match=message):
        VideoToGraph((2, 4, 4))(clip)


def test_numpys_integers_are_integers():
    clip = torch.rand(4, 1, 8, 8)
    expected = VideoToGraph((2, 4, 4), 1)(clip)
    data = VideoToGraph(np.array([2, 4, 4]), np.int64(1))(clip)
    assert torch.equal(data.x, expected.x)
    assert torch.equal(data.edge_index, expected.edge_index)
    assert RandomClipCrop(np.int64(3))(Data(clip=clip)).clip.shape == (4, 1, 3, 3)


def test_few_sizes_are_kept():
    transform = VideoToGraph(1)
    first = weakref.ref(transform(torch.rand(1, 1, 2, 3)).pos)
    for side in range(4, 20):
        transform(torch.rand(1, 1, side, side))
    gc.collect()
    assert first() is None


def test_bad_options():
    with pytest.raises(InputError, match="tubelet_size must be a positive int"):
        VideoToGraph(tubelet_size=0)
    with pytest.raises(InputError, match="tubelet_size must be a positive int"):
        VideoToGraph(tubelet_size=(2, 8.0, 8))
    with pytest.raises(InputError, match="stride must be"):
        VideoToGraph(stride=(1, 2))


@pytest.mark.parametrize("tubelet", [(1, 1, 1), (2, 2, 2), (4, 4, 4)])
def test_nodes_are_a_copy_of_the_clip(tubelet):
    clip = torch.rand(4, 1, 4, 4)
    before = clip.clone()
    x = VideoToGraph(tubelet)(clip).x
    assert x.is_contiguous()
    x.zero_()
    assert torch.equal(clip, before)


def test_clips_are_mirrored_and_reversed():
    clip = torch.arange(2 * 3 * 4 * 5.0).view(1, 2, 3, 4, 5)
    both = RandomClipFlip(mirror=1.0, reverse=1.0)(Data(clip=clip)).clip
    assert torch.equal(both, clip.flip(1).flip(4))
    assert torch.equal(RandomClipFlip(1.0, 0.0)(Data(clip=clip)).clip, clip.flip(4))
    assert torch.equal(RandomClipFlip(0.0, 0.0)(Data(clip=clip)).clip, clip)
    seen = {tuple(RandomClipFlip()(Data(clip=clip)).clip.flatten().tolist()) for _ in range(60)}
    assert len(seen) == 4
    with pytest.raises(InputError, match=r"reverse must lie in \[0, 1\] .got 2"):
        RandomClipFlip(reverse=2)


def test_clips_are_cropped_alike_in_all_frames():
    clip = torch.arange(2 * 4 * 6).view(1, 2, 1, 4, 6)
    crops = [RandomClipCrop(3)(Data(clip=clip)).clip for _ in range(60)]
    assert {tuple(crop.shape) for crop in crops} == {(1, 2, 1, 3, 3)}
    assert all(((crop[0, 1] - crop[0, 0]) == 24).all() for crop in crops)
    assert len({int(crop[0, 0, 0, 0, 0]) for crop in crops}) == 2 * 4
    assert torch.equal(RandomClipCrop(4)(Data(clip=clip[..., :4])).clip, clip[..., :4])
    with pytest.raises(InputError, match="at least 5 x 5 pixels .got 4 x 6"):
        RandomClipCrop(5)(Data(clip=clip))
    with pytest.raises(InputError, match="in the field `clip`"):
        RandomClipCrop(5)(Data(x=torch.ones(1, 1)))
    with pytest.raises(InputError, match="size must be a positive int"):
        RandomClipCrop(0)
