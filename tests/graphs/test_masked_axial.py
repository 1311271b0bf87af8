import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_avig import AxialGraph, CrossAttnConv, InputError
from pyg_avig.graphs import MaskedAxialGraph
from pyg_avig.ops import affinity_names, backends, cross_attention, refusal, use_backend


@st.composite
def masked(draw):
    size = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    stride = tuple(draw(st.integers(1, 7)) for _ in size)
    lattice = AxialGraph(size, stride, draw(st.integers(1, 2)), self_loops=draw(st.booleans()))
    share = draw(st.sampled_from([0.0, 0.2, 0.7, 1.0]))  # Nodes without neighbours come up too.
    generator = torch.Generator().manual_seed(draw(st.integers(0, 100)))
    keep = torch.rand(lattice.num_nodes, sum(lattice.degrees), generator=generator) < share
    return lattice, MaskedAxialGraph(lattice, keep)


@given(masked())
def test_edges_and_counts(graphs):
    lattice, graph = graphs
    loops = torch.ones(graph.num_nodes, int(graph.self_loops), dtype=torch.bool)
    edges = lattice.edge_index[:, torch.cat([loops, graph.keep], 1).flatten()]
    assert torch.equal(graph.edge_index, edges)
    assert graph.num_edges == edges.size(1)
    counts = edges[1].bincount(minlength=graph.num_nodes).clamp(min=1)
    assert torch.equal(graph.neighbor_counts(torch.empty(0)), counts.float())
    along = [graph.kept_along(axis) for axis in range(graph.num_axes)]
    assert torch.equal(torch.cat(along, 1), graph.keep)
    twice = graph.repeated(2)
    assert torch.equal(twice.edge_index, torch.cat([edges, edges + graph.num_nodes], 1))
    assert pickle.loads(pickle.dumps(graph)) == graph
    assert (graph == MaskedAxialGraph(lattice, ~graph.keep)) == (graph.keep.numel() == 0)
    assert graph != lattice


@given(masked())
def test_with_self_loops(graphs):
    lattice, graph = graphs
    if lattice.self_loops:
        assert graph.with_self_loops() is graph
        return
    source, target = graph.with_self_loops().edge_index
    assert torch.equal(torch.stack([source, target])[:, source != target], graph.edge_index)
    assert int((source == target).sum()) == graph.num_nodes


@pytest.mark.parametrize("affinity", affinity_names())
@given(masked())
def test_attention_without_edges_equals_that_on_the_edges(affinity, graphs):
    _, graph = graphs
    inputs = [torch.randn(graph.num_nodes, 2, 3, dtype=torch.double) for _ in range(3)]
    inputs.append(torch.tensor([0.7, 2.5], dtype=torch.double))
    inputs = [x.requires_grad_() for x in inputs]
    outputs = {}
    for backend in [b for b in backends() if refusal(b, graph) is None]:
        out = cross_attention(*inputs[:3], graph, inputs[3], affinity, backend=backend)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        grads = [torch.zeros_like(x) for x in inputs]
        if out.requires_grad:
            grads = torch.autograd.grad((out * weights).sum(), inputs)
        outputs[backend] = [out, *grads]
    assert {"axial", "edge_list"} <= outputs.keys()
    for found in outputs.values():
        for a, b in zip(found, outputs["edge_list"], strict=True):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-7)


@pytest.mark.parametrize("options", [{"normalize": True}, {"add_self_loops": True}], ids=str)
def test_a_layer_takes_it_in_place_of_its_edges(options):
    lattice = AxialGraph((3, 5), (1, 2), batch_size=2)
    graph = MaskedAxialGraph(lattice, torch.rand(lattice.num_nodes, lattice.degree) < 0.4)
    conv = CrossAttnConv(3, 4, heads=2, **options)
    x = torch.randn(graph.num_nodes, 3)
    expected = conv(x, graph.edge_index)
    with use_backend("axial"):
        torch.testing.assert_close(conv(x, graph), expected)
    torch.testing.assert_close(conv(x, graph, return_attention_weights=True)[0], expected)
    several = torch.stack([x, 2 * x.flip(0)])
    torch.testing.assert_close(
        conv(several, graph), torch.stack([conv(one, graph.edge_index) for one in several])
    )


def test_bad_mask():
    lattice = AxialGraph((2, 3))
    for keep in (torch.ones(6, 3), torch.ones(5, 3).bool(), torch.ones(6, 2).bool()):
        with pytest.raises(InputError, match=r"keep of shape \(6, 3\), bool"):
            MaskedAxialGraph(lattice, keep)
