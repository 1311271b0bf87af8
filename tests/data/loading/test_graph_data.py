import copy

import numpy as np
import pytest
import torch
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.transforms import BaseTransform

from pyg_avig import InputError
from pyg_avig.data import GraphData


class Graphs(InMemoryDataset):
    """Graphs made by the test: graph n has n + 2 nodes, whose features are n."""

    def __init__(self, number: int = 20, label=None, **fields):
        super().__init__()
        self.data, self.slices = self.collate(
            [
                Data(
                    x=torch.full((n + 2, 4), float(n)),
                    pos=torch.zeros(n + 2, 3),
                    edge_index=torch.tensor([[0, 1], [1, 0]]),
                    edge_attr=torch.ones(2, 5),
                    y=torch.tensor([n % 3]) if label is None else label(n),
                    **fields,
                )
                for n in range(number)
            ]
        )


class Folded(Graphs):
    classes = ("a", "b", "c")

    def split(self, fold=0):
        return {
            "train": torch.arange(2, 20),
            "val": torch.tensor([], dtype=torch.long),
            "test": torch.tensor([fold]),
        }


class AddOne(BaseTransform):
    def forward(self, data):
        data.x = data.x + 1
        return data


class ToInt(BaseTransform):
    def forward(self, data):
        data.x = data.x.long()
        return data


class Flat(BaseTransform):
    def forward(self, data):
        data.x = data.x[:, 0]
        return data


class Noise(BaseTransform):
    def forward(self, data):
        data.x = data.x + torch.rand(())
        return data


def seen(loader):
    return sorted(n for batch in loader for n in (batch.ptr.diff() - 2).tolist())


def test_a_random_split_is_a_function_of_its_seed():
    parts = [GraphData(Graphs(), split={"seed": seed}).parts for seed in (0, 0, 1)]
    parts = [{name: index for name, (_, index) in part.items()} for part in parts]
    assert parts[0] == parts[1] != parts[2]
    assert sorted(n for index in parts[0].values() for n in index) == list(range(20))
    assert {name: len(index) for name, index in parts[0].items()} == {
        "train": 16,
        "val": 2,
        "test": 2,
    }


def test_the_data_sets_own_split():
    data = GraphData(Folded(), split={"fold": 1}, batch_size=18)
    assert seen(data.train_dataloader()) == list(range(2, 20))
    assert data.val_dataloader() == []
    assert seen(data.test_dataloader()) == [1]


def test_a_data_set_that_is_published_in_parts():
    data = GraphData(Graphs(20), test_dataset=Graphs(3), batch_size=1)
    assert len(data.parts["val"][1]) == 2
    assert set(data.parts["val"][1]).isdisjoint(data.parts["train"][1])
    assert seen(data.test_dataloader()) == [0, 1, 2]
    data = GraphData(Graphs(20), Graphs(4), Graphs(3))
    assert {name: len(index) for name, (_, index) in data.parts.items()} == {
        "train": 20,
        "val": 4,
        "test": 3,
    }


def test_what_the_data_say_of_themselves():
    assert GraphData(Folded()).facts == {
        "level": "graph",
        "task": "multiclass",
        "in_channels": 4,
        "out_channels": 3,
        "edge_dim": 5,
        "pos_dim": 3,
        "classes": ["a", "b", "c"],
        "shares": pytest.approx([6 / 18] * 3),
        "mean": [0.0],
        "std": [1.0],
    }
    facts = GraphData(Graphs(label=lambda n: torch.tensor([float(n)])), task="regression").facts
    assert facts["out_channels"] == 1
    assert facts["std"][0] == pytest.approx(5.9, abs=1)
    two = Graphs(label=lambda n: torch.tensor([[1.0, 0.0]]))
    assert GraphData(two, task="multilabel").facts["out_channels"] == 2


class Nodes(InMemoryDataset):
    def __init__(self, **fields):
        super().__init__()
        data = Data(
            x=torch.randn(30, 4),
            y=torch.arange(30) % 3,
            edge_index=torch.empty(2, 0, dtype=torch.long),
            **fields,
        )
        self.data, self.slices = self.collate([data])


def test_the_nodes_of_one_graph_belong_to_splits():
    (batch,) = GraphData(Nodes(), level="node").train_dataloader()
    masks = torch.stack([batch[f"{name}_mask"] for name in ("train", "val", "test")])
    assert (masks.sum(0) == 1).all()
    assert masks.sum(1).tolist() == [24, 3, 3]
    given = {
        f"{name}_mask": torch.arange(30) % 3 == n for n, name in enumerate(("train", "val", "test"))
    }
    (batch,) = GraphData(Nodes(**given), level="node").test_dataloader()
    assert torch.equal(batch.test_mask, given["test_mask"])


class KeepOne(BaseTransform):
    def forward(self, data):
        data.y = data.y[:, 1:]
        return data


def test_labels_are_those_that_a_transform_leaves():
    graphs = Graphs(label=lambda n: torch.tensor([[1000.0 * n, 1.0 * n, torch.nan]]))
    facts = GraphData(graphs, task="regression", transform=[KeepOne()]).facts
    assert facts["out_channels"] == 2
    assert facts["mean"][0] < 20
    assert len(facts["std"]) == 2
    assert GraphData(graphs, task="regression").facts["std"][0] > 1000


def test_a_graph_without_edges_in_front_changes_no_size():
    class First(Graphs):
        def get(self, index):
            data = super().get(index)
            data.edge_attr, data.edge_index = data.edge_attr[:0], data.edge_index[:, :0]
            return data

    assert GraphData(First()).facts["edge_dim"] == 5


def test_masks_of_several_folds():
    part = torch.rand(30, 4).argsort(0) % 3
    masks = {f"{name}_mask": part == n for n, name in enumerate(("train", "val", "test"))}
    (batch,) = GraphData(Nodes(**masks), level="node", split={"fold": 2}).train_dataloader()
    assert torch.equal(batch.train_mask, masks["train_mask"][:, 2])
    with pytest.raises(InputError, match="a fold in 0 to 3 .got .'fold': 4"):
        GraphData(Nodes(**masks), level="node", split={"fold": 4})


def test_numbers_of_numpy():
    data = GraphData(
        Graphs(), split={"seed": np.int64(1)}, batch_size=np.int64(4), num_workers=np.int64(0)
    )
    assert data.parts == GraphData(data.parts["train"][0], split={"seed": 1}).parts
    assert next(iter(data.train_dataloader())).num_graphs == 4


@pytest.mark.parametrize("subset", [slice(None), slice(3, 15), [5, 3, 11, 7, 1, 9]])
def test_labels_in_memory_are_those_of_the_graphs(subset):
    for level in ("graph", "node"):
        label = (lambda n: torch.tensor([n % 3])) if level == "graph" else None
        graphs = Graphs(label=label or (lambda n: torch.arange(n + 2) % 3))[subset]
        stored, read = GraphData(graphs, level=level), copy.copy(graphs)
        read.transform = lambda data: data
        read = GraphData(read, level=level)
        assert stored.facts == read.facts
        assert stored.parts["train"][1] == read.parts["train"][1]


def test_graphs_in_memory_are_not_all_made_for_their_labels(monkeypatch):
    made = []
    get = Graphs.get
    monkeypatch.setattr(
        InMemoryDataset, "get", lambda self, index: made.append(index) or get(self, index)
    )
    GraphData(Graphs(200))
    assert len(made) < 20


def test_a_transform_of_the_data_set_that_leaves_labels_alone_is_not_run_for_them():
    calls = []

    class Counted(AddOne):
        def forward(self, data):
            calls.append(data)
            return super().forward(data)

    graphs = Graphs(1000)
    expected = GraphData(graphs).facts
    graphs.transform = Counted()
    assert GraphData(graphs).facts == expected
    assert len(calls) < 200


def test_labels_are_those_that_the_data_sets_transform_leaves():
    class Twice(BaseTransform):
        def forward(self, data):
            data.y = 2 * data.y
            return data

    graphs = Graphs(100, label=lambda n: torch.tensor([1.0 * n]))
    std = GraphData(graphs, task="regression").facts["std"][0]
    graphs.transform = Twice()
    assert GraphData(graphs, task="regression").facts["std"][0] == pytest.approx(2 * std)
    classes = Graphs(100)
    classes.transform = Twice()
    assert GraphData(classes).facts["out_channels"] == 5


def test_evaluation_draws_the_same_each_time():
    loader = GraphData(Graphs(), transform=[Noise()], batch_size=20).test_dataloader()
    first, again = [torch.cat([b.x for b in loader]) for _ in range(2)]
    assert torch.equal(first, again)
    assert (first % 1 > 0).all()


def test_without_a_test_set_there_is_no_test():
    assert GraphData(Graphs(), val_dataset=Graphs(3)).test_dataloader() == []


def test_graphs_are_augmented_in_training_alone_and_by_the_epoch():
    data = GraphData(Graphs(), transform=[AddOne()], augment=[Noise()], batch_size=20)
    (plain,) = data.test_dataloader()
    assert torch.equal(plain.x % 1, torch.zeros_like(plain.x))
    loader = data.train_dataloader()
    first, again = [torch.cat([b.x for b in loader]) for _ in range(2)]
    assert torch.equal(first, again)
    assert (first % 1 > 0).all()
    loader.sampler.set_epoch(1)
    assert not torch.equal(torch.cat([b.x for b in loader]), first)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GraphData(Graphs(), level="pixel"), "level must be one of .* .got 'pixel'"),
        (lambda: GraphData(Graphs(), task="ranking"), "task must be one of .* .got 'ranking'"),
        (lambda: GraphData(Graphs(), split={"fold": 1}), "seed alone .* .got fold"),
        (lambda: GraphData(Graphs(), level="edge"), "the field edge_label"),
        (lambda: GraphData(Folded(), split={"part": 1}), "arguments of Folded.split"),
        (lambda: GraphData(Graphs(label=lambda n: torch.tensor([n - 5]))), "one class in 0 to"),
        (lambda: GraphData(Graphs(label=lambda n: torch.tensor([0.5]))), "one class in 0 to"),
        (
            lambda: GraphData(Graphs(), transform=[ToInt()]),
            "floating dtype .got torch.int64.*OneHot",
        ),
        (
            lambda: GraphData(Graphs(label=lambda n: torch.tensor([torch.nan]))).facts,
            "a class for each graph .got NaN",
        ),
        (lambda: GraphData(Graphs(), transform=[Flat()]), "of shape .N, C. .got .9,."),
        (
            lambda: GraphData(
                Graphs(label=lambda n: torch.zeros(3)), level="node", task="regression"
            ),
            "labels y of 9 nodes .got .3,.",
        ),
        (lambda: GraphData(Graphs(), batch_size=0).train_dataloader(), "batch_size .* at least 1"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()
