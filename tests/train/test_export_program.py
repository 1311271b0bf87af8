import csv
import json
import subprocess
import sys

import pytest
import torch
from PIL import Image
from torch import nn
from torch.export import Dim
from torch_geometric.data import Batch, Data

from pyg_avig import InputError
from pyg_avig.models.exported_onnx import OnnxGraphs, OnnxModel
from pyg_avig.train import GraphTask, ImageClassifier, load_classifier
from pyg_avig.train.cli import main
from pyg_avig.train.export_program import export_classifier, export_graph_task, write_program

BATCH = ({0: Dim("batch", min=1)},)


def write(path, model):
    examples = [(torch.ones(2, 3),), (torch.ones(1, 3),)]
    write_program(path, model, ["x"], BATCH, examples, {"a": [1]}, "y")


@pytest.fixture(scope="module")
def onnx(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    assert main(["export", checkpoint, str(path)]) == 0
    return path


@pytest.mark.slow
def test_onnx_gives_what_the_checkpoint_gives(onnx, checkpoint, tmp_path, capsys):
    model, classifier = OnnxModel(onnx), load_classifier(checkpoint)
    assert (model.inputs, model.outputs) == (["images"], ["logits"])
    for batch in (1, 4):
        images = torch.randn(batch, 1, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(model(images), classifier(images), atol=1e-5, rtol=1e-4)
    paths = [str(tmp_path / name) for name in ("a.png", "b.png")]
    Image.linear_gradient("L").save(paths[0])
    Image.radial_gradient("L").convert("RGB").resize((50, 30)).save(paths[1])
    lines = []
    for file in (str(onnx), checkpoint):
        assert main(["predict", file, *paths]) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1]
    assert [path.name for path in onnx.parent.iterdir()] == ["model.onnx"]


@pytest.mark.slow
def test_a_program_of_torch_needs_nothing_of_ours(checkpoint, tmp_path, capsys):
    path = tmp_path / "model.pt2"
    assert main(["export", checkpoint, str(path)]) == 0
    images = torch.randn(3, 1, 32, 32)
    torch.save(images, tmp_path / "images.pt")
    program = f"""
import sys
sys.modules["pyg_avig"] = None
import torch
extra = {{"pyg_avig.json": ""}}
model = torch.export.load({str(path)!r}, extra_files=extra).module()
torch.save(model(torch.load({str(tmp_path / "images.pt")!r})), {str(tmp_path / "logits.pt")!r})
print(extra["pyg_avig.json"])
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    classifier = load_classifier(checkpoint)
    with torch.no_grad():
        expected = classifier(images)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, atol=1e-5, rtol=1e-4)
    assert json.loads(run.stdout)["classes"] == classifier.hparams["classes"]
    assert main(["predict", str(path), "a.png"]) == 2
    assert "can run code of the file" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("args", [{}, {"variant": "public", "conv": "cross_attention"}])
def test_sag_vit_takes_any_batch(args, tmp_path):
    small = {"backbone": "resnet10t", "conv_channels": 8, "conv_heads": 2, "embed_dim": 16}
    data = {"input_size": [3, 80, 96], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9}
    classifier = ImageClassifier(["a", "b"], data, name="sag_vit", model_args={**small, **args})
    export_classifier(tmp_path / "model.pt2", classifier.eval())
    model = torch.export.load(tmp_path / "model.pt2").module()
    for batch in (1, 3, 5):
        images = torch.randn(batch, 3, 80, 96)
        with torch.no_grad():
            torch.testing.assert_close(model(images), classifier(images), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_programs_in_half_precision(checkpoint, tmp_path):
    path = tmp_path / "model.pt2"
    assert main(["export", checkpoint, str(path), "--precision=bf16"]) == 0
    images, classifier = torch.randn(3, 1, 32, 32), load_classifier(checkpoint)
    with torch.no_grad():
        found, expected = torch.export.load(path).module()(images), classifier(images)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0.1)


@pytest.mark.slow
def test_lattices_follow_the_size_of_images(tmp_path):
    data = {"input_size": [1, 64, 64], "mean": [0.5], "std": [0.5], "crop_pct": 1.0}
    args = {"channels": [8] * 4, "irb_depths": [0] * 4, "head_hidden_size": 8, "layer_scale": 1.0}
    classifier = ImageClassifier(["a", "b"], data, model_args=args).eval()
    export_classifier(tmp_path / "model.onnx", classifier, dynamic_size=True)
    program = OnnxModel(tmp_path / "model.onnx")
    for batch, *size in ((1, 64, 64), (2, 96, 160), (1, 640, 64)):
        images = torch.randn(batch, 1, *size)
        with torch.no_grad():
            torch.testing.assert_close(program(images), classifier(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("args", [{"name": "resnet10t"}, {"model_args": {"graph": "knn"}}])
def test_other_models_take_one_size(args, tmp_path):
    data = {"input_size": [3, 64, 64], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}
    classifier = ImageClassifier(["a", "b"], data, **args).eval()
    with pytest.raises(InputError, match="expected an AttentionViG on axial graphs"):
        export_classifier(tmp_path / "model.onnx", classifier, dynamic_size=True)


def task_of(level="graph", task="multiclass", edge_dim=None, pos_dim=None, **args):
    facts = {
        "level": level,
        "task": task,
        "in_channels": 4,
        "out_channels": 3,
        "edge_dim": edge_dim,
        "pos_dim": pos_dim,
        "classes": None,
        "mean": [100.0, 0.0, 1.0],
        "std": [10.0, 1.0, 2.0],
    }
    return GraphTask(facts, {"channels": 8, "num_blocks": 2, **args}).eval()


def graph(nodes, edges):
    return Data(
        x=torch.randn(nodes, 4),
        edge_index=torch.randint(nodes, (2, edges)),
        edge_attr=torch.randn(edges, 2),
        pos=torch.randn(nodes, 2),
        edge_label_index=torch.randint(nodes, (2, 5)),
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "names"),
    [
        ({"task": "regression", "pool": ["mean", "max"]}, ["x", "edge_index", "num_nodes"]),
        (
            {"pos": "relative", "pos_dim": 2, "aggregation": "gatv2"},
            ["x", "edge_index", "pos", "num_nodes"],
        ),
        (
            {"level": "edge", "edge_dim": 2},
            ["x", "edge_index", "edge_attr", "edge_label_index"],
        ),
    ],
)
def test_graphs_are_edge_lists(task, names, tmp_path):
    task = task_of(**task)
    for suffix in ("onnx", "pt2"):
        export_graph_task(tmp_path / f"model.{suffix}", task)
    model = OnnxModel(tmp_path / "model.onnx", ["facts", "model_args"])
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert (model.inputs, model.outputs) == (names, ["predictions"])
    for sizes in ([(9, 20), (4, 0), (1, 1)], [(6, 8)]):
        batch = Batch.from_data_list([graph(*size) for size in sizes])
        fields = {**batch.to_dict(), "num_nodes": batch.ptr.diff()}
        with torch.no_grad():
            expected = task(batch)
        found = [model(*(fields[n] for n in names)), program({n: fields[n] for n in names})]
        with torch.no_grad():
            found.append(OnnxGraphs(model, task.model.edge_dim)(batch))
        for output in found:
            torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


def test_a_model_that_makes_its_graph_is_refused(tmp_path):
    for args in (
        {"graph": "knn", "graph_args": {"k": 2, "of": "x"}},
        {"pos": "conv", "pos_dim": 2},
    ):
        with pytest.raises(InputError, match="expected a model on the edges at hand"):
            export_graph_task(tmp_path / "model.onnx", task_of(**args))


def test_options_of_images_are_refused_for_graphs(tmp_path, capsys):
    task = task_of("node")
    content = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    torch.save(content, tmp_path / "a.ckpt")
    words = ["export", f"{tmp_path}/a.ckpt", f"{tmp_path}/a.pt2", "--precision=bf16"]
    assert main(words) == 2
    assert "expected a classifier of images, for --precision" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_exports_graphs_but_not_as_a_folder(tmp_path, capsys):
    task = task_of("node")
    content = {"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams)}
    torch.save(content, tmp_path / "a.ckpt")
    assert main(["export", f"{tmp_path}/a.ckpt", f"{tmp_path}/out/"]) == 2
    assert "*.safetensors, *.onnx, *.pt2, for a model of graphs" in capsys.readouterr().err
    assert main(["export", f"{tmp_path}/a.ckpt", f"{tmp_path}/a.onnx"]) == 0
    torch.save([graph(6, 9), graph(3, 1)], tmp_path / "g.pt")
    tables = []
    for model in ("a.ckpt", "a.onnx"):
        out = tmp_path / f"{model}.csv"
        words = [f"{tmp_path}/{model}", f"{tmp_path}/g.pt", f"--out={out}"]
        assert main(["predict", *words]) == 0
        header, *rows = csv.reader(out.read_text().splitlines())
        tables.append(([row[:4] for row in rows], [list(map(float, row[4:])) for row in rows]))
    assert header[:4] == ["file", "graph", "node", "class"]
    assert tables[0][0] == tables[1][0]
    torch.testing.assert_close(*(torch.tensor(t) for _, t in tables), atol=1e-5, rtol=1e-4)
    for suffix in ("onnx", "pt2"):
        assert main(["export", f"{tmp_path}/a.{suffix}", f"{tmp_path}/b.safetensors"]) == 2
        assert "expected a checkpoint, or" in capsys.readouterr().err
    assert not (tmp_path / "b.safetensors").exists()


class OtherWhenTraced(nn.Module):
    def forward(self, x):
        return x + 1 if torch.compiler.is_compiling() else x


class OfTheBatch(nn.Module):
    def forward(self, x):
        return x * len(x)  # A number, which the program keeps.


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Eigenvalues(nn.Module):
    def forward(self, x):
        return torch.linalg.eigvalsh(x.unsqueeze(-1) * x.unsqueeze(-2))


@pytest.mark.parametrize(
    ("model", "suffix", "message"),
    [
        (OtherWhenTraced(), "pt2", "from torch.export, to 0.0001 .got some that differ by 1"),
        (OtherWhenTraced(), "onnx", "from onnxruntime, to 0.0001"),
        (OfTheBatch(), "pt2", "torch.export can take .*batch.*constant .2"),
        (Branches(), "onnx", "onnxruntime can take .*data-dependent"),
        (Eigenvalues(), "onnx", "onnxruntime can take .*eig"),
    ],
)
def test_what_cannot_be_right_leaves_the_old_file(model, suffix, message, tmp_path):
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=message) as error:
        write(path, model)
    assert len(str(error.value).splitlines()) == 1
    assert "nothing was written" in str(error.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"expected {package} .*pyg_avig\[onnx\]"):
        write(tmp_path / "model.onnx", nn.Identity())
    assert list(tmp_path.iterdir()) == []
