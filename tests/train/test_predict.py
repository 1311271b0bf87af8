import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pyg_avig import InputError
from pyg_avig.train.checkpoint import load_classifier
from pyg_avig.train.cli import main


@pytest.fixture
def pictures(tmp_path):
    paths = []
    for i, mode in enumerate(["L", "RGB", "RGBA", "P", "CMYK", "1", "I;16"]):
        array = np.random.default_rng(i).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        image = Image.fromarray(array)
        suffix = "jpg" if mode == "CMYK" else "png"
        if mode == "I;16":
            image = Image.fromarray(array[..., 0].astype(np.uint16) * 257)
        else:
            image = image.convert(mode)
        path = tmp_path / f"{i}.{suffix}"
        image.save(path)
        paths.append(str(path))
    return paths


def test_prints_a_line_a_file(checkpoint, pictures, capsys):
    assert main(["predict", checkpoint, *pictures]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == pictures
    assert all(label in "0123456789" and 0.1 <= float(p) <= 1 for _, label, p in lines)


def test_batches_do_not_matter(checkpoint, pictures, capsys):
    main(["predict", checkpoint, *pictures])
    together = capsys.readouterr().out
    main(["predict", checkpoint, *pictures, "--batch_size", "1"])
    assert capsys.readouterr().out == together


def test_unreadable_files_are_named_and_the_others_done(checkpoint, pictures, tmp_path, capsys):
    truncated, text = tmp_path / "truncated.png", tmp_path / "text.png"
    whole = tmp_path / "0.png"
    truncated.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    text.write_text("no picture")
    bad = [str(truncated), str(text), str(tmp_path / "missing.png"), str(tmp_path)]
    assert main(["predict", checkpoint, bad[0], pictures[0], *bad[1:], pictures[1]]) == 1
    captured = capsys.readouterr()
    assert [line.split("\t")[0] for line in captured.out.splitlines()] == pictures[:2]
    errors = captured.err.splitlines()
    assert [line.split(": expected a readable image file")[0] for line in errors] == bad


def test_weights_of_nan_are_no_prediction(tmp_path, checkpoint, pictures, capsys):
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["model.head.classifier.bias"].fill_(torch.nan)
    torch.save(content, tmp_path / "nan.ckpt")
    assert main(["predict", str(tmp_path / "nan.ckpt"), pictures[0]]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "logits are NaN" in captured.err


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_what_is_no_checkpoint_is_named(tmp_path, content, capsys):
    path = tmp_path / "model.ckpt"
    if content is not None:
        path.write_bytes(content)
    assert main(["predict", str(path), "a.png"]) == 2
    assert f"{path}" in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_named(tmp_path, checkpoint):
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {"fc.weight": torch.zeros(3)}}, path)
    with pytest.raises(InputError, match="expected a checkpoint of `pyg-avig fit`"):
        load_classifier(path)
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["name"] = "attentionvig_s"
    content["hyper_parameters"]["model_args"] = None
    torch.save(content, path)
    with pytest.raises(InputError, match="expected the weights of attentionvig_s"):
        load_classifier(path)


def test_file_names_are_bytes(checkpoint, tmp_path):
    """As a file system has them, whatever the text encoding."""
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    with open(name, "wb") as file:
        Image.new("L", (32, 32)).save(file, "png")
    run = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "pyg_avig",
            "predict",
            checkpoint,
            name,
            name + b"x",
        ],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"},
        capture_output=True,
    )
    assert run.returncode == 1, run.stderr
    assert run.stdout.split(b"\t")[0] == name
    assert b"Traceback" not in run.stderr
