import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from pyg_avig.graphs import KNNEdges, RadiusEdges
from pyg_avig.graphs import distances as module
from pyg_avig.graphs.distances import nearest, within


@st.composite
def clouds(draw):
    """Clusters of some spread, some distance apart, some way from the origin, some doubled."""
    number, dimensions = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    dtype = draw(st.sampled_from([torch.float, torch.double]))
    spread, apart, away = (10.0 ** draw(st.integers(-6, 3)) for _ in range(3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    points = spread * torch.randn(number, dimensions, generator=generator, dtype=torch.double)
    points[::2] += apart
    points[number // 2 :: 3] = points[number // 2].clone()
    return (points + away).to(dtype)


def differences(points):
    """All distances by definition, in double precision."""
    points = points.double()
    return (points.unsqueeze(1) - points).norm(dim=-1)


@pytest.mark.parametrize("tree", [True, False])
@given(clouds(), st.integers(1, 12), st.booleans())
def test_neighbours_are_the_nearest_wherever_they_lie(tree, points, k, in_parts):
    with pytest.MonkeyPatch.context() as patch:
        if not tree:
            patch.setattr(module, "find_spec", lambda name: None)
        if in_parts:
            patch.setattr(module, "_NUMBERS", 100)
        source, target = KNNEdges(k, "x").graph(Data(x=points))
    k = min(k, len(points) - 1)
    assert target.tolist() == [n for n in range(len(points)) for _ in range(k)]
    nodes = source.view(len(points), k)
    far = differences(points)
    found = far.gather(1, nodes)
    expected = far.fill_diagonal_(torch.inf).topk(k, largest=False).values
    torch.testing.assert_close(
        found, expected, rtol=2 * max(torch.finfo(points.dtype).eps, 1e-10), atol=0
    )
    assert all(len(set(row)) == k for row in nodes.tolist())


@pytest.mark.parametrize("tree", [True, False])
@given(clouds(), st.floats(0, 1), st.booleans())
def test_pairs_within_a_distance_wherever_they_lie(tree, points, share, in_parts):
    far = differences(points)
    r = float(far.quantile(share)) * (1 + 1e-9) + 1e-30
    with pytest.MonkeyPatch.context() as patch:
        if not tree:
            patch.setattr(module, "find_spec", lambda name: None)
        if in_parts:
            patch.setattr(module, "_NUMBERS", 100)
        edges = RadiusEdges(r).graph(Data(pos=points))
        few = RadiusEdges(r, max_neighbors=3).graph(Data(pos=points))
    close = (far <= r).fill_diagonal_(False)
    assert sorted(edges.T.tolist()) == close.nonzero().tolist()
    assert (edges[1].diff() >= 0).all()
    assert few[1].bincount(minlength=len(points)).tolist() == close.sum(1).clamp(max=3).tolist()


def test_no_more_than_a_bounded_number_of_distances_is_held(monkeypatch):
    held = []
    monkeypatch.setattr(module, "_NUMBERS", 1000)
    made = module._squares
    monkeypatch.setattr(
        module, "_squares", lambda *a: (lambda out: held.append(out[0].numel()) or out)(made(*a))
    )
    points = torch.randn(100, 20)
    within(points, 1.0)
    nearest(points.unsqueeze(0), 3)
    assert len(held) == 20
    assert max(held) == 1000


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_beyond_single_precision(scale):
    points = torch.randn(30, 20)
    wanted = KNNEdges(5, "x").graph(Data(x=points))
    assert torch.equal(KNNEdges(5, "x").graph(Data(x=points * scale)), wanted)


def test_mixed_precision_changes_no_neighbour():
    points = torch.randn(50, 24) + 10
    wanted = KNNEdges(5, "x").graph(Data(x=points))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(KNNEdges(5, "x").graph(Data(x=points)), wanted)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("size", [0, 1, 2])
@pytest.mark.parametrize("batch", [0, 1, 3])
def test_sets_of_few_points_or_none(batch, size):
    points = torch.randn(batch, size, 20)
    assert nearest(points, 4).shape == (batch, size, max(size - 1, 0))
