import numpy as np
import pytest
import torch
from torch import nn

from pyg_avig import AxialGraph, CrossAttnConv, Grapher, InputError
from pyg_avig.nn import GraphDropPath, aggregation_names, make_aggregation

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


def test_dropout_is_behind_both_activations_and_in_training_alone():
    grapher = Grapher(8, pos_kernel=None, layer_scale=1.0, dropout=0.5)
    plain = Grapher(8, pos_kernel=None, layer_scale=1.0)
    plain.load_state_dict(grapher.state_dict())
    x = torch.randn(GRAPH.num_nodes, 8)
    assert not torch.equal(grapher(x, GRAPH), grapher(x, GRAPH))
    dropped = grapher.act(torch.ones(1000))
    assert set((dropped / dropped.max()).tolist()) == {0.0, 1.0}
    assert not grapher.ffn[2](torch.ones(1000)).all()
    plain.load_state_dict(grapher.state_dict())
    expected = plain.eval()(x, GRAPH)
    torch.testing.assert_close(grapher.eval()(x, GRAPH), expected)
    torch.testing.assert_close(grapher.fuse()(x, GRAPH), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match=r"dropout must lie in \[0, 1\)"):
        Grapher(8, dropout=1.0)


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


def trained(**args):
    """A Grapher whose norms have statistics, in evaluation mode."""
    grapher = Grapher(8, layer_scale=1.0, **args)
    for _ in range(3):
        grapher(torch.randn(GRAPH.num_nodes, 8), GRAPH)
    return grapher.eval()


@pytest.mark.parametrize("name", aggregation_names())
def test_fusing_changes_no_output_whatever_the_aggregation(name):
    grapher = trained(conv=make_aggregation(name, 8))
    x = torch.randn(GRAPH.num_nodes, 8)
    expected = grapher(x, GRAPH)
    assert torch.allclose(grapher.fuse()(x, GRAPH), expected, atol=1e-5)
    assert isinstance(grapher.norm, nn.BatchNorm1d) == (name != "cross_attention")
    assert len(grapher.ffn) == 3
    again = grapher(x, GRAPH)
    assert grapher.fuse() is grapher
    assert torch.equal(grapher(x, GRAPH), again)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("heads", "concat"), [(1, True), (2, True), (2, False)])
@pytest.mark.parametrize("act", [None, "relu"])
@pytest.mark.parametrize("residual", [True, False])
def test_fusing_changes_no_output_whatever_the_layer_does(
    residual, act, heads, concat, normalize, bias
):
    conv = CrossAttnConv(
        8,
        8 // heads if concat else 8,
        heads,
        concat=concat,
        normalize=normalize,
        act=act,
        bias=bias,
        residual=residual,
    )
    grapher = trained(conv=conv)
    x = torch.randn(GRAPH.num_nodes, 8)
    expected = grapher(x, GRAPH)
    assert torch.allclose(grapher.fuse()(x, GRAPH), expected, atol=1e-5)
    assert isinstance(grapher.norm, nn.Identity) == (act is None and not residual)


class Halved(CrossAttnConv):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs) / 2


def double(module, args, out):
    return 2 * out


@pytest.mark.parametrize(
    "change",
    [
        lambda g: g.conv.register_forward_hook(double),
        lambda g: g.conv.lin_update.register_forward_hook(double),
        lambda g: g.norm.register_forward_hook(double),
        lambda g: g.ffn.register_forward_hook(double),
        lambda g: g.ffn[0].register_forward_hook(double),
        lambda g: g.ffn[4].register_forward_hook(double),
        lambda g: setattr(g.conv, "forward", lambda x, graph: 2 * x),
        lambda g: setattr(g.conv, "lin_update", nn.Sequential(g.conv.lin_update, nn.ReLU())),
        lambda g: setattr(g, "norm", nn.BatchNorm1d(8, track_running_stats=False)),
        lambda g: setattr(g, "ffn", nn.Linear(8, 8)),
        lambda g: setattr(g, "conv", Halved(8, 8).eval()),
        lambda g: nn.utils.parametrizations.weight_norm(g.ffn[3]),
        lambda g: g.norm.train(),
    ],
)
def test_fusing_leaves_what_it_does_not_know(change):
    grapher = trained()
    change(grapher)
    x = torch.randn(GRAPH.num_nodes, 8)
    expected = grapher(x, GRAPH)
    assert torch.allclose(grapher.fuse()(x, GRAPH), expected, atol=1e-5)


def test_fusing_changes_no_output_of_a_layer_without_root_weight():
    grapher = trained(conv=CrossAttnConv(8, 4, heads=2, root_weight=False))
    x = torch.randn(GRAPH.num_nodes, 8)
    expected = grapher(x, GRAPH)
    torch.testing.assert_close(grapher.fuse()(x, GRAPH), expected)


def test_fusing_leaves_a_shared_layer_to_the_others():
    first = trained()
    second = trained(conv=first.conv)
    x = torch.randn(GRAPH.num_nodes, 8)
    expected = second.eval()(x, GRAPH)
    first.eval().fuse()
    assert torch.equal(second(x, GRAPH), expected)


def test_fusing_is_for_evaluation():
    with pytest.raises(InputError, match="in evaluation mode"):
        Grapher(8).fuse()


def test_bad_input():
    with pytest.raises(InputError, match=r"heads must divide channels \(got 3 and 8\)"):
        Grapher(8, heads=3)
    with pytest.raises(InputError, match=r"drop_path must lie in \[0, 1\)"):
        Grapher(8, drop_path=1.0)
    with pytest.raises(InputError, match=r"pos_kernel must be odd \(got 4\)"):
        Grapher(8, pos_kernel=4)
    with pytest.raises(InputError, match=r"channels must be a positive int \(got 8.0\)"):
        Grapher(8.0)


def test_numpys_integers_are_integers():
    grapher = Grapher(np.int64(8), heads=np.int64(2), pos_kernel=np.int64(3))
    x = torch.randn(GRAPH.num_nodes, 8)
    assert grapher(x, GRAPH).shape == x.shape


def test_a_batch_of_no_graphs():
    none = AxialGraph((4, 4), 2, batch_size=0)
    grapher = Grapher(8)
    for training in (True, False):
        assert grapher.train(training)(torch.randn(0, 8), none).shape == (0, 8)
    assert all(buffer.isfinite().all() for buffer in grapher.buffers())
