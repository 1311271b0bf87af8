import pytest
import torch

from pyg_avig import AxialGraph, Grapher, InputError
from pyg_avig.nn import GraphDropPath

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


def test_bad_input():
    with pytest.raises(InputError, match=r"heads must divide channels \(got 3 and 8\)"):
        Grapher(8, heads=3)
    with pytest.raises(InputError, match=r"drop_path must lie in \[0, 1\)"):
        Grapher(8, drop_path=1.0)
