import csv
import json

import pytest
import torch
import yaml
from data.loading.test_graph_data import Graphs
from data.neighbors import Connected
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.transforms import Constant, RandomLinkSplit

from pyg_avig import InputError
from pyg_avig.data import GraphData, OwnGraphs, molecule_graph
from pyg_avig.models import load_exported_vig
from pyg_avig.train import GraphTask, load_graph_task
from pyg_avig.train.cli import main

SMALL = {"channels": 8, "num_blocks": 1}


class Classes(Graphs):
    classes = ("a", "b", "c")


class Sizes(Graphs):
    def __init__(self):
        super().__init__(label=lambda n: torch.tensor([1000.0 + n]))


class Labels(Graphs):
    def __init__(self):
        super().__init__(label=lambda n: torch.tensor([[float(n > 9), float(n < 5)]]))


class Linked(InMemoryDataset):
    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        graphs = [
            Data(
                x=torch.randn(n, 4, generator=draw),
                edge_index=torch.randint(n, (2, 5 * n), generator=draw),
            )
            for n in (12, 15)
        ]
        self.data, self.slices = self.collate(graphs)


def make(folder, dataset, **data):
    """A checkpoint and a config of a task on a data set."""
    transform = data.pop("transform", None)
    graphs = GraphData(dataset(), **data, transform=[RandomLinkSplit()] if transform else None)
    task = GraphTask(graphs.facts, SMALL).eval()
    for norm in task.modules():  # So that no output is near another.
        if isinstance(norm, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(norm.running_mean)
    content = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    torch.save(content, folder / "model.ckpt")
    args = {"dataset": f"train.test_predict_graphs.{dataset.__name__}", **data}
    if dataset is Connected:
        args["dataset"] = "data.neighbors.Connected"
    if transform:
        args["transform"] = [{"class_path": "torch_geometric.transforms.RandomLinkSplit"}]
    config = {"data": {"class_path": "pyg_avig.data.GraphData", "init_args": args}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return task, graphs


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def predict(folder, *words, model="model.ckpt"):
    status = main(["predict", str(folder / model), *words, f"--out={folder}/out.csv"])
    return status, rows(folder / "out.csv") if status < 2 else None


def numbers(table, prefix="probability_"):
    return torch.tensor(
        [[float(v) for k, v in row.items() if k.startswith(prefix)] for row in table]
    )


def test_classes_of_graphs_in_files(tmp_path, capsys):
    task, _ = make(tmp_path, Classes)
    files = [str(tmp_path / name) for name in ("one.pt", "two.pt")]
    torch.save(Classes()[3], files[0])
    torch.save([Classes()[5], Classes()[7]], files[1])
    status, table = predict(tmp_path, *files)
    assert status == 0
    assert "3 predictions in" in capsys.readouterr().err
    assert [(row["file"], row["graph"]) for row in table] == [
        (files[0], "0"),
        (files[1], "0"),
        (files[1], "1"),
    ]
    with torch.no_grad():
        expected = torch.cat([task(Classes()[n]).softmax(-1) for n in (3, 5, 7)])
    torch.testing.assert_close(numbers(table), expected, atol=1e-5, rtol=1e-4)
    assert [row["class"] for row in table] == ["abc"[n] for n in expected.argmax(-1)]
    assert list(table[0]) == ["file", "graph", "class", *(f"probability_{n}" for n in "abc")]


def test_the_splits_of_a_config(tmp_path):
    task, graphs = make(tmp_path, Classes, batch_size=3)
    status, table = predict(tmp_path, f"--config={tmp_path}/config.yaml")
    assert status == 0
    assert {row["split"] for row in table} == {"train", "val", "test"}
    assert sorted(int(row["graph"]) for row in table) == list(range(20))
    with torch.no_grad():
        expected = torch.cat([task(Classes()[int(row["graph"])]).softmax(-1) for row in table])
    torch.testing.assert_close(numbers(table), expected, atol=1e-5, rtol=1e-4)
    _, table = predict(tmp_path, f"--config={tmp_path}/config.yaml", "--split=test")
    assert [int(row["graph"]) for row in table] == graphs.parts["test"][1]


@pytest.mark.parametrize("num_neighbors", [None, [2]])
def test_nodes_are_those_of_their_split(num_neighbors, tmp_path, neighbor_sampler):
    task, _ = make(tmp_path, Connected, level="node", batch_size=8, num_neighbors=num_neighbors)
    config = f"--config={tmp_path}/config.yaml"
    graph = Connected()[0]
    with torch.no_grad():
        expected = task(graph).softmax(-1)
    for split in ("train", "val", "test"):
        _, table = predict(tmp_path, config, f"--split={split}")
        nodes = [int(row["node"]) for row in table]
        assert nodes == graph[f"{split}_mask"].nonzero().flatten().tolist()
        torch.testing.assert_close(numbers(table), expected[nodes], atol=1e-5, rtol=1e-4)
    torch.save(graph, tmp_path / "graph.pt")
    _, table = predict(tmp_path, str(tmp_path / "graph.pt"))
    assert [int(row["node"]) for row in table] == list(range(60))
    torch.testing.assert_close(numbers(table), expected, atol=1e-5, rtol=1e-4)


def test_pairs_of_nodes_in_several_graphs(tmp_path):
    task, graphs = make(tmp_path, Linked, level="edge", transform=True, batch_size=2)
    _, table = predict(tmp_path, f"--config={tmp_path}/config.yaml", "--split=train")
    assert {row["graph"] for row in table} == {"0", "1"}
    assert max(int(row["source"]) for row in table if row["graph"] == "0") < 12
    (batch,) = graphs.loader("train")
    with torch.no_grad():
        expected = task(batch).softmax(-1)
    source, target = batch.edge_label_index
    start = batch.ptr[batch.batch[source]]
    found = torch.tensor([[int(row["source"]), int(row["target"])] for row in table])
    assert torch.equal(found.T, torch.stack([source - start, target - start]))
    torch.testing.assert_close(numbers(table), expected, atol=1e-5, rtol=1e-4)


def test_numbers_are_in_their_unit_and_an_export_needs_no_statistics(tmp_path):
    task, _ = make(tmp_path, Sizes, task="regression")
    torch.save([Sizes()[n] for n in range(20)], tmp_path / "graphs.pt")
    _, table = predict(tmp_path, str(tmp_path / "graphs.pt"))
    with torch.no_grad():
        expected = torch.cat([task(graph) for graph in Sizes()])
    torch.testing.assert_close(numbers(table, "value_"), expected, atol=1e-2, rtol=1e-5)
    assert 900 < expected.mean() < 1100
    assert main(["export", f"{tmp_path}/model.ckpt", f"{tmp_path}/model.safetensors"]) == 0
    with torch.no_grad():
        model = load_exported_vig(tmp_path / "model.safetensors")
        torch.testing.assert_close(torch.cat([model(graph) for graph in Sizes()]), expected)
    _, again = predict(tmp_path, str(tmp_path / "graphs.pt"), model="model.safetensors")
    torch.testing.assert_close(numbers(again, "value_"), numbers(table, "value_"))


def test_several_labels_and_an_exported_model(tmp_path):
    task, _ = make(tmp_path, Labels, task="multilabel")
    torch.save(Labels()[4], tmp_path / "graph.pt")
    assert main(["export", f"{tmp_path}/model.ckpt", f"{tmp_path}/model.safetensors"]) == 0
    for model in ("model.ckpt", "model.safetensors"):
        _, (row,) = predict(tmp_path, str(tmp_path / "graph.pt"), model=model)
        assert list(row) == ["file", "graph", "probability_0", "probability_1"]
        with torch.no_grad():
            expected = task(Labels()[4]).sigmoid()
        torch.testing.assert_close(numbers([row]), expected, atol=1e-5, rtol=1e-4)
    exported = load_graph_task(tmp_path / "model.safetensors")
    assert exported.hparams["facts"] == json.loads(json.dumps(task.hparams["facts"]))


def test_parquet_has_what_csv_has(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    make(tmp_path, Classes)
    config = f"--config={tmp_path}/config.yaml"
    _, table = predict(tmp_path, config)
    out = f"--out={tmp_path}/out.parquet"
    assert main(["predict", f"{tmp_path}/model.ckpt", config, out]) == 0
    found = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["class"] for row in found] == [row["class"] for row in table]
    assert [row["graph"] for row in found] == [int(row["graph"]) for row in table]
    torch.testing.assert_close(numbers(found), numbers(table), atol=1e-5, rtol=1e-4)


def test_parquet_without_its_package_is_named(tmp_path, monkeypatch, capsys):
    make(tmp_path, Classes)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    words = [f"--config={tmp_path}/config.yaml", f"--out={tmp_path}/out.parquet"]
    assert main(["predict", f"{tmp_path}/model.ckpt", *words]) == 2
    assert "needs pyarrow: pip install pyarrow" in capsys.readouterr().err


def run_on_molecules(folder):
    """A run on own graphs, of a table whose molecules get a column more."""
    step = {"class_path": "torch_geometric.transforms.Constant", "init_args": {"cat": True}}
    lines = [f"{'C' * (n % 5 + 1)},{n % 5 + 0.5}" for n in range(20)]
    (folder / "known.csv").write_text("\n".join(["SMI,size", *lines]))
    data = {"root": str(folder / "known.csv"), "smiles": "SMI", "transform": [step]}
    config = {"data": {"class_path": "pyg_avig.data.OwnGraphs", "init_args": data}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    facts = OwnGraphs(data["root"], smiles="SMI", transform=[Constant()]).facts
    task = GraphTask(facts, SMALL).eval()
    (folder / "checkpoints").mkdir()
    content = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    return task


def test_a_table_of_new_molecules_is_read_as_that_of_the_training(tmp_path, capsys):
    pytest.importorskip("rdkit")
    task = run_on_molecules(tmp_path)
    (tmp_path / "known.csv").unlink()  # It is not needed any more.
    new = tmp_path / "new.csv"
    new.write_text("name,SMI\na,CCO\nb,nonsense\nc,c1ccccc1\n")
    best = "checkpoints/best.ckpt"
    status, table = predict(tmp_path, str(new), model=best)
    assert status == 1
    said = capsys.readouterr().err
    assert f"{new}, graph 1: expected SMILES of a molecule (got 'nonsense'" in said
    assert [(row["graph"], row["smiles"]) for row in table] == [("0", "CCO"), ("2", "c1ccccc1")]
    with torch.no_grad():
        graphs = [Constant()(molecule_graph(smiles)) for smiles in ("CCO", "c1ccccc1")]
        expected = torch.cat([task(graph) for graph in graphs])
    torch.testing.assert_close(numbers(table, "value_"), expected, atol=1e-4, rtol=1e-4)

    (tmp_path / "folder").mkdir()
    torch.save(molecule_graph("CCO"), tmp_path / "folder" / "a.pt")
    _, table = predict(tmp_path, str(tmp_path / "folder"), model=best)
    assert list(table[0]) == ["file", "graph", "value_0"]
    torch.testing.assert_close(numbers(table, "value_"), expected[:1], atol=1e-4, rtol=1e-4)


def test_a_graph_that_a_transform_cannot_take_is_named(tmp_path, capsys):
    pytest.importorskip("rdkit")
    run_on_molecules(tmp_path)
    torch.save(Data(x=3), tmp_path / "bad.pt")
    assert predict(tmp_path, str(tmp_path / "bad.pt"), model="checkpoints/best.ckpt")[0] == 2
    said, end = capsys.readouterr().err.splitlines()
    assert said.startswith(
        f"{tmp_path}/bad.pt, graph 0: expected a graph that Constant takes (got "
    )
    assert end == "pyg-avig: expected graphs to predict (got none in 1 files)"


def test_a_table_needs_the_config_of_its_training(tmp_path, capsys):
    pytest.importorskip("rdkit")
    (tmp_path / "run").mkdir()
    run_on_molecules(tmp_path / "run")
    (tmp_path / "run/checkpoints/best.ckpt").rename(tmp_path / "moved.ckpt")
    new = tmp_path / "new.csv"
    new.write_text("SMI\nCCO\n")
    assert predict(tmp_path, str(new), model="moved.ckpt")[0] == 2
    assert "--config FILE names it" in capsys.readouterr().err
    config = f"--config={tmp_path}/run/config.yaml"
    assert predict(tmp_path, str(new), config, model="moved.ckpt")[0] == 0
    new.write_text("smiles\nCCO\n")
    assert predict(tmp_path, str(new), config, model="moved.ckpt")[0] == 2
    assert "new.csv: expected a column 'SMI' (got smiles)" in capsys.readouterr().err


class Astray(Classes):
    def __getitem__(self, index):
        graph = super().__getitem__(index)
        return graph.update({"edge_index": graph.edge_index + 99})


def test_edges_of_a_data_set_that_name_no_node_are_one_line(tmp_path, capsys):
    make(tmp_path, Astray)
    assert predict(tmp_path, f"--config={tmp_path}/config.yaml")[0] == 2
    assert "IndexError: edge_index[0] must lie in the interval" in capsys.readouterr().err


FINE = {
    "x": torch.zeros(3, 4),
    "edge_index": torch.tensor([[0], [1]]),
    "edge_attr": torch.ones(1, 5),
}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"x": None}, "features x of shape .N, 4. and a floating dtype .got NoneType"),
        ({"x": torch.zeros(3, 5)}, "features x of shape .N, 4. .*got .3, 5."),
        ({"x": torch.zeros(3, 4, dtype=torch.long)}, "floating dtype .got .3, 4., torch.int64"),
        ({"edge_index": None}, "the field edge_index"),
        ({"edge_index": torch.tensor([[0], [3]])}, "edge_index in 0 to 2 .got 0 to 3"),
        (
            {"edge_index": torch.tensor([0, 1])},
            "edge_index as pairs of nodes .*got .2,., torch.int",
        ),
        ({"edge_index": torch.zeros(2, 3)}, "edge_index as pairs of nodes .*got .2, 3., torch.fl"),
        ({"edge_attr": None}, "the field edge_attr"),
        ({"edge_attr": torch.ones(1, 2)}, "edge_attr of shape .1, 5. .got .1, 2."),
        ({"edge_attr": torch.ones(2, 5)}, "edge_attr of shape .1, 5. .got .2, 5."),
    ],
)
def test_a_graph_that_the_model_cannot_take_is_named_and_the_others_done(
    fields, message, tmp_path, capsys
):
    make(tmp_path, Classes)
    torch.save(Data(**{**FINE, **fields}), tmp_path / "bad.pt")
    torch.save(Data(**FINE), tmp_path / "fine.pt")
    (tmp_path / "text.pt").write_text("no graph")
    files = [str(tmp_path / name) for name in ("bad.pt", "text.pt", "fine.pt")]
    status, table = predict(tmp_path, *files)
    assert status == 1
    assert [row["file"] for row in table] == files[2:]
    bad, text, rate = capsys.readouterr().err.splitlines()
    assert rate.startswith("1 predictions in ")
    assert bad.startswith(f"{files[0]}, graph 0: expected ")
    with pytest.raises(InputError, match=message):
        raise InputError(bad)
    assert text.startswith(f"{files[1]}: expected a Data of PyG")
    assert predict(tmp_path, files[0])[0] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "graph files, or a data set by --config"),
        (["a.pt", "--config={folder}/config.yaml"], "expected data OwnGraphs, to read files"),
        (["{folder}"], "expected files .*pt with Data of PyG .there are none"),
        (["a.pt", "--split=val"], "--config, for the split 'val'"),
        (["--config={folder}/config.yaml", "--split=all"], "split must be one of train, val, test"),
        (["--config={folder}/none.yaml"], "none.yaml: expected --config as a file or a name"),
        (["--config={folder}/model.ckpt"], "expected YAML"),
        (["--config={folder}/other.yaml"], "got one without data"),
        (["--config={folder}/digits.yaml"], "expected data GraphData .got Digits"),
        (["--config={folder}/wrong.yaml"], "expected data .*nothing"),
        (["--config={folder}/nodes.yaml"], "level 'graph', as the checkpoint's .got 'node'"),
        (["a.pt", "--out={folder}/out.txt"], "out as a file .*csv or .*parquet .got .*out.txt"),
    ],
)
def test_bad_words_are_named(words, message, tmp_path, capsys):
    make(tmp_path, Connected, level="node")
    (tmp_path / "config.yaml").rename(tmp_path / "nodes.yaml")
    make(tmp_path, Classes)
    (tmp_path / "other.yaml").write_text("model: 1\n")
    (tmp_path / "digits.yaml").write_text("data: {class_path: pyg_avig.data.Digits}\n")
    wrong = "data: {class_path: pyg_avig.data.GraphData, init_args: {nothing: 1}}\n"
    (tmp_path / "wrong.yaml").write_text(wrong)
    words = [word.format(folder=tmp_path) for word in words]
    out = [] if any("--out" in word for word in words) else [f"--out={tmp_path}/out.csv"]
    assert main(["predict", f"{tmp_path}/model.ckpt", *words, *out]) == 2
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    with pytest.raises(InputError, match=message):
        raise InputError(said)


def test_a_table_needs_a_name_and_images_no_table(tmp_path, checkpoint, capsys):
    make(tmp_path, Classes)
    assert main(["predict", f"{tmp_path}/model.ckpt", "a.pt"]) == 2
    assert "add --out FILE.csv" in capsys.readouterr().err
    assert main(["predict", checkpoint, f"--config={tmp_path}/config.yaml"]) == 2
    assert "expected a GraphTask, for --config" in capsys.readouterr().err
    assert main(["predict", checkpoint]) == 2
    assert "expected image files .got none" in capsys.readouterr().err.replace("(", ".")


def test_weights_that_are_no_numbers_predict_nothing(tmp_path, capsys):
    make(tmp_path, Classes)
    content = torch.load(tmp_path / "model.ckpt", weights_only=True)
    content["state_dict"]["model.head.0.bias"].fill_(torch.nan)
    torch.save(content, tmp_path / "model.ckpt")
    assert predict(tmp_path, f"--config={tmp_path}/config.yaml")[0] == 2
    assert "expected finite weights" in capsys.readouterr().err
