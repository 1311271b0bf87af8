import pytest
import torch

from pyg_avig import AxialGraph, Grapher, InputError
from pyg_avig.nn import GraphDropPath, make_aggregation

GRAPH = AxialGraph((5, 6), 2, batch_size=3)


def test_shape_and_gradients():
    grapher = Grapher(8, heads=2, layer_scale=1.0)
    x = torch.randn(GRAPH.num_nodes, 8, requires_grad=True)
    out = grapher(x, GRAPH)
    assert out.shape == x.shape
    out.square().sum().backward()
    assert all(p.grad.any() for p in [x, *grapher.parameters()])


def test_the_conv_is_cross_attn_conv_on_the_lattice():
    # With the other branches silenced, what is left is the layer itself.
    grapher = Grapher(8, layer_scale=1.0).eval()
    torch.nn.init.zeros_(grapher.pos.weight)
    torch.nn.init.zeros_(grapher.pos.bias)
    torch.nn.init.zeros_(grapher.gamma2)
    x = torch.randn(GRAPH.num_nodes, 8)
    expected = x + grapher.act(grapher.norm(grapher.conv(x, GRAPH.edge_index)))
    assert torch.allclose(grapher(x, GRAPH), expected, atol=1e-5)


def test_small_layer_scale_starts_near_the_position_code():
    grapher = Grapher(8).eval()
    x = torch.randn(GRAPH.num_nodes, 8)
    torch.nn.init.zeros_(grapher.pos.weight)
    torch.nn.init.zeros_(grapher.pos.bias)
    assert torch.allclose(grapher(x, GRAPH), x, atol=1e-3)


def test_drop_path_drops_whole_graphs_and_keeps_the_mean():
    drop = GraphDropPath(0.25)
    x = torch.ones(4000 * 3, 2)
    out = drop(x, 4000).view(4000, -1)
    assert (out == out[:, :1]).all()
    assert set(out[:, 0].tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(x, 4000), x)


def test_drop_path_follows_the_batch_of_graphs_of_any_size():
    drop = GraphDropPath(0.25)
    batch = torch.arange(3000).repeat_interleave(torch.randint(1, 4, (3000,)))
    out = drop(torch.ones(len(batch), 2), batch)
    first = torch.ones(3000).scatter_reduce(0, batch, out[:, 0], "amin", include_self=False)
    assert torch.equal(out, first[batch].unsqueeze(-1).expand_as(out))
    assert set(out[:, 0].tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert out.mean().item() == pytest.approx(1, abs=0.05)


def test_any_graph_without_a_position_code():
    grapher = Grapher(8, pos_kernel=None, layer_scale=1.0).eval()
    x = torch.randn(GRAPH.num_nodes, 8)
    assert torch.allclose(grapher(x, GRAPH), grapher(x, GRAPH.edge_index), atol=1e-5)


def test_a_position_code_on_any_number_of_axes_needs_its_lattice():
    grapher = Grapher(8, pos_kernel=3, pos_axes=3, layer_scale=1.0).eval()
    lattice = AxialGraph((2, 3, 4), 1)
    x = torch.randn(24, 8)
    by_edges = grapher(x, lattice.edge_index, size=(2, 3, 4))
    assert torch.allclose(grapher(x, lattice), by_edges, atol=1e-5)
    with pytest.raises(InputError, match="a lattice, for the position code"):
        grapher(x, lattice.edge_index)


@pytest.mark.parametrize("name", ["cross_attention", "gatv2"])
def test_fusing_changes_no_output_whatever_the_aggregation(name):
    grapher = Grapher(8, layer_scale=1.0, conv=make_aggregation(name, 8))
    x = torch.randn(GRAPH.num_nodes, 8)
    for _ in range(3):
        grapher(x, GRAPH)  # So that the norms have statistics.
    expected = grapher.eval()(x, GRAPH)
    assert torch.allclose(grapher.fuse()(x, GRAPH), expected, atol=1e-5)
    assert grapher.fuse() is grapher


def test_bad_input():
    with pytest.raises(InputError, match=r"heads must divide channels \(got 3 and 8\)"):
        Grapher(8, heads=3)
    with pytest.raises(InputError, match=r"drop_path must lie in \[0, 1\)"):
        Grapher(8, drop_path=1.0)
