"""The published splits of data sets as others make them."""

import numpy as np
import pytest
import torch
from data.loading.test_graph_data import Graphs, Nodes
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data, HeteroData, InMemoryDataset
from torch_geometric.transforms import BaseTransform, Compose, RandomLinkSplit, RandomNodeSplit

from pyg_avig import InputError
from pyg_avig.data import GraphData
from pyg_avig.data.loading.splits import whole

SPLITS = ("train", "val", "test")


def nodes_of(data, graph=0):
    """The nodes of each split, by what a loader's batches say."""
    found = {}
    for name in SPLITS:
        dataset, graphs = data.parts[name]
        found[name] = (
            dataset[graph][f"{name}_mask"].nonzero().view(-1).tolist() if graph in graphs else []
        )
    return found


def graphs_of(data):
    return {name: list(index) for name, (_, index) in data.parts.items()}


class Published(Graphs):
    """Names graphs as OGB's data sets do."""

    def get_idx_split(self):
        named = {"train": WANTED["train"], "valid": WANTED["val"], "test": WANTED["test"]}
        return {name: torch.tensor(index) for name, index in named.items()}


class PublishedNodes(Nodes):
    get_idx_split = Published.get_idx_split


WANTED = {"train": [*range(10)], "val": [10, 11, 12], "test": [*range(13, 20)]}


def test_the_splits_of_ogb_are_kept():
    assert graphs_of(GraphData(Published())) == WANTED
    assert nodes_of(GraphData(PublishedNodes(), level="node")) == WANTED


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
def test_a_mapping_of_indices_or_masks(kind):
    graphs, masks = Graphs(), Graphs()
    graphs.split_idx = {name: kind(index) for name, index in WANTED.items()}
    masks.split_idx = {
        name: kind([n in index for n in range(20)]) for name, index in WANTED.items()
    }
    assert graphs_of(GraphData(graphs)) == graphs_of(GraphData(masks)) == WANTED


def test_a_string_named_split_says_nothing():
    graphs = Graphs()
    graphs.split = "public"
    assert graphs_of(GraphData(graphs)) == graphs_of(GraphData(Graphs()))
    nodes = PublishedNodes()
    nodes.split = "public"
    assert nodes_of(GraphData(nodes, level="node")) == WANTED
    graphs.get_idx_split = lambda: WANTED
    assert graphs_of(GraphData(graphs)) == WANTED


@given(st.sets(st.sampled_from(SPLITS)), st.integers(1, 60), st.integers(0, 5))
def test_what_is_missing_is_drawn_from_training_alone(names, number, seed):
    part = torch.randint(3, (number,), generator=torch.Generator().manual_seed(seed))
    said = {name: part == SPLITS.index(name) for name in names}
    found = whole(said, number, {"seed": seed})
    again = whole(said, number, {"seed": seed})
    assert all(torch.equal(found[name], again[name]) for name in SPLITS)
    seen = torch.cat([found[name] for name in SPLITS])
    assert len(seen.unique()) == len(seen)
    for name in names - {"train"}:
        assert torch.equal(found[name], said[name].nonzero().view(-1))
    missing = {"val", "test"} - names
    if "train" in names:
        training = torch.cat([found[name] for name in {"train"} | missing]).sort().values
        assert torch.equal(training, said["train"].nonzero().view(-1))
        tenth = max(int(said["train"].sum()) // 10, 1)
        for drawn in missing:
            assert len(found[drawn]) <= tenth
    else:
        assert len(seen) == number


def test_validation_is_drawn_where_training_and_test_are_published():
    train, test = torch.arange(50) < 15, torch.arange(50) >= 15

    class Fifty(InMemoryDataset):
        def __init__(self, **fields):
            super().__init__()
            data = Data(x=torch.randn(50, 2), y=torch.arange(50) % 3, **fields)
            self.data, self.slices = self.collate([data])

    found = nodes_of(GraphData(Fifty(train_mask=train, test_mask=test), level="node"))
    assert found["test"] == [*range(15, 50)]
    assert len(found["val"]) == 1
    assert sorted(found["train"] + found["val"]) == [*range(15)]
    other = Fifty(train_mask=train, test_mask=test)
    seeds = [nodes_of(GraphData(other, level="node", split={"seed": n})) for n in range(9)]
    assert len({found["val"][0] for found in seeds}) > 1
    assert all(found["test"] == [*range(15, 50)] for found in seeds)


def test_masks_of_ints_and_indices_mean_the_same():
    part = torch.arange(30) % 3
    kinds = [
        {f"{name}_mask": (part == n).to(dtype) for n, name in enumerate(SPLITS)}
        for dtype in (torch.bool, torch.uint8, torch.long, torch.float)
    ]
    kinds.append({f"{name}_idx": (part == n).nonzero().view(-1) for n, name in enumerate(SPLITS)})
    kinds.append(
        {
            f"{n}_mask": kinds[0][f"{m}_mask"]
            for n, m in zip(("train", "valid", "test"), SPLITS, strict=True)
        }
    )
    kinds.append({name: mask.numpy() for name, mask in kinds[0].items()})
    for fields in kinds:
        data = GraphData(Nodes(**fields), level="node")
        assert nodes_of(data) == {name: [*range(n, 30, 3)] for n, name in enumerate(SPLITS)}
        (batch,) = data.train_dataloader()
        assert batch.train_mask.dtype == torch.bool


def test_several_folds_with_one_test():
    part = torch.rand(30, 4).argsort(0) % 2
    masks = {"train_mask": part == 0, "val_mask": part == 1, "test_mask": torch.zeros(30).bool()}
    masks = {name: mask.clone() for name, mask in masks.items()}
    for name in ("train_mask", "val_mask"):
        masks[name][:5] = False
    masks["test_mask"][:5] = True
    found = nodes_of(GraphData(Nodes(**masks), level="node", split={"fold": 3}))
    assert found["test"] == [*range(5)]
    assert found["val"] == masks["val_mask"][:, 3].nonzero().view(-1).tolist()


def test_a_published_split_may_be_empty():
    part = torch.arange(30) % 2
    masks = {"train_mask": part == 0, "val_mask": part == 2, "test_mask": part == 1}
    data = GraphData(Nodes(**masks), level="node")
    assert data.val_dataloader() == []
    assert nodes_of(data)["train"] == [*range(0, 30, 2)]


class Several(InMemoryDataset):
    """Graphs of nodes, each with masks of its own; the third validates nothing."""

    def __init__(self, **more):
        super().__init__()
        graphs = []
        for n in range(3):
            part = torch.arange(20 + n) % (2 if n == 2 else 3)
            data = Data(x=torch.randn(20 + n, 2), y=part.clone())
            for mask, name in enumerate(("train", "test", "val")):
                data[f"{name}_mask"] = part == mask
            graphs.append(data)
        for name, value in more.items():
            del graphs[value][name]
        self.data, self.slices = self.collate(graphs)


def test_several_graphs_with_masks():
    data = GraphData(Several(), level="node", batch_size=3)
    assert graphs_of(data) == {"train": [0, 1, 2], "val": [0, 1], "test": [0, 1, 2]}
    (batch,) = data.train_dataloader()
    assert int(batch.train_mask.sum()) == 7 + 7 + 11
    assert data.facts["shares"] == [1.0, 0.0, 0.0]


def test_graphs_without_masks_are_split_whole():
    class Plain(Several):
        def __init__(self):
            super().__init__()
            graphs = [self[n] for n in range(3)] * 4
            for graph in graphs:
                for name in SPLITS:
                    graph.pop(f"{name}_mask", None)
            self._data_list = None
            self.data, self.slices = self.collate(graphs)

    data = GraphData(Plain(), level="node")
    assert {name: len(index) for name, index in graphs_of(data).items()} == {
        "train": 10,
        "val": 1,
        "test": 1,
    }


def test_masks_of_a_data_set_in_parts_say_what_is_learned():
    data = GraphData(Several(), val_dataset=Several(), level="node")
    assert data.facts["shares"] == [1.0, 0.0, 0.0]
    with pytest.raises(InputError, match="seed alone .* .got fold"):
        GraphData(Graphs(), test_dataset=Graphs(3), split={"fold": 1})


def test_a_random_node_split_of_the_data_set_is_drawn_once():
    def make(seed, **split):
        torch.manual_seed(seed)
        nodes = Nodes()
        nodes.transform = Compose([RandomNodeSplit(num_val=5, num_test=5)])
        return GraphData(nodes, level="node", split=split)

    data = make(0)
    found = nodes_of(data)
    assert {name: len(nodes) for name, nodes in found.items()} == {
        "train": 20,
        "val": 5,
        "test": 5,
    }
    assert found == nodes_of(data) == nodes_of(make(1))
    loader = data.train_dataloader()
    first = next(iter(loader)).train_mask
    loader.sampler.set_epoch(1)
    assert torch.equal(next(iter(loader)).train_mask, first)


def test_a_random_link_split_of_the_data_set_is_drawn_once():
    torch.manual_seed(0)
    nodes = Nodes()
    nodes._data.edge_index = torch.randint(30, (2, 100))
    nodes.transform = RandomLinkSplit(num_val=0.1, num_test=0.2)
    data = GraphData(nodes, level="edge")
    sizes = {}
    for name in SPLITS:
        (batch,) = data.loader(name)
        (again,) = data.loader(name)
        assert torch.equal(batch.edge_label_index, again.edge_label_index)
        sizes[name] = len(batch.edge_label)
    assert sizes == {"train": 140, "val": 20, "test": 40}
    assert data.facts["out_channels"] == 2  # An edge or none, not the classes of the nodes.


def _linked(transform=None, edges=100):
    nodes = Nodes()
    nodes._data.edge_index = torch.randint(30, (2, edges))
    nodes.transform = transform
    return nodes


def test_a_random_link_split_among_the_transforms_is_drawn_once():
    class Ones(BaseTransform):
        def forward(self, data):
            data.x = torch.ones(data.num_nodes, 7)
            return data

    def edges(seed, *behind):
        transform = [Ones(), RandomLinkSplit(num_val=0.1, num_test=0.2), *behind]
        torch.manual_seed(0)
        data = GraphData(_linked(), level="edge", transform=transform, split={"seed": seed})
        assert data.facts["in_channels"] == 7
        (batch,), (again,) = data.loader("train"), data.loader("train")
        assert torch.equal(batch.edge_label_index, again.edge_label_index)
        (val,), (test,) = data.loader("val"), data.loader("test")
        sizes = [len(b.edge_label) for b in (batch, val, test)]
        assert sizes == [140, 20, 40]
        return batch.edge_label_index

    assert torch.equal(edges(0), edges(0, Ones()))
    assert not torch.equal(edges(0), edges(1))


def test_graphs_too_small_for_a_link_split_only_train():
    class Rings(InMemoryDataset):
        def __init__(self):
            super().__init__()
            ring = torch.arange(12)
            graphs = [
                Data(x=torch.randn(12, 2), edge_index=torch.stack([ring, (ring + 1) % 12])[:, :n])
                for n in (4, 12, 12)
            ]
            self.data, self.slices = self.collate(graphs)

    split = RandomLinkSplit(num_val=0.1, num_test=0.2)
    data = GraphData(Rings(), level="edge", transform=[split], batch_size=3)
    assert graphs_of(data) == {"train": [0, 1, 2], "val": [1, 2], "test": [1, 2]}


@pytest.mark.parametrize("empty", [("train",), ("val", "test"), SPLITS])
def test_the_first_of_several_graphs_may_have_empty_masks(empty):
    class First(Several):
        def get(self, index):
            data = super().get(index)
            for name in empty if index == 0 else ():
                data[f"{name}_mask"] = torch.zeros(data.num_nodes, dtype=torch.bool)
            return data

    data = GraphData(First(), level="node", batch_size=1)
    assert [0 in graphs_of(data)[name] for name in SPLITS] == [name not in empty for name in SPLITS]
    assert all(batch.train_mask.any() for batch in data.train_dataloader())
    assert data.facts["shares"] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: GraphData(
                Nodes(train_mask=torch.arange(30) < 9, test_mask=torch.arange(30) > 6), level="node"
            ),
            "without overlap .got 2 in train and test",
        ),
        (
            lambda: GraphData(_said({"train": [0, 1, 9]}, 9)),
            "train as indices in 0 to 8.*from 0 to 9",
        ),
        (lambda: GraphData(_said({"train": [0.5, 1]}, 9)), "as indices .*float32"),
        (lambda: GraphData(_said([0, 1], 9)), "a mapping of indices .got list"),
        (lambda: GraphData(_said({"train": [0, 1], "valid": [1]}, 9)), "1 in train and val"),
        (
            lambda: GraphData(Published(), split={"fold": 1}),
            "arguments of Published.get_idx_split",
        ),
        (
            lambda: GraphData(
                Nodes(train_mask=torch.ones(30, 3)), split={"fold": "x"}, level="node"
            ),
            "an int as fold of split .got 'x'",
        ),
        (lambda: GraphData(Graphs(), split={"seed": 1.5}), "an int as seed of split .got 1.5"),
        (
            lambda: GraphData(Nodes(train_mask=torch.arange(30)), level="node"),
            "train_mask as 30 truth values .got .30,., torch.int64",
        ),
        (
            lambda: GraphData(Nodes(train_mask=torch.ones(29)), level="node"),
            "train_mask as 30 truth values .got .29,.",
        ),
        (
            lambda: GraphData(
                Nodes(train_mask=torch.zeros(30, 3), val_mask=torch.zeros(30, 2)), level="node"
            ),
            "3 folds in each mask .got 2 of val",
        ),
        (
            lambda: GraphData(_without_masks_in_the_second(), level="node"),
            "masks in every graph, as in the first .got none in 1",
        ),
        (
            lambda: GraphData(Nodes(), level="node", transform=[RandomNodeSplit()]),
            "leave the split alone .got another train_mask.*transform of the data set",
        ),
        (
            lambda: GraphData(Graphs(), level="node", augment=[RandomNodeSplit()]),
            "leave the split alone",
        ),
        (
            lambda: GraphData(Graphs(), level="node", transform=[RandomLinkSplit()]),
            "one graph of one kind of nodes .got tuple.*transform for level edge",
        ),
        (
            lambda: GraphData(Graphs(), level="edge", augment=[RandomLinkSplit()]),
            "one graph of one kind of nodes .got tuple",
        ),
        (
            lambda: GraphData(Graphs(), level="edge", transform=[RandomLinkSplit(num_val=5)]),
            "RandomLinkSplit can split .Insufficient number of edges",
        ),
        (
            lambda: GraphData(Nodes(), level="edge"),
            "to train on .got none in Nodes...; RandomLinkSplit as a transform makes edges of one",
        ),
        (
            lambda: GraphData(_linked(RandomLinkSplit()), level="node"),
            "level edge for the graphs that RandomLinkSplit makes .got node",
        ),
        (lambda: GraphData(_Hetero()), "one graph of one kind of nodes .got HeteroData"),
    ],
)
def test_bad_splits_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_nodes_that_none_trains_on_are_told_of_their_data_set():
    nodes = Nodes()
    nodes.data, nodes.slices = nodes.collate(
        [Data(x=torch.zeros(4, 2), y=torch.zeros(4), train_mask=torch.zeros(4, dtype=torch.bool))]
    )
    with pytest.raises(InputError, match=r"nodes to train on \(got none in Nodes\("):
        GraphData(nodes, level="node")


def _said(said, number):
    graphs = Graphs(number)
    graphs.split_idx = said
    return graphs


def _without_masks_in_the_second():
    class Second(Several):
        def get(self, index):
            data = super().get(index)
            for name in SPLITS if index == 1 else ():
                del data[f"{name}_mask"]
            return data

    return Second()


class _Hetero(InMemoryDataset):
    def __init__(self):
        super().__init__()
        graphs = [HeteroData(a={"x": torch.ones(2, 2)}) for _ in range(5)]
        self.data, self.slices = self.collate(graphs)
