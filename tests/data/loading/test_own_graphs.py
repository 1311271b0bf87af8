import csv

import pytest
import torch
from torch_geometric.data import Data

from pyg_avig import InputError
from pyg_avig.data import OwnGraphs

SMILES = ["C", "CC", "CCO", "c1ccccc1", "CC(=O)O", "CN", "CCN", "CCC", "CO", "C=C"] * 3


def graph(nodes=5, y=0, **fields):
    edges = torch.arange(nodes).repeat(2, 1)
    edges[1] = edges[1].roll(1)
    return Data(x=torch.rand(nodes, 3), edge_index=edges, y=torch.as_tensor(y), **fields)


def folder(path, graphs):
    path.mkdir(parents=True, exist_ok=True)
    for n, one in enumerate(graphs):
        torch.save(one, path / f"{n}.pt")
    return path


def table(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


@pytest.mark.parametrize(
    ("label", "level", "task", "outputs"),
    [
        (lambda n: [n % 3], "graph", "multiclass", 3),
        (lambda n: n % 2, "graph", "multiclass", 2),
        (lambda n: [0.5 * n], "graph", "regression", 1),
        (lambda n: [[0.5, n]], "graph", "regression", 2),
        (lambda n: [[1.0, n % 2, 0]], "graph", "multilabel", 3),
        (lambda n: [0, 1, 2, 1, 0], "node", "multiclass", 3),
    ],
)
def test_what_is_learned_follows_the_labels(label, level, task, outputs, tmp_path):
    data = OwnGraphs(str(folder(tmp_path, [graph(y=label(n)) for n in range(20)])))
    assert (data.facts["level"], data.facts["task"]) == (level, task)
    assert data.facts["out_channels"] == outputs
    batch = next(iter(data.train_dataloader()))
    assert batch.num_graphs == data.batch_size == 8


def test_one_file_holds_several(tmp_path):
    torch.save([graph(y=[n % 2]) for n in range(20)], tmp_path / "all.pt")
    data = OwnGraphs(str(tmp_path / "all.pt"))
    assert [len(data.parts[name][1]) for name in ("train", "val", "test")] == [16, 2, 2]
    assert data.suggested_epochs == 200


def test_folders_of_splits_are_followed(tmp_path):
    for name, number in (("train", 6), ("valid", 3), ("test", 2)):
        folder(tmp_path / name, [graph(y=[n % 2]) for n in range(number)])
    data = OwnGraphs(str(tmp_path))
    assert [len(data.parts[name][1]) for name in ("train", "val", "test")] == [6, 3, 2]


def test_masks_of_nodes_are_followed(tmp_path):
    mask = torch.tensor([True, True, False, False, False])
    masks = {
        "train_mask": mask,
        "val_mask": mask.roll(2),
        "test_mask": mask.roll(3) & ~mask.roll(2),
    }
    one = graph(y=[0, 1, 0, 1, 0], **masks)
    data = OwnGraphs(str(folder(tmp_path, [one])))
    (batch,) = data.train_dataloader()
    assert batch.train_mask.sum() == 2


def test_a_table_of_molecules(tmp_path):
    pytest.importorskip("rdkit")
    rows = [[smiles, len(smiles) / 2, ""] for smiles in SMILES]
    path = table(tmp_path / "a.csv", ["smiles", "size", "note"], rows)
    data = OwnGraphs(path, targets=["size"])
    assert (data.facts["task"], data.facts["in_channels"]) == ("regression", 177)
    assert data.facts["mean"][0] == pytest.approx(1.75, abs=1)


@pytest.mark.parametrize(
    ("header", "cells", "task", "classes"),
    [
        (["SMI", "kind"], lambda n: ["ab"[n % 2]], "multiclass", ["a", "b"]),
        (["SMI", "kind"], lambda n: [n % 2], "multiclass", None),
        (["SMI", "a", "b"], lambda n: [n % 2, ""], "multilabel", ["a", "b"]),
        (["SMI", "a", "b"], lambda n: [n / 3, "" if n % 2 else 4], "regression", None),
    ],
)
def test_the_targets_of_a_table(header, cells, task, classes, tmp_path):
    pytest.importorskip("rdkit")
    rows = [[smiles, *cells(n)] for n, smiles in enumerate(SMILES)]
    data = OwnGraphs(table(tmp_path / "a.csv", header, rows), smiles="SMI")
    assert data.facts["task"] == task
    assert data.facts["classes"] == classes
    assert len(next(iter(data.train_dataloader())).y)


def own(path, content, **args):
    (path / "a.csv").write_text(content)
    return OwnGraphs(str(path / "a.csv"), **args)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: OwnGraphs(str(p / "nowhere")), "there is nothing at"),
        (lambda p: OwnGraphs(str(p)), "expected files *.pt"),
        (lambda p: OwnGraphs(str(folder(p, [torch.zeros(3)]))), "it holds Tensor"),
        (lambda p: OwnGraphs(str(folder(p, [Data(x=torch.zeros(3, 1))]))), "with labels y"),
        (lambda p: OwnGraphs(str(folder(p, [graph(y=[0, 1])]))), "labels y of shape"),
        (
            lambda p: OwnGraphs(str(folder(p, [graph(y=[0]), graph(y=[1], z=torch.ones(1))]))),
            "the same fields",
        ),
        (
            lambda p: OwnGraphs(str(folder(p, [graph(y=[n]) for n in range(9)])), task="foo"),
            "task must be one of",
        ),
        (
            lambda p: OwnGraphs(str(folder(p, [graph(y=[n]) for n in range(9)])), batch_size=0),
            "batch_size must be at least 1",
        ),
        (lambda p: own(p, ""), "with a row a molecule"),
        (lambda p: own(p, "smiles,y\n"), "with a row a molecule"),
        (lambda p: own(p, "a,y\nC,1\n"), "expected a column 'smiles'"),
        (lambda p: own(p, "smiles\nC\n"), "a column of targets"),
        (lambda p: own(p, "smiles,y\nC,1\n", targets=["z"]), "expected a column 'z'"),
        (lambda p: own(p, "smiles,y\nC,1,2,3\n"), "line 2: expected 2 cells"),
        (lambda p: own(p, "smiles,y\nC,a\nCC,b\n"), "several molecules of a class"),
        (lambda p: own(p, "smiles,y,z\nC,a,1\nCC,b,2\n"), "numbers in several columns"),
        (lambda p: own(p, "smiles,y\nC,a\nCC,\n"), "line 3: expected a class"),
    ],
)
def test_what_cannot_be_read_is_refused(make, message, tmp_path):
    with pytest.raises(InputError) as error:
        make(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_of_no_molecules_is_refused(tmp_path):
    pytest.importorskip("rdkit")
    with pytest.raises(InputError, match="that rdkit can parse"):
        own(tmp_path, "smiles,y\n" + "nonsense,1\n" * 5)
