import re
import shutil

import numpy as np
import onnx
import pytest
import torch
import yaml
from PIL import Image

from pyg_avig.models.exported_onnx import OnnxModel
from pyg_avig.train import export_int8, load_classifier
from pyg_avig.train.cli import main


def config(folder, name, **args):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"data": {"class_path": name, "init_args": args}}))
    return str(path)


@pytest.fixture(scope="module")
def small(checkpoint, tmp_path_factory):
    """An export in eight bits of a model that has hardly learned, and what was printed."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_int8, "LOSS", 1.0)
        assert main(["export", checkpoint, str(path), "--quantize=int8"]) == 0
    return path


@pytest.mark.slow
def test_maps_are_in_eight_bits_and_attention_is_not(small):
    graph = onnx.load(small).graph
    made_by = {output: node for node in graph.node for output in node.output}
    stored = {x.name: onnx.numpy_helper.to_array(x).dtype for x in graph.initializer}

    def is_dequantized(name):
        return name in made_by and made_by[name].op_type == "DequantizeLinear"

    maps = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    products = [n for n in maps if not any(is_dequantized(name) for name in n.input)]
    assert len(products) == 2 * 2 * 4  # Similarities and sums, rows and columns, in four stages.
    assert {n.op_type for n in products} == {"MatMul"}
    weights = {made_by[n.input[1]].input[0] for n in maps if n not in products}
    assert {stored[name] for name in weights} == {np.dtype("int8")}
    exponentials = [node for node in graph.node if node.op_type == "Exp"]
    assert exponentials
    assert not any(is_dequantized(node.input[0]) for node in exponentials)


@pytest.mark.slow
def test_it_gives_nearly_what_the_checkpoint_gives(small, checkpoint, tmp_path, capsys):
    model, classifier = OnnxModel(small), load_classifier(checkpoint)
    images = torch.randn(8, 1, 32, 32).clamp(-1, 1)
    with torch.no_grad():
        expected = classifier(images)
    assert (model(images) - expected).norm() < 0.3 * expected.norm()
    Image.linear_gradient("L").save(tmp_path / "a.png")
    assert main(["predict", str(small), f"{tmp_path}/a.png"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/a.png\t")
    assert model.description["classes"] == classifier.hparams["classes"]


@pytest.mark.slow
def test_a_loss_of_accuracy_leaves_the_old_file(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        export_int8, "_quantize", lambda whole, small, data: shutil.copy(whole, small)
    )
    found = iter([0.9, 0.87, 0.9, 0.89])
    monkeypatch.setattr(export_int8, "_accuracy", lambda model, data: next(found))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    words = ["export", checkpoint, str(path), "--quantize=int8"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "at most 0.02 in eight bits (got accuracy on the validation split: 0.8700 in" in error
    assert "nothing was written" in error
    assert path.read_bytes() == b"old"
    assert main(words) == 0
    assert "0.8900 in int8, 0.9000 in fp32" in capsys.readouterr().err
    assert path.read_bytes() != b"old"


def test_data_of_others_are_refused(checkpoint, tmp_path, capsys):
    digits = list("0123456789")
    for name, args, message in (
        ("pyg_avig.data.FashionMNIST", {}, "10 classes, 0, 1, 2, ... .got 10: T-shirt"),
        ("pyg_avig.data.Images", {"root": "a", "classes": digits}, "1 channels, .* .got 3"),
        ("pyg_avig.data.DigitPixels", {}, "expected data ImageGraphDataModule .got DigitPixels"),
    ):
        words = ["--quantize=int8", f"--calibration={config(tmp_path, name, **args)}"]
        assert main(["export", checkpoint, f"{tmp_path}/a.onnx", *words]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert re.search(message, error)
    assert not (tmp_path / "a.onnx").exists()


def test_without_its_run_a_checkpoint_needs_data(checkpoint, tmp_path, capsys):
    shutil.copy(checkpoint, tmp_path / "a.ckpt")
    words = ["export", f"{tmp_path}/a.ckpt", f"{tmp_path}/a.onnx", "--quantize=int8"]
    assert main(words) == 2
    assert "expected a checkpoint in the folder of its run, or --calibration" in (
        capsys.readouterr().err
    )
