"""Nodes of one graph in batches with neighbours that PyG samples."""

import pytest
import torch
from data.loading.test_graph_data import AddOne, Graphs, Noise
from data.neighbors import Connected
from torch_geometric.transforms import BaseTransform

from pyg_avig import InputError
from pyg_avig.data import GraphData

MASKS = ("train_mask", "val_mask", "test_mask")
TWO = {"level": "node", "num_neighbors": [3, 2]}


class Device:
    """What a data module asks of a trainer: which of two devices it feeds."""

    world_size, accumulate_grad_batches = 2, 1

    def __init__(self, rank):
        self.global_rank = rank


def seeds(loader):
    return [batch.n_id[: batch.batch_size].tolist() for batch in loader]


def flat(batches):
    return [node for batch in batches for node in batch]


def nodes_of(split):
    return Connected()[0][f"{split}_mask"].nonzero().flatten().tolist()


def test_batches_are_a_part_of_the_graph(neighbor_sampler):
    graph = Connected()[0]
    for batch in GraphData(Connected(), **TWO, batch_size=6).train_dataloader():
        assert batch.batch_size == 6
        assert not set(MASKS) & set(batch.keys())
        for name in ("x", "y"):
            assert torch.equal(batch[name], graph[name][batch.n_id])
        assert torch.equal(batch.edge_attr, graph.edge_attr[batch.e_id])
        assert torch.equal(batch.n_id[batch.edge_index], graph.edge_index[:, batch.e_id])
        assert graph.train_mask[batch.n_id[:6]].all()
        degree = batch.edge_index[1].bincount(minlength=batch.num_nodes)
        assert degree.max() <= 3
        here = graph.edge_index[1].bincount(minlength=60)[batch.n_id]
        assert torch.equal(degree[:6], here[:6].clamp(max=3))


def test_every_node_of_a_split_is_seen_once(neighbor_sampler):
    data = GraphData(Connected(), **TWO, batch_size=7)
    assert flat(seeds(data.val_dataloader())) == nodes_of("val")
    assert flat(seeds(data.test_dataloader())) == nodes_of("test")
    loader = data.train_dataloader()
    first = flat(seeds(loader))  # The last batch is not full.
    assert len(first) == len(set(first)) == 28
    assert set(first) < set(nodes_of("train"))
    loader.sampler.set_epoch(1)
    assert flat(seeds(loader)) != first


def test_evaluation_takes_all_neighbours(neighbor_sampler):
    graph = Connected()[0]
    for batch in GraphData(Connected(), **TWO, batch_size=7).val_dataloader():
        around = batch.n_id[: batch.batch_size]
        for _ in range(2):
            around = torch.cat(
                [around, graph.edge_index[0][torch.isin(graph.edge_index[1], around)]]
            )
        assert set(around.tolist()) == set(batch.n_id.tolist())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_is_drawn_is_a_function_of_the_place(num_workers, neighbor_sampler):
    def drawn(loader):
        return [(b.n_id.tolist(), b.e_id.tolist(), b.x.sum().item()) for b in loader]

    args = {**TWO, "batch_size": 6, "augment": [Noise()]}
    plain = GraphData(Connected(), **args).train_dataloader()
    first = drawn(plain)
    torch.rand(7)
    loader = GraphData(Connected(), **args, num_workers=num_workers).train_dataloader()
    assert drawn(loader) == first
    loader.load_state_dict({"given": 2})
    assert drawn(loader) == first[2:]
    loader.sampler.set_epoch(1)
    assert drawn(loader) != first


def test_devices_share_the_nodes(neighbor_sampler):
    shares = []
    for rank in range(2):
        data = GraphData(Connected(), **TWO, batch_size=6)
        data.trainer = Device(rank)
        shares.append(seeds(data.val_dataloader()))
        assert {len(batch) for batch in seeds(data.train_dataloader())} == {3}
    assert sorted(flat(shares[0]) + flat(shares[1])) == nodes_of("val")
    trained = []
    for rank in range(2):
        data = GraphData(Connected(), **TWO, batch_size=6)
        data.trainer = Device(rank)
        trained += flat(seeds(data.train_dataloader()))
    assert sorted(trained) == nodes_of("train")


def test_a_graph_is_transformed_once_and_augmented_in_each_batch(neighbor_sampler):
    class Counted(AddOne):
        calls = 0

        def forward(self, data):
            Counted.calls += 1
            return super().forward(data)

    data = GraphData(Connected(), **TWO, transform=[Counted()], augment=[Noise()], batch_size=6)
    before = Counted.calls
    batches = [*data.train_dataloader(), *data.train_dataloader(), *data.val_dataloader()]
    assert Counted.calls == before + 1
    graph = Connected()[0]
    noise = [(b.x - graph.x[b.n_id] - 1).mean().item() for b in batches]
    assert all(value > 1e-3 for value in noise[:5])
    assert len(set(noise[:5])) == 5
    assert noise[-1] == pytest.approx(0, abs=1e-6)


class Fewer(BaseTransform):
    def forward(self, data):
        return data.subgraph(torch.arange(data.num_nodes) > 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GraphData(Graphs(), num_neighbors=[2]), "level node for num_neighbors .got graph"),
        (lambda: GraphData(Connected(), level="node", num_neighbors=[]), "each hop.* .got ..."),
        (lambda: GraphData(Connected(), level="node", num_neighbors=[3, 0]), "got .3, 0."),
        (lambda: GraphData(Connected(), level="node", num_neighbors=[-2]), "got .-2."),
        (
            lambda: GraphData(
                Graphs(label=lambda n: torch.arange(n + 2) % 2), level="node", num_neighbors=[2]
            ),
            "one graph for num_neighbors .got 16 in 'train'",
        ),
        (
            lambda: GraphData(Connected(edge_index=torch.zeros(4, 2)), **TWO).val_dataloader(),
            "edge_index as an integer tensor of shape .2, E.*got Tensor of shape .4, 2.",
        ),
        (
            lambda: next(iter(GraphData(Connected(), **TWO, augment=[Fewer()]).train_dataloader())),
            "keeps the nodes of a batch",
        ),
    ],
)
def test_bad_input_is_named(make, message, neighbor_sampler):
    with pytest.raises(InputError, match=message):
        make()


def test_edges_of_any_integers(neighbor_sampler):
    found = [
        next(iter(GraphData(Connected(edge_index=edges), **TWO, batch_size=6).val_dataloader()))
        for edges in (Connected()[0].edge_index, Connected()[0].edge_index.int())
    ]
    assert torch.equal(found[0].edge_index, found[1].edge_index)
    assert found[1].edge_index.dtype == torch.long


@pytest.mark.parametrize("node", [-1, 60])
def test_edges_that_name_no_node_are_told_before_they_are_sorted(node, neighbor_sampler):
    edges = {"edge_index": torch.tensor([[0, node], [1, 2]]), "edge_attr": torch.ones(2, 3)}
    data = GraphData(Connected(**edges), **TWO)
    with pytest.raises(IndexError, match=r"edge_index.0. must lie in the interval .0, 60."):
        data.train_dataloader()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("torch_geometric.typing.WITH_TORCH_SPARSE", False)
    monkeypatch.setattr("torch_geometric.typing.WITH_PYG_LIB", False)
    with pytest.raises(
        InputError, match="num_neighbors needs pyg-lib or torch-sparse: pip install"
    ):
        GraphData(Connected(), **TWO)


def test_more_devices_than_nodes_or_graphs_are_refused(neighbor_sampler):
    few = {name: torch.arange(60) == n for n, name in enumerate(MASKS)}
    for args, message in (({}, "a graph a device .* num_neighbors"), (TWO, "a node a device")):
        data = GraphData(Connected(**few), **{"level": "node", **args})
        data.trainer = Device(0)
        with pytest.raises(InputError, match=message):
            data.train_dataloader()
