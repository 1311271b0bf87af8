import math

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import Compose, RandomJitter

from pyg_avig import InputError
from pyg_avig.transforms import points
from pyg_avig.transforms.points import (
    PatchMoments,
    PointPatches,
    PointsToGraph,
    RandomMirror,
    RandomStretch,
)


def cloud(size=20, **fields):
    return Data(pos=torch.randn(size, 3), **fields)


def chain(data):
    """A stand-in for a graph: each point joined to the next."""
    nodes = torch.arange(data.pos.size(0))
    data.edge_index = torch.stack([nodes[:-1], nodes[1:]])
    return data


def test_x_is_what_there_is_in_order():
    pos, normal, color = torch.randn(3, 20, 3)
    transform = PointsToGraph(normalize=False)
    assert torch.equal(transform(pos).x, pos)
    assert torch.equal(transform(Data(pos=pos, color=color)).x, torch.cat([pos, color], 1))
    data = transform(Data(color=color, pos=pos, normal=normal))
    assert torch.equal(data.x, torch.cat([pos, normal, color], 1))
    assert "edge_index" not in data


def test_colours_of_bytes_are_scaled_and_dtypes_follow_pos():
    color = torch.tensor([[0, 255, 51]], dtype=torch.uint8)
    data = PointsToGraph()(Data(pos=torch.ones(1, 3).double(), color=color))
    assert data.x.dtype == torch.float64
    torch.testing.assert_close(data.color[0].tolist(), [0.0, 1.0, 0.2])


def test_draws_points_with_what_belongs_to_them():
    pos = torch.randn(50, 3)
    source = Data(pos=pos, normal=2 * pos, part=torch.arange(50), y=torch.tensor([4]), name="a")
    data = PointsToGraph(20, normalize=False)(source)
    assert len(set(data.part.tolist())) == 20
    assert torch.equal(data.pos, pos[data.part])
    assert torch.equal(data.normal, 2 * data.pos)
    assert (data.y.tolist(), data.name, data.num_nodes) == ([4], "a", 20)
    assert source.pos is pos
    assert "x" not in source


def test_draws_with_replacement_only_from_too_few():
    everything = PointsToGraph(20, normalize=False)(cloud(part=torch.arange(20)))
    assert sorted(everything.part.tolist()) == list(range(20))
    assert everything.part.tolist() != list(range(20))
    more = PointsToGraph(100)(cloud(part=torch.arange(20)))
    assert more.pos.shape == (100, 3)
    assert set(more.part.tolist()) <= set(range(20))
    one = PointsToGraph(4)(Data(pos=torch.ones(1, 3), y=torch.tensor([2])))
    assert (one.x.shape, one.y.tolist()) == ((4, 3), [2])


def test_draws_follow_torchs_generator():
    data, transform = cloud(), PointsToGraph(5)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(transform(data).pos)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normalizes_what_was_drawn(dtype):
    pos = torch.randn(200, 3, dtype=dtype) * torch.tensor([1, 10, 100]) + 1000
    for num_points in (None, 50):
        data = PointsToGraph(num_points)(pos)
        torch.testing.assert_close(data.pos.mean(0), torch.zeros(3, dtype=dtype), atol=1e-4, rtol=0)
        torch.testing.assert_close(data.pos.norm(dim=1).max().item(), 1.0)
        assert torch.equal(data.x, data.pos)
    kept = PointsToGraph()(pos).pos
    stretch = (kept[1:] - kept[0]) / (pos[1:] - pos[0])
    torch.testing.assert_close(stretch, stretch[:1, :1].expand_as(stretch), rtol=1e-2, atol=0)


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567])
def test_points_that_coincide_are_centred(size, value):
    assert torch.equal(PointsToGraph()(torch.full((size, 3), value)).x, torch.zeros(size, 3))


def test_graph_comes_last():
    data = PointsToGraph(5, graph=chain)(cloud(y=torch.tensor([1])))
    assert data.edge_index.tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert data.validate()
    composed = Compose([RandomJitter(0.1), PointsToGraph(5), chain])(cloud())
    assert composed.num_edges == 4
    text = "PointsToGraph(num_points=5, normalize=True, graph=None)"
    assert str(PointsToGraph(5)) == text


def test_bad_points():
    good = torch.randn(4, 3)
    bad = good.clone()
    bad[1, 2], bad[3, 0] = torch.nan, torch.inf
    for data, message in (
        (bad, "finite pos .got NaN or infinity in 2 of the points"),
        (Data(pos=good, normal=bad), "finite normal"),
        (Data(pos=good, color=bad), "finite color"),
        (torch.randn(4, 2), r"pos of shape \(N, 3\), one point or more \(got \(4, 2\)\)"),
        (torch.randn(0, 3), r"one point or more \(got \(0, 3\)\)"),
        (torch.randn(3), r"\(got \(3,\)\)"),
        (torch.ones(4, 3).long(), "pos of a float dtype .got torch.int64"),
        (Data(pos=good.tolist()), "got list"),
        (Data(pos=good, normal=torch.randn(5, 3)), r"normal of shape \(4, 3\), as pos has"),
        (Data(pos=good, normal=good.byte()), "normal of a float dtype"),
        (Data(x=good), "the field `pos`"),
        ("chair.obj", r"one cloud.*\(got str\)"),
        (Batch.from_data_list([Data(pos=good)] * 2), "one cloud"),
        (chain(Data(pos=good)), r"without edges.*\(2, 3\)"),
    ):
        with pytest.raises(InputError, match=message):
            PointsToGraph(2)(data)


def test_numpys_integers_are_integers():
    assert PointsToGraph(np.int64(5))(cloud()).num_nodes == 5
    assert PatchMoments(np.int64(2), np.int64(4))(cloud()).num_nodes == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
@pytest.mark.parametrize("transform", [PointPatches(4, 8), PatchMoments(4, 8), PointsToGraph(8)])
def test_half_precision_goes_in_and_out(transform, dtype):
    fields = {"normal": torch.randn(40, 3), "color": torch.rand(40, 3)}
    data = cloud(40, **fields).apply(lambda x: x.to(dtype))
    torch.manual_seed(0)
    out = transform(data.clone())
    torch.manual_seed(0)
    expected = transform(data.apply(torch.Tensor.float))
    assert out.x.dtype == out.pos.dtype == dtype
    torch.testing.assert_close(out.x, expected.x.to(dtype), atol=0.02, rtol=0.02)


def test_bad_options():
    for num_points in (0, -1, 2.0, True, "many"):
        with pytest.raises(InputError, match="num_points must be a positive int"):
            PointsToGraph(num_points)
    with pytest.raises(InputError, match="graph must be a transform"):
        PointsToGraph(graph="knn")
    with pytest.raises(InputError, match="graph to set `edge_index`"):
        PointsToGraph(graph=lambda data: data)(cloud())


def test_mirroring_takes_the_normals_along():
    data = Data(pos=torch.randn(5, 3), normal=torch.randn(5, 3), y=torch.tensor([1]))
    out = RandomMirror(axis=2, p=1.0)(data)
    for name in ("pos", "normal"):
        assert torch.equal(out[name][:, :2], data[name][:, :2])
        assert torch.equal(out[name][:, 2], -data[name][:, 2])
    assert torch.equal(RandomMirror(p=0.0)(data).pos, data.pos)
    mirrored = [not torch.equal(RandomMirror()(data).pos, data.pos) for _ in range(50)]
    assert 10 < sum(mirrored) < 40
    with pytest.raises(InputError, match=r"p must lie in \[0, 1\] .got 2"):
        RandomMirror(p=2)


def test_patches_are_the_points_around_their_centres():
    data = PointsToGraph(normalize=False)(cloud(40, normal=torch.randn(40, 3), y=torch.tensor([2])))
    out = PointPatches(num_patches=6, size=5)(data)
    assert out.pos.shape == (6, 3)
    assert out.x.shape == (6, 3 + 5 * 6)
    assert set(out.keys()) == {"pos", "x", "y"}
    assert torch.equal(out.x[:, :3], out.pos)
    near = torch.cdist(out.pos, data.pos).topk(5, largest=False).indices
    points = out.x[:, 3:].view(6, 5, 6)
    assert torch.allclose(points[..., :3] + out.pos.unsqueeze(1), data.pos[near], atol=1e-6)
    assert torch.equal(points[..., 3:], data.normal[near])
    assert not points[:, 0, :3].any()  # The centre itself comes first.


def test_centres_lie_far_apart():
    clusters = torch.randn(4, 3) * 100
    data = Data(pos=(clusters.unsqueeze(1) + torch.rand(4, 10, 3)).view(-1, 3))
    centres = PointPatches(num_patches=4, size=1)(data).pos
    assert (torch.cdist(clusters, centres) < 2).any(1).all()
    assert PointPatches(num_patches=99, size=2)(data).num_nodes == 40


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PointPatches(0), "num_patches must be a positive int .got 0"),
        (lambda: PointPatches(size=2.0), "size must be a positive int .got 2.0"),
        (lambda: PointPatches(size=9)(cloud(8)), "at least 9 points .got 8"),
        (lambda: PointPatches(size=2)(chain(cloud(8))), "without edges"),
    ],
)
def test_what_cannot_be_gathered_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_the_nearest_points_are_the_same_without_a_tree(monkeypatch):
    data = cloud(50)
    expected = PointPatches(6, 5)(data.clone()).x
    monkeypatch.setattr(points, "use_tree", lambda pos: False)
    torch.testing.assert_close(PointPatches(6, 5)(data).x, expected)


@pytest.mark.parametrize("fields", [(), ("normal",), ("normal", "color")])
def test_moments_are_those_of_the_patches(fields):
    data = Data(pos=torch.randn(40, 3) * 50, **{name: torch.rand(40, 3) for name in fields})
    d = 3 + 3 * len(fields)
    plain, out = PointPatches(5, 8)(data.clone()), PatchMoments(5, 8)(data)
    assert torch.equal(out.pos, plain.pos)
    assert torch.equal(out.x[:, :3], plain.pos)
    for row, patch in zip(out.x, plain.x, strict=True):
        values = patch[3:].view(8, d)
        radius = values[:, :3].norm(dim=1).max()
        values[:, :3] /= radius
        products = [(values[:, i] * values[:, j]).mean() for i in range(d) for j in range(i, d)]
        expected = [radius.log(), *values.mean(0), *values.abs().mean(0), *products]
        torch.testing.assert_close(row[3:], torch.stack(expected))


def test_moments_do_not_depend_on_order_scale_or_repetition():
    pos = torch.randn(12, 3, dtype=torch.double)
    one = PatchMoments(1, 12)(Data(pos=pos)).x
    other = PatchMoments(1, 12)(Data(pos=pos.flip(0))).x
    torch.testing.assert_close(one, other)
    large = PatchMoments(1, 12)(Data(pos=7 * pos)).x
    torch.testing.assert_close(large[:, 4:], one[:, 4:])
    torch.testing.assert_close(large[:, 3], one[:, 3] + math.log(7))
    twice = PatchMoments(1, 24)(Data(pos=pos.repeat(2, 1))).x
    torch.testing.assert_close(twice, one)
    same = PatchMoments(1, 3)(Data(pos=torch.ones(3, 3))).x
    assert same.abs().max() < 20


def test_stretching_keeps_normals_upright():
    # Two edges of a triangle span the plane that its normal stands on.
    pos = torch.randn(3, 3)
    normal = torch.linalg.cross(pos[1] - pos[0], pos[2] - pos[0]).expand(3, 3)
    out = RandomStretch(0.5, 2.0)(Data(pos=pos, normal=normal))
    factors = out.pos / pos
    torch.testing.assert_close(factors, factors[:1].expand(3, 3))
    assert len(factors[0].unique()) == 3
    assert ((factors >= 0.5 - 1e-6) & (factors <= 2 + 1e-6)).all()
    edges = out.pos[1:] - out.pos[:1]
    torch.testing.assert_close(edges @ out.normal[0], torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.normal.norm(dim=1), torch.ones(3))
    with pytest.raises(InputError, match="finite factors 0 < low <= high .got 0 and 1"):
        RandomStretch(0, 1)
