import copy
import io
import math
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.func import functional_call
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import add_self_loops, remove_self_loops

from pyg_avig import AxialGraph, CrossAttnConv, InputError, freeze_beta
from pyg_avig.ops import cross_attention, refusal, use_backend

EDGES = torch.tensor([[0, 1, 2, 3, 3, 2], [0, 0, 1, 1, 0, 3]])
LATTICE = AxialGraph((2, 3), (1, 2), batch_size=2)


def by_the_equations(conv, x, edge_index):
    """The whole layer as a loop over nodes, written from the paper."""
    H, C = conv.heads, conv.out_channels
    Q, K, V = (lin.weight.view(H, C, -1) for lin in (conv.lin_query, conv.lin_key, conv.lin_value))
    W, b = conv.lin_update.weight, conv.lin_update.bias
    beta = conv.log_beta.exp()
    out = []
    for i in range(len(x)):
        neighbors = edge_index[0][edge_index[1] == i].tolist()
        message = torch.zeros(H, C, dtype=x.dtype)
        for h in range(H):
            weights = []
            for j in neighbors:
                q, k = Q[h] @ x[i], K[h] @ x[j]
                weights.append(torch.exp(-beta[h] * (1 - q @ k / (q.norm() * k.norm()))))
            if conv.affinity == "softmax":
                weights = [w / sum(weights) for w in weights]
            for j, w in zip(neighbors, weights, strict=True):
                message[h] += w * (V[h] @ x[j])
        if conv.normalize and neighbors:
            message = message / len(neighbors)
        message = message.flatten() if conv.concat else message.mean(0)
        out.append(W @ torch.cat([x[i], message]) + b)
    out = torch.stack(out)
    return out if conv.act is None else conv.act(out)


@pytest.mark.parametrize("graph", [EDGES, LATTICE], ids=["edges", "lattice"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heads": 3},
        {"heads": 3, "concat": False},
        {"affinity": "softmax", "beta": 4.0},
        {"normalize": True, "heads": 2},
        {"act": "gelu", "beta": 0.3},
    ],
    ids=str,
)
def test_equals_the_equations(graph, options):
    conv = CrossAttnConv(5, 4, **options).double()
    torch.nn.init.normal_(conv.lin_update.bias)
    is_lattice = isinstance(graph, AxialGraph)
    x = torch.randn(graph.num_nodes if is_lattice else 4, 5, dtype=torch.double)
    expected = by_the_equations(conv, x, graph.edge_index if is_lattice else graph)
    assert torch.allclose(conv(x, graph), expected)
    # The edge-wise road gives the same, and its weights.
    out, (edge_index, alpha) = conv(x, graph, return_attention_weights=True)
    assert torch.allclose(out, expected)
    assert alpha.shape == (edge_index.size(1), conv.heads)
    assert ((alpha >= 0) & (alpha <= 1)).all()


@pytest.mark.parametrize("graph", [EDGES, AxialGraph((2, 2))], ids=["edges", "lattice"])
def test_gradcheck_of_inputs_and_parameters(graph):
    conv = CrossAttnConv(3, 2, heads=2, act="gelu").double()
    names, parameters = zip(*conv.named_parameters(), strict=True)
    x = torch.randn(4, 3, dtype=torch.double, requires_grad=True)

    def call(x, *values):
        return functional_call(conv, dict(zip(names, values, strict=True)), (x, graph))

    assert gradcheck(call, (x, *parameters))


def test_permuting_the_nodes_of_a_lattice_permutes_the_output():
    conv = CrossAttnConv(3, 4, heads=2).double()
    x = torch.randn(LATTICE.num_nodes, 3, dtype=torch.double)
    order = torch.randperm(LATTICE.num_nodes)
    renumbered = torch.empty_like(order)
    renumbered[order] = torch.arange(LATTICE.num_nodes)
    out = conv(x[order], renumbered[LATTICE.edge_index])
    assert torch.allclose(out, conv(x, LATTICE)[order])


@given(st.integers(1, 8), st.integers(0, 20))
def test_permuting_the_nodes_permutes_the_output(num_nodes, num_edges):
    conv = CrossAttnConv(3, 4, heads=2).double()
    x = torch.randn(num_nodes, 3, dtype=torch.double)
    edge_index = torch.randint(num_nodes, (2, num_edges))
    order = torch.randperm(num_nodes)
    renumbered = torch.empty_like(order)
    renumbered[order] = torch.arange(num_nodes)
    out = conv(x[order], renumbered[edge_index])
    assert torch.allclose(out, conv(x, edge_index)[order])


def test_a_batch_equals_its_graphs_one_by_one():
    conv = CrossAttnConv(3, 4)
    x = torch.randn(LATTICE.num_nodes, 3)
    single = AxialGraph(LATTICE.size, LATTICE.stride)
    parts = [conv(part, single) for part in x.split(single.num_nodes)]
    assert torch.allclose(conv(x, LATTICE), torch.cat(parts), atol=1e-6)
    assert torch.allclose(conv(x, LATTICE.edge_index), torch.cat(parts), atol=1e-6)


def test_bipartite():
    conv = CrossAttnConv((8, 16), 32, heads=2)
    source, target = torch.randn(4, 8), torch.randn(2, 16)
    edge_index = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
    out = conv((source, target), edge_index)
    assert out.shape == (2, 64)
    with_weights, _ = conv((source, target), edge_index, return_attention_weights=True)
    assert torch.allclose(out, with_weights, atol=1e-6)
    with pytest.raises(InputError, match="x_target"):
        conv((source, None), edge_index)


def test_target_to_source_is_the_flipped_graph():
    x = torch.randn(4, 3)
    conv = CrossAttnConv(3, 4)
    back = CrossAttnConv(3, 4, flow="target_to_source", normalize=False)
    back.load_state_dict(conv.state_dict())
    assert torch.allclose(back(x, EDGES.flip(0)), conv(x, EDGES), atol=1e-6)
    back.normalize = conv.normalize = True
    assert torch.allclose(back(x, EDGES.flip(0)), conv(x, EDGES), atol=1e-6)


def test_lazy_equals_eager():
    x = torch.randn(4, 5)
    lazy, eager = CrossAttnConv(-1, 4, heads=2), CrossAttnConv(5, 4, heads=2)
    lazy(x, EDGES)
    eager.load_state_dict(lazy.state_dict())
    assert torch.equal(lazy(x, EDGES), eager(x, EDGES))


def test_copies_are_equal():
    conv = CrossAttnConv(5, 4, act="relu")
    x = torch.randn(4, 5)
    buffer = io.BytesIO()
    torch.save(conv, buffer)
    buffer.seek(0)
    copies = [
        copy.copy(conv),
        copy.deepcopy(conv),
        pickle.loads(pickle.dumps(conv)),
        torch.load(buffer, weights_only=False),
    ]
    assert all(torch.equal(c(x, EDGES), conv(x, EDGES)) for c in copies)
    assert str(conv) == "CrossAttnConv(5, 4, heads=1)"


def test_isolated_nodes_and_empty_graphs_give_the_update_of_x_and_zero():
    for affinity in ("exponential", "softmax"):
        conv = CrossAttnConv(3, 4, affinity=affinity, normalize=True)
        x = torch.randn(3, 3)
        alone = conv.lin_update(torch.cat([x, torch.zeros(3, 4)], 1))
        none = torch.empty(2, 0, dtype=torch.long)
        assert torch.equal(conv(x, none), alone)
        assert torch.equal(conv(x, AxialGraph(3, stride=3)), alone)
        assert torch.equal(conv(x, torch.tensor([[0], [1]]))[[0, 2]], alone[[0, 2]])
        assert conv(x[:0], none).shape == (0, 4)
        assert conv(x[:0], AxialGraph(3, batch_size=0)).shape == (0, 4)


def test_beta_is_bounded_as_in_swin_v2():
    conv = CrossAttnConv(3, 4, heads=2, beta=5.0)
    assert torch.allclose(conv.beta, torch.full((2,), 5.0))
    torch.nn.init.constant_(conv.log_beta, 10.0)
    assert torch.allclose(conv.beta, torch.full((2,), 100.0))
    conv.reset_parameters()
    assert torch.allclose(conv.log_beta, torch.full((2,), math.log(5.0)))


@pytest.mark.parametrize("graph", [EDGES, AxialGraph((2, 2))], ids=["edges", "lattice"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_takes_similarities_in_fp32(graph, dtype):
    # At beta 100 the rounding of a half-precision similarity would change the weight by a
    # factor. What is projected in half precision is given, so only the weights can differ.
    near = torch.randn(32) + 0.05 * torch.randn(2, 4, 1, 32)
    query, key, value = (x.to(dtype) for x in (*near, torch.randn(4, 1, 32)))
    beta = torch.tensor([100.0])
    exact = cross_attention(query.double(), key.double(), value.double(), graph, beta)
    with torch.autocast("cpu", dtype):
        out = cross_attention(query, key, value, graph, beta)
        conv_out = CrossAttnConv(8, 8)(torch.randn(4, 8), graph)
    assert out.dtype == conv_out.dtype == dtype
    assert torch.allclose(out.double(), exact, rtol=3e-2, atol=1e-2 * exact.abs().max())


def test_dropout_applies_in_training_only():
    conv = CrossAttnConv(3, 4, dropout=0.5)
    x = torch.randn(LATTICE.num_nodes, 3)
    for graph in (LATTICE, LATTICE.edge_index):
        conv.train()
        assert not torch.equal(conv(x, graph), conv(x, graph))
        out, (_, alpha) = conv(x, graph, return_attention_weights=True)
        assert not torch.equal(out, conv(x, graph, return_attention_weights=True)[0])
        assert ((alpha > 0) & (alpha <= 1)).all()
        conv.eval()
        assert torch.equal(conv(x, graph), conv(x, graph))


def test_message_hooks_see_every_edge():
    conv = CrossAttnConv(3, 4)
    x = torch.randn(4, 3)
    seen = []
    handle = conv.register_message_forward_hook(lambda m, inputs, out: seen.append(out))
    hooked = conv(x, AxialGraph((2, 2)))
    handle.remove()
    assert seen[0].shape == (8, 1, 4)
    assert torch.allclose(hooked, conv(x, AxialGraph((2, 2))), atol=1e-6)
    assert len(seen) == 1


def test_other_aggregations_and_overridden_messages_are_respected():
    class Doubled(CrossAttnConv):
        def message(self, value_j, alpha):
            return 2 * super().message(value_j, alpha)

    x = torch.randn(4, 3)
    conv, mean, double = (
        CrossAttnConv(3, 4),
        CrossAttnConv(3, 4, aggr="mean"),
        Doubled(3, 4),
    )
    ablation = CrossAttnConv(3, 4, normalize=True)
    for other in (mean, double, ablation):
        other.load_state_dict(conv.state_dict())
    assert torch.allclose(mean(x, EDGES), ablation(x, EDGES), atol=1e-6)
    assert not torch.allclose(double(x, EDGES), conv(x, EDGES))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, r"beta must lie in \(0, 100\] \(got 0.0\)"),
        ({"beta": 101.0}, "beta must lie in"),
        ({"beta": True}, "beta must lie in"),
        ({"affinity": "cosine"}, "affinity must be one of"),
        ({"heads": 2.0}, r"heads must be of integers .got 2.0"),
        ({"heads": 0}, "heads and out_channels must be positive .got 0 and 4"),
        ({"dropout": 1.5}, "dropout must lie in"),
        ({"aggr": ["sum", "max"]}, "aggr must be one aggregation"),
        ({"aggr": None}, "aggr must be one aggregation"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        CrossAttnConv(3, 4, **options)


@pytest.mark.parametrize("weights", [None, True])
def test_bad_input(weights):
    conv = CrossAttnConv(3, 4)
    with pytest.raises(InputError, match=r"shape \(N, 3\) or .* \(got \(4, 5\)\)"):
        conv(torch.randn(4, 5), EDGES, return_attention_weights=weights)
    with pytest.raises(IndexError, match=r"interval \[0, 2\)"):
        conv(torch.randn(2, 3), EDGES, return_attention_weights=weights)
    with pytest.raises(InputError, match=r"integer (tensor of shape \(2, E\)|dtype)"):
        conv(torch.randn(4, 3), EDGES.float(), return_attention_weights=weights)


def test_edge_features_enter_keys_and_values():
    conv = CrossAttnConv(5, 4, heads=2, edge_dim=3).double()
    x, edge_attr = torch.randn(4, 5).double(), torch.randn(6, 3).double()
    out, (_, alpha) = conv(x, EDGES, edge_attr, return_attention_weights=True)
    q, k, v = (lin(x).view(4, 2, 4) for lin in (conv.lin_query, conv.lin_key, conv.lin_value))
    e = conv.lin_edge(edge_attr).view(6, 2, 4)
    message = torch.zeros(4, 2, 4, dtype=torch.double)
    for n, (j, i) in enumerate(EDGES.T.tolist()):
        s = torch.cosine_similarity(q[i], k[j] + e[n], dim=-1)
        a = torch.exp(-(1 - s))
        assert torch.allclose(alpha[n], a)
        message[i] += a.unsqueeze(-1) * (v[j] + e[n])
    expected = conv.lin_update(torch.cat([x, message.flatten(1)], 1))
    assert torch.allclose(out, expected)
    # In another order of the edges, and on a lattice, whose edges have an order too.
    order = torch.randperm(6)
    assert torch.allclose(conv(x, EDGES[:, order], edge_attr[order]), expected)
    lattice = AxialGraph((2, 2))
    edge_attr = torch.randn(lattice.num_edges, 3).double()
    assert torch.allclose(conv(x, lattice, edge_attr), conv(x, lattice.edge_index, edge_attr))


def test_gradcheck_of_edge_features():
    conv = CrossAttnConv(3, 2, edge_dim=2, heads=2).double()
    x = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    edge_attr = torch.randn(6, 2, dtype=torch.double, requires_grad=True)
    assert gradcheck(lambda x, e: conv(x, EDGES, e), (x, edge_attr))


def test_the_values_of_a_matrix_are_edge_features_by_default():
    conv = CrossAttnConv(5, 4, edge_dim=1)
    x = torch.randn(4, 5)
    value = torch.tensor([0.5, -1.0, 2.0, 3.0, 0.1, 0.2])
    matrix = torch.sparse_coo_tensor(EDGES.flip(0), value, (4, 4)).coalesce()
    assert torch.allclose(conv(x, matrix), conv(x, EDGES, value), atol=1e-6)


def test_residual_is_a_linear_map_before_the_activation():
    conv = CrossAttnConv(5, 4, heads=2, residual=True, act="relu")
    bare = CrossAttnConv(5, 4, heads=2)
    bare.load_state_dict(conv.state_dict(), strict=False)
    x = torch.randn(4, 5)
    assert torch.allclose(conv(x, EDGES), (bare(x, EDGES) + conv.res(x)).relu(), atol=1e-6)


@pytest.mark.parametrize("graph", [EDGES, AxialGraph((2, 2))], ids=["edges", "lattice"])
def test_several_sets_of_features_on_one_graph(graph):
    conv = CrossAttnConv(5, 4, heads=2, normalize=True)
    x = torch.randn(3, 4, 5)
    out, (edges, alpha) = conv(x, graph, return_attention_weights=True)
    for b in range(3):
        one, (_, weights) = conv(x[b], graph, return_attention_weights=True)
        assert torch.allclose(out[b], one, atol=1e-6)
        assert torch.allclose(alpha[b], weights)
    assert torch.allclose(conv(x, graph), out, atol=1e-6)
    assert edges.shape == (2, alpha.size(1))


def test_several_sets_of_bipartite_features_with_edge_features():
    conv = CrossAttnConv((5, 6), 4, edge_dim=2)
    source, target, edge_attr = torch.randn(3, 4, 5), torch.randn(3, 2, 6), torch.randn(4, 2)
    edges = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
    out = conv((source, target), edges, edge_attr)
    for b in range(3):
        assert torch.allclose(out[b], conv((source[b], target[b]), edges, edge_attr), atol=1e-6)


def test_no_sets_of_features_at_all():
    assert CrossAttnConv(5, 4)(torch.randn(0, 4, 5), EDGES).shape == (0, 4, 4)


def test_lazy_edge_features():
    conv = CrossAttnConv(-1, 4, edge_dim=-1)
    assert conv(torch.randn(4, 5), EDGES, torch.randn(6, 3)).shape == (4, 4)
    assert conv.lin_edge.weight.shape == (4, 3)


@pytest.mark.parametrize("options", [{}, {"edge_dim": 2}, {"normalize": True}, {"aggr": "mean"}])
def test_bipartite_matrices_equal_the_edge_list(options):
    conv = CrossAttnConv((5, 6), 4, heads=2, **options)
    x = torch.randn(4, 5), torch.randn(3, 6)
    edges = torch.tensor([[3, 1, 0, 2], [0, 0, 1, 2]])
    edge_attr = torch.randn(4, 2) if "edge_dim" in options else None
    value = torch.ones(4) if edge_attr is None else edge_attr
    size = (3, 4, *value.shape[1:])
    matrix = torch.sparse_coo_tensor(edges.flip(0), value, size).coalesce()
    expected = conv(x, edges, edge_attr)
    assert torch.allclose(conv(x, matrix), expected, atol=1e-6)
    several = tuple(torch.stack([part, 2 * part]) for part in x)
    assert torch.allclose(conv(several, matrix)[0], expected, atol=1e-6)


def test_a_method_replaced_on_the_instance_is_respected():
    conv = CrossAttnConv(3, 4)
    x = torch.randn(4, 3)
    before = conv(x, EDGES)
    conv.message = lambda value_j, alpha, edge_attr=None: 0 * value_j
    assert not torch.allclose(conv(x, EDGES), before)


def test_freeze_beta():
    model = torch.nn.Sequential(CrossAttnConv(3, 4), torch.nn.Sequential(CrossAttnConv(4, 4)))
    assert freeze_beta(model) is model
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"0.log_beta", "1.0.log_beta"}
    freeze_beta(model, frozen=False)
    assert all(p.requires_grad for p in model.parameters())


def test_a_frozen_beta_stays_where_it_is():
    conv, x = CrossAttnConv(3, 4), torch.randn(4, 3)
    optimizer = torch.optim.AdamW(conv.parameters(), lr=0.1, weight_decay=0.1)

    def step():
        optimizer.zero_grad(set_to_none=False)
        conv(x, EDGES).square().sum().backward()
        optimizer.step()

    with torch.no_grad():
        conv.log_beta.fill_(0.5)
    step()
    freeze_beta(conv)
    before = conv.log_beta.clone()
    step()
    assert torch.equal(conv.log_beta, before)


class Adapter(torch.nn.Module):
    """As LoRA adds one to a linear map."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = torch.nn.Linear(base.in_channels, 2, bias=False)
        self.up = torch.nn.Linear(2, base.out_channels, bias=False)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


@pytest.mark.parametrize("graph", [EDGES, AxialGraph((2, 2))], ids=["edges", "lattice"])
@pytest.mark.parametrize("name", ["lin_query", "lin_key", "lin_value", "lin_update", "res"])
def test_any_module_in_the_place_of_a_linear_map(name, graph):
    conv = CrossAttnConv(5, 4, heads=2, residual=True)
    plain = copy.deepcopy(conv)
    adapter = Adapter(getattr(conv, name))
    setattr(conv, name, adapter)
    with torch.no_grad():
        getattr(plain, name).weight += adapter.up.weight @ adapter.down.weight
    x = torch.randn(4, 5)
    out = conv(x, graph)
    torch.testing.assert_close(out, plain(x, graph))
    weighted, _ = conv(x, graph, return_attention_weights=True)
    torch.testing.assert_close(weighted, out)
    out.sum().backward()
    assert all(p.grad is not None for p in conv.parameters())
    conv.reset_parameters()
    setattr(conv, name, torch.nn.Linear(adapter.base.in_channels, adapter.base.out_channels))
    assert conv(x, graph).shape == (4, 8)
    if name in ("lin_query", "lin_key"):
        with pytest.raises(InputError, match=r"shape \(N, 5\).*got \(4, 6\)"):
            conv(torch.randn(4, 6), graph)


def test_an_adapter_in_the_place_of_the_map_of_edge_features():
    conv = CrossAttnConv(5, 4, heads=2, edge_dim=3)
    plain = copy.deepcopy(conv)
    conv.lin_edge = adapter = Adapter(conv.lin_edge)
    with torch.no_grad():
        plain.lin_edge.weight += adapter.up.weight @ adapter.down.weight
    x, edge_attr = torch.randn(4, 5), torch.randn(6, 3)
    torch.testing.assert_close(conv(x, EDGES, edge_attr), plain(x, EDGES, edge_attr))


@pytest.mark.parametrize(
    "options", [{}, {"residual": True}, {"heads": 3, "concat": False}], ids=str
)
def test_sparse_features_equal_dense_ones(options):
    conv, lazy = CrossAttnConv((5, 6), 4, **options), CrossAttnConv((-1, -1), 4, **options)
    source, target = torch.randn(4, 5).relu(), torch.randn(3, 6).relu()
    edges = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
    lazy((source.to_sparse(), target.to_sparse()), edges)
    lazy.load_state_dict(conv.state_dict())
    adapted = copy.deepcopy(conv)
    adapted.lin_update = torch.nn.Sequential(adapted.lin_update)
    expected = conv((source, target), edges)
    gradients = torch.autograd.grad(expected.square().sum(), list(conv.parameters()))
    for x in (
        (source.to_sparse(), target.to_sparse()),
        (source.to_sparse_csr(), target.to_sparse_csr()),
        (source.to_sparse(), target),
        (source, target.to_sparse()),
    ):
        out = conv(x, edges)
        torch.testing.assert_close(out, expected)
        found = torch.autograd.grad(out.square().sum(), list(conv.parameters()))
        for a, b in zip(found, gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        for other in (lazy, adapted):
            torch.testing.assert_close(other(x, edges), expected)
        weighted, _ = conv(x, edges, return_attention_weights=True)
        torch.testing.assert_close(weighted, expected)
    several = torch.stack([source, source]).to_sparse(), torch.stack([target, target]).to_sparse()
    with pytest.raises(InputError, match=r"sparse source features of shape \(N, 5\)"):
        conv(several, edges)


def test_integers_of_numpy():
    conv = CrossAttnConv(
        (np.int64(5), np.int32(6)), np.int16(4), heads=np.uint8(2), edge_dim=np.int64(3)
    )
    same = CrossAttnConv((5, 6), 4, heads=2, edge_dim=3)
    assert str(conv) == str(same) == "CrossAttnConv((5, 6), 4, heads=2)"
    assert all(
        type(n) is int for n in (*conv.in_channels, conv.out_channels, conv.heads, conv.edge_dim)
    )
    conv.load_state_dict(same.state_dict())


NOBODY = torch.empty(2, 0, dtype=torch.long)


@pytest.mark.parametrize(
    "options", [{}, {"normalize": True}, {"affinity": "softmax"}, {"edge_dim": 2}], ids=str
)
@pytest.mark.parametrize(
    ("shape", "graph"),
    [
        ((0, 5), NOBODY),
        ((0, 5), AxialGraph((2, 2), batch_size=0)),
        ((0, 4, 5), EDGES),
        ((0, 4, 5), AxialGraph((2, 2))),
        ((3, 0, 5), NOBODY),
        ((3, 0, 5), AxialGraph((2, 2), batch_size=0)),
        ((1, 4, 5), EDGES),
    ],
)
def test_batches_of_nothing(shape, graph, options):
    conv = CrossAttnConv(5, 4, **options)
    edges = graph.edge_index if isinstance(graph, AxialGraph) else graph
    edge_attr = torch.randn(edges.size(1), 2) if "edge_dim" in options else None
    x = torch.randn(shape, requires_grad=True)
    out = conv(x, graph, edge_attr)
    assert out.shape == (*shape[:-1], 4)
    out.sum().backward()
    assert x.grad.shape == x.shape
    out, (index, alpha) = conv(x, graph, edge_attr, return_attention_weights=True)
    assert out.shape == (*shape[:-1], 4)
    assert index.size(1) == alpha.size(-2)


def test_a_forced_backend_that_cannot_run_says_why():
    conv, x = CrossAttnConv(3, 4), torch.randn(4, 3)
    expected = conv(x, AxialGraph((2, 2)))
    for backend in ("axial", "edge_list"):
        with use_backend(backend):
            torch.testing.assert_close(conv(x, AxialGraph((2, 2))), expected)
    with use_backend("axial"):
        with pytest.raises(InputError, match="'axial' cannot run here: it takes an AxialGraph"):
            conv(x, EDGES)
        with pytest.raises(InputError, match="'axial' cannot run here.*single edges"):
            conv(x, AxialGraph((2, 2)), return_attention_weights=True)
    with use_backend("edge_list"):
        conv(x, EDGES, return_attention_weights=True)


def test_a_compiled_layer_follows_the_forced_backend():
    conv, x, graph = CrossAttnConv(3, 4), torch.randn(4, 3), AxialGraph((2, 2))
    torch._dynamo.reset()
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
    expected = conv(x, graph)
    for backend in ("axial", "edge_list", "axial"):
        with use_backend(backend):
            torch.testing.assert_close(compiled(x, graph), expected)


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_a_compiled_layer_takes_lattices_of_any_size(stride):
    conv = CrossAttnConv(3, 4)

    def call(x):
        batch, height, width, _ = x.shape
        return conv(x.flatten(0, 2), AxialGraph((height, width), stride, batch))

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in ((2, 9, 8), (3, 10, 12), (2, 5, 7)):
        x = torch.randn(*size, 3)
        torch.testing.assert_close(compiled(x), call(x))


@pytest.mark.parametrize("stride", [2, 3])
def test_an_exported_layer_takes_batches_of_any_size(stride):
    conv = CrossAttnConv(3, 4).eval()

    class OnLattice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv

        def forward(self, x):
            return self.conv(x.flatten(0, 2), AxialGraph((6, 7), stride, x.size(0)))

    batch = ({0: torch.export.Dim("batch", min=2)},)
    program = torch.export.export(OnLattice(), (torch.randn(2, 6, 7, 3),), dynamic_shapes=batch)
    x = torch.randn(5, 6, 7, 3)
    torch.testing.assert_close(program.module()(x), OnLattice()(x))


@pytest.mark.parametrize("graph", [EDGES, AxialGraph((2, 2))], ids=["edges", "lattice"])
def test_a_traced_layer_runs_on_other_features(graph):
    conv = CrossAttnConv(3, 4, heads=2, normalize=True).eval()

    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv

        def forward(self, x):
            return self.conv(x, graph)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # Of checks of shapes.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        traced = torch.jit.trace(Fixed(), torch.randn(4, 3))
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer)
        buffer.seek(0)
        loaded = torch.jit.load(buffer)
    x = torch.randn(4, 3)
    torch.testing.assert_close(loaded(x), conv(x, graph))


@pytest.mark.parametrize(
    ("options", "call", "message"),
    [
        ({"edge_dim": 3}, {}, r"edge_attr of shape \(6, 3\).*got None"),
        ({"edge_dim": 3}, {"edge_attr": torch.ones(5, 3)}, r"\(6, 3\).*got \(5, 3\)"),
        ({"edge_dim": 3}, {"edge_attr": torch.ones(6, 2)}, r"\(6, 3\).*got \(6, 2\)"),
        ({}, {"edge_attr": torch.ones(6, 2)}, "made without edge_dim"),
        ({}, {"size": (5, 4)}, r"expected \(5, 4\) source and target.*got \(4, 4\)"),
        ({}, {"x": (torch.ones(2, 4, 3), torch.ones(3, 4, 3))}, "as many sets"),
        ({}, {"x": torch.ones(4, 3).double()}, "one dtype .got torch.float64 and torch.float32"),
        (
            {},
            {"x": torch.ones(4, 3).long()},
            "source features of a floating dtype .got torch.i",
        ),
        ({"edge_dim": 2}, {"edge_attr": torch.ones(6, 2).int()}, "edge_attr of a floating dtype"),
        ({}, {"x": torch.ones(4, 3, device="meta")}, "one device .got meta and cpu"),
        ({}, {"edge_index": EDGES.to("meta")}, "one device .got meta and cpu"),
        ({}, {"edge_index": AxialGraph(3)}, "features of 3 nodes.*got 4"),
        (
            {},
            {"edge_index": AxialGraph(3), "return_attention_weights": True},
            "features of 3 nodes.*got 4",
        ),
        ({}, {"edge_index": [[0], [1]]}, "got list"),
        (
            {"edge_dim": 2},
            {"edge_attr": torch.ones(6, 2).double()},
            "edge_attr and layer of one dtype .got torch.float64 and torch.float32",
        ),
        (
            {"flow": "target_to_source"},
            {"x": torch.ones(2, 4, 3), "edge_index": torch.eye(4).to_sparse()},
            "got a sparse matrix",
        ),
        ({}, {"edge_index": torch.eye(5).to_sparse()}, r"matrix of shape \(4, 4\).*got \(5, 5\)"),
        (
            {"flow": "target_to_source"},
            {"edge_index": torch.eye(4).to_sparse()},
            "got a sparse matrix",
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_what_does_not_fit_names_both_sides(options, call, message):
    conv = CrossAttnConv(3, 4, **options)
    call = {"x": torch.ones(4, 3), "edge_index": EDGES, **call}
    with pytest.raises(InputError, match=message):
        conv(**call)


def test_tracing_leaves_no_trace():
    conv, graph = CrossAttnConv(3, 4, dropout=0.5).eval(), AxialGraph((2, 2))
    x = torch.randn(4, 3)
    expected = conv(x, graph)

    class Weights(torch.nn.Module):
        def forward(self, x):
            return conv(x, graph, return_attention_weights=True)[0] + conv(x, graph)

    program = torch.export.export(Weights(), (x,))
    assert torch.allclose(program.module()(x), 2 * expected, atol=1e-6)
    assert type(graph.edge_index) is torch.Tensor
    assert type(conv(x, graph)) is torch.Tensor


# A self-loop of its own, and an edge that is there twice.
LOOPY = torch.tensor([[0, 1, 2, 3, 3, 2, 1, 3], [0, 0, 1, 1, 0, 3, 1, 1]])
SELF_LOOPS = [
    {},
    {"heads": 2, "affinity": "softmax", "root_weight": False},
    {"normalize": True, "residual": True},
]


def with_loops(edges, num_nodes, features=None, fill_value=1.0):
    """The graph that a layer with `add_self_loops` is to see, by PyG's own functions."""
    return add_self_loops(*remove_self_loops(edges, features), fill_value, num_nodes)


def looped_pair(in_channels, **options):
    """A layer that adds self-loops, and one with the same weights that does not."""
    conv = CrossAttnConv(in_channels, 4, add_self_loops=True, **options).double()
    plain = CrossAttnConv(in_channels, 4, **options).double()
    plain.load_state_dict(conv.state_dict())
    return conv, plain


def assert_same(conv, plain, x, graph, expected_graph, *edge_attr):
    """Equal outputs and gradients, whatever road is taken."""
    found = []
    for layer, adjacency in ((conv, graph), (plain, expected_graph)):
        leaf = x.clone().requires_grad_()
        attr = edge_attr[layer is plain] if edge_attr else None
        out = layer(leaf, adjacency, attr)
        weighted = layer(leaf, adjacency, attr, return_attention_weights=True)[0]
        gradients = torch.autograd.grad(out.square().sum(), [leaf, *layer.parameters()])
        found.append([out, weighted, *gradients])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("options", SELF_LOOPS, ids=str)
@pytest.mark.parametrize("backend", ["csr", "edge_list"])
def test_self_loops_take_the_place_of_those_of_an_edge_list(options, backend):
    conv, plain = looped_pair(5, **options)
    x = torch.randn(4, 5).double()
    expected, _ = with_loops(LOOPY, 4)
    for graph in (LOOPY, LOOPY.int(), EdgeIndex(LOOPY, sparse_size=(4, 4))):
        assert_same(conv, plain, x, graph, expected)
    out, (edges, alpha) = conv(x, LOOPY, return_attention_weights=True)
    assert torch.equal(edges, expected)
    torch.testing.assert_close(alpha, plain(x, expected, return_attention_weights=True)[1][1])
    if refusal(backend, LOOPY) is None:
        with use_backend(backend):
            torch.testing.assert_close(conv(x, LOOPY), out)


@pytest.mark.parametrize(
    "layout", ["coo", "csr", "csc", pytest.param("sparse_tensor", marks=pytest.mark.sparse)]
)
@pytest.mark.parametrize("edge_dim", [None, 1])
def test_self_loops_of_a_sparse_matrix(layout, edge_dim):
    conv, plain = looped_pair(5, heads=2, edge_dim=edge_dim)
    x = torch.randn(4, 5).double()
    edges, value = LOOPY[:, :-1], torch.randn(7).double()
    if layout == "sparse_tensor":
        matrix = SparseTensor.from_edge_index(edges, value, (4, 4)).t()
    else:
        matrix = torch.sparse_coo_tensor(edges.flip(0), value, (4, 4)).coalesce()
        matrix = getattr(
            matrix, {"csr": "to_sparse_csr", "csc": "to_sparse_csc"}.get(layout, "coalesce")
        )()
    looped, features = with_loops(edges, 4, value.view(-1, 1), "mean")
    features = None if edge_dim is None else features
    expected, (_, alpha) = plain(x, looped, features, return_attention_weights=True)
    torch.testing.assert_close(conv(x, matrix), expected)
    out, weights = conv(x, matrix, return_attention_weights=True)
    torch.testing.assert_close(out, expected)
    weighted = weights if layout == "sparse_tensor" else weights[0]
    assert type(weighted) is type(matrix)
    dense = torch.zeros(4, 4, 2).double()
    dense[looped[1], looped[0]] = alpha
    torch.testing.assert_close(weighted.to_dense(), dense)
    if layout != "sparse_tensor":
        assert weighted.layout == matrix.layout
        torch.testing.assert_close(weighted.values(), weights[1])


@pytest.mark.parametrize("options", SELF_LOOPS, ids=str)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 5))
def test_self_loops_of_a_lattice(options, size, stride):
    conv, plain = looped_pair(3, **options)
    graph = AxialGraph(size, stride, batch_size=2)
    x = torch.randn(graph.num_nodes, 3).double()
    expected, _ = with_loops(graph.edge_index, graph.num_nodes)
    torch.testing.assert_close(conv(x, graph), plain(x, expected))
    out, (edges, alpha) = conv(x, graph, return_attention_weights=True)
    torch.testing.assert_close(out, plain(x, expected))
    assert torch.equal(edges, graph.with_self_loops().edge_index)
    assert alpha.size(0) == edges.size(1)


def test_a_lattice_with_self_loops_needs_no_edges():
    conv, plain = looped_pair(3)
    graph = AxialGraph((3, 4), (1, 2))
    x = torch.randn(12, 3).double()
    expected, _ = with_loops(graph.edge_index, 12)
    with use_backend("axial"):
        found = conv(x, graph)
    torch.testing.assert_close(found, plain(x, expected))


@pytest.mark.parametrize("fill_value", [0.5, torch.tensor([1.0, -2.0]), "mean", "max"], ids=str)
@pytest.mark.parametrize("graph", [LOOPY, AxialGraph((2, 2))], ids=["edges", "lattice"])
def test_features_of_self_loops(graph, fill_value):
    conv, plain = looped_pair(5, edge_dim=2)
    conv.fill_value = fill_value
    edges = graph.edge_index if isinstance(graph, AxialGraph) else graph
    x, features = torch.randn(4, 5).double(), torch.randn(edges.size(1), 2).double()
    looped, filled = with_loops(edges, 4, features, fill_value)
    assert_same(conv, plain, x, graph, looped, features, filled)


def test_self_loops_of_a_bipartite_graph_join_the_nodes_that_are_both():
    """As the seeds of a batch of sampled neighbours are, which come first among the sources."""
    conv, plain = looped_pair((5, 5))
    x, edges = torch.randn(4, 5).double(), torch.tensor([[0, 2, 3, 1], [0, 0, 1, 0]])
    looped = torch.tensor([[2, 3, 1, 0, 1], [0, 1, 0, 0, 1]])
    torch.testing.assert_close(conv((x, x[:2]), edges), plain((x, x[:2]), looped))
    back, plain_back = looped_pair((5, 5), flow="target_to_source", edge_dim=1)
    features = torch.randn(4, 1).double()
    _, filled = with_loops(edges, 4, features, "mean")
    filled = torch.cat([filled[:3], filled[3:5]])
    torch.testing.assert_close(
        back((x, x[:2]), edges.flip(0), features), plain_back((x, x[:2]), looped.flip(0), filled)
    )


@pytest.mark.parametrize("graph", [LOOPY, AxialGraph((2, 2))], ids=["edges", "lattice"])
def test_self_loops_of_several_sets_of_features(graph):
    conv, _ = looped_pair(5, heads=2)
    x = torch.randn(3, 4, 5).double()
    out, (edges, alpha) = conv(x, graph, return_attention_weights=True)
    torch.testing.assert_close(conv(x, graph), out)
    for b in range(3):
        one, (same, weights) = conv(x[b], graph, return_attention_weights=True)
        torch.testing.assert_close(out[b], one)
        torch.testing.assert_close(alpha[b], weights)
        assert torch.equal(edges, same)


@pytest.mark.parametrize("options", [*SELF_LOOPS, {"edge_dim": 2}], ids=str)
@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5)], ids=str)
def test_recorded_programs_add_self_loops_without_looking(options, shape):
    conv, _ = looped_pair(5, **options)
    x = torch.randn(shape).double()
    inputs = [LOOPY, torch.randn(8, 2).double()] if "edge_dim" in options else [LOOPY]
    others = [LOOPY.flip(0, 1), *inputs[1:]]  # Another number of edges of a node with itself.
    others[0][:, 0] = torch.tensor([2, 2])
    torch._dynamo.reset()
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
    program = torch.export.export(conv.eval(), (x, *inputs)).module()
    for args in (inputs, others):
        torch.testing.assert_close(compiled(x, *args), conv(x, *args))
        torch.testing.assert_close(program(x, *args), conv(x, *args))


def test_a_recorded_program_adds_self_loops_with_features_to_a_lattice():
    conv, _ = looped_pair(5, edge_dim=2)
    graph = AxialGraph((2, 2))
    x, features = torch.randn(4, 5).double(), torch.randn(8, 2).double()
    torch._dynamo.reset()
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, graph, features), conv(x, graph, features))


def test_vmap_over_edges_adds_self_loops():
    conv, _ = looped_pair(5)
    x, several = (
        torch.randn(4, 5).double(),
        torch.stack([LOOPY, LOOPY.flip(0), LOOPY[:1].expand(2, -1)]),
    )
    mapped = torch.func.vmap(lambda edges: conv(x, edges))(several)
    torch.testing.assert_close(mapped, torch.stack([conv(x, edges) for edges in several]))


@pytest.mark.parametrize("options", [{}, {"heads": 3, "concat": False}, {"heads": 2}], ids=str)
def test_without_root_weight_a_node_is_the_sum_of_its_neighbours(options):
    conv = CrossAttnConv((5, 6), 4, root_weight=False, **options)
    lazy = CrossAttnConv((-1, -1), 4, root_weight=False, **options)
    whole = CrossAttnConv((5, 6), 4, **options)
    assert conv.lin_update is None
    torch.nn.init.normal_(conv.bias)
    state = conv.state_dict()
    bias = state.pop("bias")
    identity = torch.cat([torch.zeros(len(bias), 6), torch.eye(len(bias))], 1)
    whole.load_state_dict({**state, "lin_update.weight": identity, "lin_update.bias": bias})
    x, edges = (torch.randn(4, 5), torch.randn(3, 6)), torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
    lazy(x, edges)
    lazy.load_state_dict(conv.state_dict())
    for layer in (conv, lazy):
        torch.testing.assert_close(layer(x, edges), whole(x, edges))
    torch.testing.assert_close(conv((x[0], x[1].to_sparse()), edges), whole(x, edges))
    conv.reset_parameters()
    assert not conv.bias.any()
    assert CrossAttnConv(5, 4, root_weight=False, bias=False, **options).bias is None
