import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from pyg_avig import InputError
from pyg_avig.train.checkpoint import load_classifier
from pyg_avig.train.cli import main
from pyg_avig.train.predict_images import _bar, _decoded


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


def test_folders_and_patterns_are_their_images(checkpoint, pictures, tmp_path, capsys):
    main(["predict", checkpoint, *pictures])
    each = capsys.readouterr().out
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    assert main(["predict", checkpoint, str(tmp_path)]) == 0
    assert capsys.readouterr().out == each
    words = [f"{tmp_path}/[0-3].*", f"{tmp_path}/[4-9].*"]
    assert main(["predict", checkpoint, *words]) == 0
    assert capsys.readouterr().out == each
    none = [f"{tmp_path}/empty", f"{tmp_path}/*.gif"]
    assert main(["predict", checkpoint, none[0], pictures[0], none[1]]) == 1
    captured = capsys.readouterr()
    assert captured.out == each.splitlines(keepends=True)[0]
    first, second, _ = captured.err.splitlines()
    assert first == f"{none[0]}: expected a folder with images (there are none)"
    assert second == f"{none[1]}: expected a pattern that images match (there are none)"


def test_forms_and_further_classes(checkpoint, pictures, capsys):
    def printed(*options):
        assert main(["predict", checkpoint, *pictures, *options]) == 0
        return capsys.readouterr().out

    lines = [line.split("\t") for line in printed("--top", "3").splitlines()]
    assert [line[:3] for line in lines] == [line.split("\t") for line in printed().splitlines()]
    assert all(float(a) >= float(b) >= float(c) for _, _, a, _, b, _, c in lines)
    assert len({*printed("--top=99").splitlines()[0].split("\t")[1::2]}) == 10
    header, *rows = csv.reader(printed("--top=3", "--format=csv").splitlines())
    assert header[:5] == ["path", "label", "probability", "label_2", "probability_2"]
    assert len(header) == 7
    assert rows == lines
    found = json.loads(printed("--format=json", "--top=3"))
    assert [image["path"] for image in found] == pictures
    assert [[str(p["label"]) for p in image["predictions"]] for image in found] == [
        line[1::2] for line in lines
    ]
    assert [[f"{p['probability']:.4f}" for p in image["predictions"]] for image in found] == [
        line[2::2] for line in lines
    ]


def test_json_of_nothing_is_json(checkpoint, capsys):
    assert main(["predict", checkpoint, "missing.png", "--format=json"]) == 1
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("option", ["--top=0", "--batch_size=0", "--format=xml"])
def test_options_that_are_none_are_named(option, checkpoint, pictures, capsys):
    try:
        status = main(["predict", checkpoint, pictures[0], option])
    except SystemExit as exit:  # The parser's own.
        status = exit.code
    assert status == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert option[2:].split("=")[0] in captured.err


def test_a_bar_is_shown_where_the_lines_go_elsewhere(checkpoint, pictures, monkeypatch, capsys):
    shown = []
    for out, err in ((False, True), (True, True), (False, False)):
        monkeypatch.setattr(sys.stdout, "isatty", lambda out=out: out)
        monkeypatch.setattr(sys.stderr, "isatty", lambda err=err: err)
        with _bar(2) as bar:
            files = [1, 2]
            shown.append(bar(files) is not files)
    assert shown == [True, False, False]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["predict", checkpoint, *pictures]) == 0
    captured = capsys.readouterr()
    assert [line.split("\t")[0] for line in captured.out.splitlines()] == pictures
    assert "images a second" in captured.err


def test_threads_read_ahead_but_not_far_and_in_order():
    reading, paths = [], [str(n) for n in range(50)]

    def read(path):
        reading.append(path)
        if path == "3":
            raise InputError("broken")
        return torch.tensor(int(path))

    decoded = _decoded(paths, read, ahead=4)
    first = [next(decoded) for _ in range(5)]
    assert [path for path, _ in first] == paths[:5]
    assert isinstance(first[3][1], InputError)
    assert len(reading) <= 10
    decoded.close()
    assert len(reading) <= 10


def test_unreadable_files_are_named_and_the_others_done(checkpoint, pictures, tmp_path, capsys):
    truncated, text = tmp_path / "truncated.png", tmp_path / "text.png"
    whole = tmp_path / "0.png"
    truncated.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    text.write_text("no picture")
    bad = [str(truncated), str(text), str(tmp_path / "missing.png")]
    assert main(["predict", checkpoint, bad[0], pictures[0], *bad[1:], pictures[1]]) == 1
    captured = capsys.readouterr()
    assert [line.split("\t")[0] for line in captured.out.splitlines()] == pictures[:2]
    *errors, speed = captured.err.splitlines()
    assert [line.split(": expected a readable image file")[0] for line in errors] == bad
    assert re.fullmatch(r"2 images in [\d.]+ s, [\d.]+ images a second", speed)


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
