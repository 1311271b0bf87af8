import copy

import numpy as np
import pytest
import torch
from models.replicas import replica
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.explain.algorithm.utils import clear_masks, set_masks
from torch_geometric.utils import erdos_renyi_graph

from pyg_avig import AxialGraph, InputError, attention_weights
from pyg_avig.graphs import graph_names
from pyg_avig.models.vig import ViG, sorted_by_target, vig_base, vig_small, vig_tiny
from pyg_avig.nn import aggregation_names
from pyg_avig.ops import refusal
from pyg_avig.transforms import ImageToGraph


def molecule(nodes, seed=0):
    torch.manual_seed(seed)
    edges = erdos_renyi_graph(nodes, 0.4)
    return Data(
        x=torch.randn(nodes, 5),
        pos=torch.randn(nodes, 3),
        edge_index=edges,
        edge_attr=torch.randn(edges.size(1), 2),
        edge_label_index=torch.tensor([[0, 1], [1, 0]]),
    )


GRAPHS = [molecule(n, n) for n in (3, 7, 12)]
SMALL = {"in_channels": 5, "out_channels": 4, "channels": 8, "num_blocks": 2}


@pytest.mark.parametrize("aggregation", aggregation_names())
@pytest.mark.parametrize(
    ("level", "outputs"), [("graph", 3), ("node", 3 + 7 + 12), ("edge", 2 * 3)]
)
def test_a_batch_gives_what_its_graphs_give(level, outputs, aggregation):
    model = ViG(
        **SMALL, level=level, aggregation=aggregation, edge_dim=2, pos="relative", pos_dim=3
    )
    model.eval()
    whole = model(Batch.from_data_list(GRAPHS))
    assert whole.shape == (outputs, 4)
    alone = torch.cat([model(graph) for graph in GRAPHS])
    assert torch.allclose(whole, alone, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(graph_names()) - {"degraded", "expander"}))
def test_any_graph_constructor(name):
    transform = ImageToGraph(patch_size=2)
    batch = Batch.from_data_list([transform(torch.rand(3, 8, 10)) for _ in range(2)])
    model = ViG(12, 4, 8, 2, graph=name, pos="conv", pos_kernel=3).eval()
    out = model(batch)
    alone = torch.cat([model(graph) for graph in batch.to_data_list()])
    if name != "knn":  # Of pixels equally far away any may be taken.
        assert torch.allclose(out, alone, atol=1e-5)
    assert out.shape == (2, 4)


def test_a_lattice_is_not_turned_into_edges(monkeypatch):
    monkeypatch.setattr(AxialGraph, "edge_index", property(lambda self: 1 / 0))
    transform = ImageToGraph(patch_size=2, edges=False)
    batch = Batch.from_data_list([transform(torch.rand(3, 64, 80)) for _ in range(2)])
    assert ViG(12, 4, 8, 2, graph="axial", pos="conv").eval()(batch).shape == (2, 4)


def test_nearest_features_are_found_anew_in_each_block_and_dilated():
    model = ViG(5, 4, 8, 9, graph="knn", graph_args={"k": 2, "of": "x"}, max_dilation=2).eval()
    assert [graph.dilation for graph in model.graphs] == [1] * 4 + [2] * 5
    graphs = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda module, args: graphs.append(args[1]))
    model(Batch.from_data_list(GRAPHS))
    assert len({tuple(graph.flatten().tolist()) for graph in graphs}) > 2


def adjacencies(model, *inputs):
    """What each block is given for a graph."""
    seen = []
    handles = [
        block.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
        for block in model.blocks
    ]
    model(*inputs).sum().backward()
    for handle in handles:
        handle.remove()
    return seen


def without_sorting(model, monkeypatch):
    other = copy.deepcopy(model)
    monkeypatch.setattr(other, "_shares_sorting", lambda *_: False)
    return other


needs_csr = pytest.mark.skipif(
    refusal("csr", GRAPHS[0].edge_index) is not None, reason="nothing is sorted without kernels"
)


@needs_csr
@pytest.mark.parametrize("edge_dim", [None, 2])
@pytest.mark.parametrize("pos", [None, "relative"])
def test_blocks_share_one_sorting(monkeypatch, pos, edge_dim):
    model = ViG(**SMALL, level="node", pos=pos, pos_dim=3, edge_dim=edge_dim).double()
    other = without_sorting(model, monkeypatch)
    batch = Batch.from_data_list(GRAPHS)
    batch.edge_index = batch.edge_index[:, torch.randperm(batch.num_edges)]
    batch = batch.apply(lambda x: x.double() if x.is_floating_point() else x)
    first, second = adjacencies(model, batch)
    assert first is second
    assert (first[1].diff() >= 0).all()
    assert isinstance(first.validate(), EdgeIndex)
    assert first.sparse_size() == (22, 22)
    assert adjacencies(other, batch)[0] is batch.edge_index
    assert torch.allclose(model(batch), other(batch))
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert mine.grad.any()
        assert torch.allclose(mine.grad, theirs.grad)


@needs_csr
def test_edges_in_order_are_shared_as_they_are():
    nodes = torch.randn(22, 5)
    edges, order = sorted_by_target(Batch.from_data_list(GRAPHS).edge_index, 22)
    assert order is not None
    model = ViG(**SMALL, level="node")
    assert all(graph is edges for graph in adjacencies(model, Data(x=nodes, edge_index=edges)))
    again, order = sorted_by_target(edges.as_tensor(), 22)
    assert order is None
    assert torch.equal(again.as_tensor(), edges.as_tensor())


def test_whoever_looks_at_single_edges_sees_them_as_they_came():
    model = ViG(**SMALL).eval()
    graph = GRAPHS[2]
    graph.edge_index = graph.edge_index[:, torch.randperm(graph.num_edges)]
    for weights in attention_weights(model, graph).values():
        assert torch.equal(weights.edge_index, graph.edge_index)
    mask = torch.rand(graph.num_edges)
    set_masks(model, torch.nn.Parameter(mask), graph.edge_index, apply_sigmoid=False)
    masked = model(graph)
    clear_masks(model)
    order = torch.randperm(graph.num_edges)
    other = Data(x=graph.x, edge_index=graph.edge_index[:, order])
    set_masks(model, torch.nn.Parameter(mask[order]), other.edge_index, apply_sigmoid=False)
    assert torch.allclose(model(other), masked, atol=1e-6)
    clear_masks(model)


@pytest.mark.parametrize("aggregation", sorted(set(aggregation_names()) - {"cross_attention"}))
def test_other_aggregations_get_the_edges_as_they_came(aggregation):
    model = ViG(**SMALL, aggregation=aggregation).eval()
    assert all(graph is GRAPHS[2].edge_index for graph in adjacencies(model, GRAPHS[2]))


@needs_csr
def test_nearest_features_of_each_block_are_sorted_by_it_alone():
    model = ViG(**SMALL, graph="knn", graph_args={"k": 2, "of": "x"}).eval()
    assert not any(isinstance(g, EdgeIndex) for g in adjacencies(model, GRAPHS[2]))
    fixed = ViG(**SMALL, graph="knn", graph_args={"k": 2}).eval()
    assert all(isinstance(g, EdgeIndex) for g in adjacencies(fixed, GRAPHS[2]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
@pytest.mark.parametrize("aggregation", aggregation_names())
def test_models_of_half_precision(aggregation, dtype):
    model = ViG(**SMALL, aggregation=aggregation, edge_dim=2, pos="relative", pos_dim=3).eval()
    batch = Batch.from_data_list(GRAPHS)
    expected = model(batch)
    half = Batch.from_data_list(GRAPHS)
    half.x, half.edge_attr = half.x.to(dtype), half.edge_attr.to(dtype)
    out = model.to(dtype)(half)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, atol=0.1, rtol=0.1)
    model.train()(half).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_numpys_integers_are_integers():
    n = np.int64
    model = ViG(
        n(12), n(4), n(8), n(2), graph="knn", graph_args={"k": n(3)}, max_dilation=n(2),
        heads=n(2), pos="conv", pos_dim=n(2), pos_kernel=n(3),
    )  # fmt: skip
    assert model.eval()(ImageToGraph(n(2))(torch.rand(3, 8, 10))).shape == (1, 4)


def test_replicas_of_data_parallel(monkeypatch):
    model = ViG(**SMALL, edge_dim=2, pos="relative", pos_dim=3).eval()
    batch = Batch.from_data_list(GRAPHS)
    with torch.no_grad():
        assert torch.equal(replica(model, monkeypatch)(batch), model(batch))


def test_no_nodes_and_no_graphs():
    none = Data(x=torch.empty(0, 5), edge_index=torch.empty(2, 0).long())
    for level, outputs in (("graph", 1), ("node", 0)):
        model = ViG(**SMALL, level=level)
        for training in (True, False):
            assert model.train(training)(none).shape == (outputs, 4)
        assert all(buffer.isfinite().all() for buffer in model.buffers())


def test_clips_have_a_convolution_of_three_axes():
    nodes = torch.randn(2 * 24, 5)
    clip = Data(x=nodes[:24], lattice_size=(2, 3, 4))
    batch = Batch.from_data_list([clip, Data(x=nodes[24:], lattice_size=(2, 3, 4))])
    model = ViG(**SMALL, graph="axial", pos="conv", pos_dim=3, pos_kernel=3).eval()
    assert model(batch).shape == (2, 4)
    assert not torch.allclose(
        model(clip), model(Data(x=nodes[:24].flip(0), lattice_size=(2, 3, 4)))
    )


def test_pools_are_joined():
    model = ViG(**SMALL, pool=["mean", "max"]).eval()
    assert model.head[0].in_features == 16
    assert model(Batch.from_data_list(GRAPHS)).shape == (3, 4)


def test_a_graph_without_edges_or_with_a_batch_of_ones_own():
    model = ViG(**SMALL).eval()
    empty = torch.empty(2, 0, dtype=torch.long)
    assert model(Data(x=torch.randn(1, 5), edge_index=empty)).shape == (1, 4)
    data = Data(x=torch.randn(4, 5), edge_index=empty, batch=torch.tensor([0, 0, 1, 1]))
    assert model(data).shape == (2, 4)


def test_molecules_without_bonds_have_no_edge_features():
    lone = Data(
        x=torch.randn(1, 5), edge_index=torch.empty(2, 0).long(), edge_attr=torch.empty(0, 2)
    )
    model = ViG(**SMALL, edge_dim=2).eval()
    both = model(Batch.from_data_list([lone, GRAPHS[0]]))
    assert torch.allclose(both[:1], model(lone), atol=1e-6)


def test_paths_are_dropped_among_empty_graphs():
    empty = Data(x=torch.empty(0, 5), edge_index=torch.empty(2, 0).long())
    model = ViG(**SMALL, drop_path=0.5)
    assert model(Batch.from_data_list([empty, empty, empty, GRAPHS[1]])).shape == (4, 4)


def test_a_degraded_graph_of_features_is_rebuilt_too():
    args = {"graph": "knn", "graph_args": {"k": 2, "of": "x"}}
    model = ViG(**SMALL, graph="degraded", graph_args=args).eval()
    graphs = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda module, args: graphs.append(args[1]))
    model(Batch.from_data_list(GRAPHS))
    assert graphs[0] is not graphs[1]


def test_it_learns_and_drops_paths():
    model = ViG(**SMALL, drop_path=0.5)
    batch, y = Batch.from_data_list(GRAPHS * 4), torch.tensor([0, 1, 2] * 4)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(batch), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 < losses[0]


# Parameters in millions: analytic, W^2 (3 + 2 + 8) a block, the rest being small.
@pytest.mark.parametrize(("make", "blocks", "width"), [(vig_tiny, 12, 192), (vig_small, 16, 320)])
def test_the_sizes_of_vision_gnn(make, blocks, width):
    model = make(768, 1000, pos="conv")
    assert len(model.blocks) == blocks
    weights = sum(p.numel() for b in model.blocks for p in b.parameters() if p.dim() == 2)
    assert weights == blocks * width**2 * 13
    assert model.blocks[0].conv.out_channels == width
    batch = ImageToGraph(16)(torch.rand(3, 224, 224))
    assert batch.num_nodes == 196
    assert model.eval()(batch).shape == (1, 1000)


@pytest.mark.parametrize(("make", "blocks"), [(vig_tiny, 12), (vig_small, 16), (vig_base, 16)])
def test_sizes_give_way(make, blocks):
    model = make(4, 2, num_blocks=2, channels=8, graph_args={"k": 3})
    assert len(model.blocks) == 2
    assert model.blocks[0].gamma1.shape == (8,)
    assert [graph.k for graph in model.graphs] == [3, 3]
    assert len(make(4, 2, channels=8).blocks) == blocks


def test_a_graph_of_ones_own_replaces_that_of_vision_gnn():
    assert vig_base(4, 2, graph=None).graphs == [None] * 16


@pytest.mark.parametrize(
    ("change", "data", "message"),
    [
        ({"level": "pixel"}, None, "level must be one of graph, node, edge .got 'pixel'"),
        ({"pos": "sine"}, None, "pos must be conv, relative or null .got 'sine'"),
        ({"graph": "web"}, None, "graph must be one of"),
        ({"aggregation": "web"}, None, "aggregation must be one of"),
        ({}, Data(x=torch.ones(3, 5)), "the field edge_index"),
        ({}, Data(x=torch.ones(3, 5).half()), "x of the model's dtype torch.float32 .got torch.fl"),
        ({}, Data(x=torch.ones(3, 5).long()), "floating dtype .got torch.int64.*float.*one_hot"),
        (
            {"edge_dim": 2},
            Data(torch.ones(3, 5), torch.ones(2, 1).long(), torch.ones(1, 2).double()),
            "edge_attr of the model's dtype torch.float32 .got torch.float64",
        ),
        ({}, Data(x=torch.ones(3, 6)), r"x of shape \(N, 5\) .got \(3, 6\)"),
        ({"pos": "conv"}, GRAPHS[0], "lattice_size"),
        ({"pos": "relative"}, Data(x=torch.ones(3, 5), edge_index=torch.ones(2, 1).long()), "pos"),
        ({"pos": "relative"}, GRAPHS[0], r"pos of shape \(N, 2\), as pos_dim says .got \(3, 3\)"),
        ({"edge_dim": 2, "graph": "knn"}, GRAPHS[0], "edges at hand only"),
        ({"heads": 0}, None, "heads must be a positive int .got 0"),
        ({"pool": ["meen"]}, None, "pool as aggregations of PyG"),
        ({"pos": "conv", "pos_dim": 4}, None, "pos_dim must be 1 to 3"),
        ({"level": "edge"}, Data(x=torch.ones(3, 5), edge_index=torch.ones(2, 1).long()), "label"),
    ],
)
def test_bad_input_is_named(change, data, message):
    def run():
        ViG(**SMALL, **change).eval()(data)

    with pytest.raises(InputError, match=message):
        run()


def test_whole_numbers_are_named_under_autocast_too():
    graph = Data(x=torch.ones(3, 5).long(), edge_index=torch.ones(2, 1).long())
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="floating dtype"):
        ViG(**SMALL).eval()(graph)


def test_a_lone_node_cannot_train():
    model = ViG(3, 2, 8, 1)
    lone = Data(torch.randn(1, 3), torch.empty(2, 0, dtype=torch.long))
    assert model.eval()(lone).shape == (1, 2)
    with pytest.raises(InputError, match="at least 2 nodes in training"):
        model.train()(lone)
