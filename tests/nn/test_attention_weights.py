import pytest
import torch
from torch import nn

from pyg_avig import AxialGraph, CrossAttnConv, InputError, attention_weights


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = CrossAttnConv(3, 4, heads=2)
        self.second = CrossAttnConv(8, 4)

    def forward(self, x, graph):
        return self.second(self.first(x, graph), graph)


def test_reads_a_compiled_model():
    model = torch.compile(TwoLayers(), backend="eager")
    x, graph = torch.randn(6, 3), AxialGraph((2, 3))
    model(x, graph)
    assert len(attention_weights(model, x, graph)) == 2


def test_layers_that_are_never_called_are_an_error():
    class Idle(TwoLayers):
        def forward(self, x):
            return x

    with pytest.raises(InputError, match="called none"):
        attention_weights(Idle(), torch.zeros(1))


def test_reads_every_layer_and_leaves_no_trace():
    model = TwoLayers()
    x, graph = torch.randn(6, 3), AxialGraph((2, 3))
    before = model(x, graph)
    found = attention_weights(model, x, graph)
    assert list(found) == ["first", "second"]
    edge_index, alpha = found["first"]
    _, (expected_edges, expected) = model.first(x, graph, return_attention_weights=True)
    assert torch.equal(edge_index, expected_edges)
    assert torch.equal(alpha, expected)
    assert found["second"].alpha.shape == (graph.num_edges, 1)
    assert not alpha.requires_grad
    assert torch.equal(model(x, graph), before)
    assert not model.first._needs_edges()
