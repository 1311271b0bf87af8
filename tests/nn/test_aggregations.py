import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.nn import GATv2Conv
from torch_geometric.utils import erdos_renyi_graph

from pyg_avig import AxialGraph, CrossAttnConv, InputError
from pyg_avig.nn import MaxRelativeConv, aggregation_names, make_aggregation, register_aggregation

TAKE_EDGE_FEATURES = {"cross_attention", "gat", "gatv2", "transformer"}


@pytest.mark.parametrize("name", aggregation_names())
def test_every_aggregation_runs_on_any_graph(name):
    lattice = AxialGraph((4, 5), 2, batch_size=2)
    layer = make_aggregation(name, 8, heads=2).eval()
    x = torch.randn(40, 8, requires_grad=True)
    out = layer(x, lattice)
    assert out.shape == (40, 8)
    assert torch.allclose(out, layer(x, lattice.edge_index), atol=1e-5)
    out.sum().backward()
    assert x.grad.isfinite().all()
    alone = layer(x, torch.empty(2, 0, dtype=torch.long))
    assert alone.isfinite().all()
    assert (name == "none") == torch.allclose(out, alone)


@pytest.mark.parametrize("name", aggregation_names())
def test_edge_features_reach_the_layers_that_take_them(name):
    layer = make_aggregation(name, 8, heads=2, edge_dim=3).eval()
    x, edges = torch.randn(10, 8), erdos_renyi_graph(10, 0.4)
    outs = [layer(x, edges, torch.randn(edges.size(1), 3)) for _ in range(2)]
    assert torch.allclose(*outs) == (name not in TAKE_EDGE_FEATURES)


@pytest.mark.parametrize("name", aggregation_names())
def test_numpys_integers_are_integers(name):
    layer = make_aggregation(name, np.int64(8), np.int64(2), np.int64(3)).eval()
    edges = erdos_renyi_graph(10, 0.4)
    assert layer(torch.randn(10, 8), edges, torch.randn(edges.size(1), 3)).shape == (10, 8)


def test_what_the_names_stand_for():
    assert isinstance(make_aggregation("cross_attention", 8, affinity="softmax"), CrossAttnConv)
    assert isinstance(make_aggregation("gatv2", 8, dropout=0.1).conv, GATv2Conv)


@given(st.integers(1, 12), st.integers(0, 40))
def test_max_relative_is_the_maximum_of_differences(nodes, edges):
    edge_index = torch.randint(nodes, (2, edges))
    x = torch.randn(nodes, 3, dtype=torch.double)
    layer = MaxRelativeConv(3, 4).double()
    expected = torch.zeros_like(x)
    for i in range(nodes):
        sources = edge_index[0, edge_index[1] == i]
        if len(sources):
            expected[i] = (x[sources] - x[i]).max(0).values
    expected = layer.lin(torch.cat([x, expected], -1))
    assert torch.allclose(layer(x, edge_index), expected)
    layer.reset_parameters()
    assert not torch.allclose(layer(x, edge_index), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_aggregation("mean", 8), "one of .*'cross_attention'.*'mean'"),
        (lambda: make_aggregation("gatv2", 8, heads=3), "divide channels .got 3 and 8"),
        (lambda: make_aggregation("gatv2", 8, heads=0), "heads must be a positive int .got 0"),
        (lambda: make_aggregation("sage", 8, beta=1), "arguments of the aggregation 'sage'"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_an_aggregation_of_ones_own():
    from pyg_avig.nn import aggregations

    @register_aggregation
    def own(channels, heads, edge_dim):
        return torch.nn.Identity()

    try:
        assert isinstance(make_aggregation("own", 8), torch.nn.Identity)
    finally:
        del aggregations._AGGREGATIONS["own"]
