import math

import pytest
import torch
from torch_geometric.loader import DataLoader

from pyg_avig import InputError
from pyg_avig.data import DictionaryLookup, GraphData


def mappings(data_set):
    return [tuple(data.y[: data_set.k].tolist()) for data in data_set]


@pytest.mark.parametrize(("k", "num_graphs"), [(3, 100), (4, 24), (6, 100), (10, 200)])
def test_a_query_finds_its_value_at_the_key_of_its_attribute(tmp_path, k, num_graphs):
    data_set = DictionaryLookup(k, str(tmp_path), num_graphs=num_graphs)
    assert len(data_set) == min(num_graphs, math.factorial(k))
    for data in data_set:
        attribute, value = data.x[:, :k].argmax(1), data.x[:, k:].argmax(1)
        assert (data.x[:, :k].sum(1) == 1).all()
        assert (data.x[:, k:].sum(1) == 1).all()
        assert sorted(attribute[:k].tolist()) == sorted(attribute[k:].tolist()) == list(range(k))
        assert (value[:k] == k).all()  # A query has none.
        table = dict(zip(attribute[k:].tolist(), value[k:].tolist(), strict=True))
        assert [table[a] for a in attribute[:k].tolist()] == data.y[:k].tolist()
        assert torch.equal(data.y[k:], value[k:])
        edges = set(map(tuple, data.edge_index.T.tolist()))
        assert edges == {(k + key, query) for key in range(k) for query in range(k)}


@pytest.mark.parametrize(("k", "num_graphs"), [(5, 120), (8, 30), (9, 400)])
def test_no_mapping_is_in_two_graphs(tmp_path, k, num_graphs):
    data_set = DictionaryLookup(k, str(tmp_path), num_graphs=num_graphs)
    drawn = mappings(data_set)
    assert len(set(drawn)) == len(drawn) == num_graphs
    assert all(sorted(values) == list(range(k)) for values in drawn)
    # Every attribute has every value about as often.
    first = torch.tensor(drawn)[:, 0].bincount(minlength=k)
    assert (first - num_graphs / k).abs().max() < 5 * (num_graphs / k) ** 0.5


def test_splits(tmp_path):
    data_set = DictionaryLookup(5, str(tmp_path))
    split = data_set.split()
    assert [len(index) for index in split.values()] == [84, 12, 24]
    assert torch.cat(list(split.values())).tolist() == list(range(120))
    for name, index in split.items():
        for other in ("train", "val", "test"):
            masks = torch.stack([data[f"{other}_mask"] for data in data_set[index]])
            assert masks[:, :5].all() if other == name else not masks.any()
            assert not masks[:, 5:].any()
    # Permutations are not in the order in which they are counted.
    assert mappings(data_set) != sorted(mappings(data_set))


def test_only_queries_are_learned(tmp_path):
    data_set = DictionaryLookup(4, str(tmp_path))
    module = GraphData(data_set, level="node", batch_size=8)
    assert module.facts["out_channels"] == data_set.num_classes == 4
    for loader, name in ((module.train_dataloader(), "train"), (module.test_dataloader(), "test")):
        for batch in loader:
            assert int(batch[f"{name}_mask"].sum()) == 4 * batch.num_graphs


def test_one_look_solves_it(tmp_path):
    """Attention by equal attributes reads the value, and the mean over all keys cannot."""
    data_set = DictionaryLookup(6, str(tmp_path), num_graphs=50)
    batch = next(iter(DataLoader(data_set, batch_size=50)))
    source, target = batch.edge_index
    alike = (batch.x[source, :6] * batch.x[target, :6]).sum(1, keepdim=True)
    values = batch.x[:, 6:12]
    queries = batch.x[:, 12] == 1
    read = torch.zeros_like(values).index_add(0, target, alike * values[source])
    assert torch.equal(read[queries].argmax(1), batch.y[queries])
    mean = torch.zeros_like(values).index_add(0, target, values[source])
    assert (mean[queries] == 1).all()


def test_graphs_are_a_function_of_the_seed(tmp_path, monkeypatch):
    first = DictionaryLookup(7, str(tmp_path), num_graphs=40)
    torch.manual_seed(7)
    again = DictionaryLookup(7, str(tmp_path / "again"), num_graphs=40)
    assert mappings(first) == mappings(again)
    assert mappings(DictionaryLookup(7, str(tmp_path), num_graphs=40, seed=1)) != mappings(first)
    monkeypatch.setattr(DictionaryLookup, "process", lambda self: 1 / 0)
    assert mappings(DictionaryLookup(7, str(tmp_path), num_graphs=40)) == mappings(first)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"k": 2}, "k must be an int of at least 3 .got 2"),
        ({"k": 4.0}, "k must be an int of at least 3 .got 4.0"),
        ({"num_graphs": 2}, "num_graphs must be an int of at least 3 .got 2"),
    ],
)
def test_bad_arguments(tmp_path, args, message):
    with pytest.raises(InputError, match=message):
        DictionaryLookup(root=str(tmp_path), **args)
