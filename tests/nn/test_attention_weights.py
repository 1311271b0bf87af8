import torch
from torch import nn

from pyg_avig import AxialGraph, CrossAttnConv, attention_weights


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = CrossAttnConv(3, 4, heads=2)
        self.second = CrossAttnConv(8, 4)

    def forward(self, x, graph):
        return self.second(self.first(x, graph), graph)


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
