"""What a detector and a segmenter share, as the command line shows it."""

import json
import re
import sys

import numpy as np
import pytest
from data.scenes import coco_content, coco_tree, labels_tree, picture
from PIL import Image
from train.scene_runs import scene_options

from pyg_avig.train.cli import main


def said(arguments, capsys):
    """The last line of what a refused command says; the others are the trainer's."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    (line,) = [line for line in captured.err.splitlines() if line.startswith("pyg-avig: ")]
    assert captured.err.splitlines()[-1] == line
    return line


@pytest.mark.parametrize(
    ("task", "module"),
    [
        ("mask_rcnn", "faster_coco_eval"),
        ("semantic_fpn", "segmentation_models_pytorch.base"),
        ("coco", "faster_coco_eval"),
    ],
)
def test_a_missing_extra_is_one_line(task, module, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, module, None)
    arguments = ["fit", "--config=configs/own_data/masks.yaml", f"--data.root={tmp_path}"]
    if task == "coco":
        coco_tree(tmp_path)
    else:
        arguments = ["fit", *scene_options(task, tmp_path)]
    line = said(arguments, capsys)
    assert line.endswith(f'expected {module} (it is not installed): pip install "pyg_avig[dense]"')


def instances(root, change):
    content = coco_content()
    change(root, content)
    coco_tree(root)
    (root / "train.json").write_text(json.dumps(content))
    (root / "train" / "absent.png").unlink(missing_ok=True)


def first(content):
    return content["annotations"][0]


MISSING = {"id": 11, "file_name": "absent.png", "width": 48, "height": 40}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root, c: c["images"].append(MISSING), "1 of 4 images of .* are missing .*absent"),
        (lambda root, c: first(c).update(bbox=[4, 4, 0, 9]), "boxes of .* have no area"),
        (lambda root, c: first(c).update(bbox=[90, 4, 9, 9]), "no area within their image"),
        (
            lambda root, c: c["annotations"][2]["segmentation"].update(size=[9, 9]),
            r"annotation 3: expected a mask of its image's size \[40, 48\] \(got \[9, 9\]",
        ),
        (lambda root, c: c["annotations"].clear(), "expected objects .none of 3 images has any"),
    ],
)
def test_objects_that_do_not_fit_are_one_line(change, message, tmp_path, capsys):
    instances(tmp_path, change)
    arguments = ["fit", "--config=configs/own_data/masks.yaml", f"--data.root={tmp_path}"]
    line = said([*arguments, "--trainer.logger=false"], capsys)
    assert re.search(message, line)


def unlabelled(root):
    for path in (root / "labels" / "train").iterdir():
        path.unlink()
    (root / "labels" / "train").rmdir()


def beyond(root):
    for path in (root / "labels" / "train").iterdir():
        Image.fromarray(np.full_like(np.array(Image.open(path)), 2)).save(path)


def wide(root):
    for path in (root / "images" / "train").iterdir():
        picture(path, (99, 48))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unlabelled, "labels/train: expected a folder"),
        (beyond, "expected labels of 2 classes or to ignore .got 2"),
        (wide, "expected labels of the image's 99 x 48 pixels"),
    ],
)
def test_pixels_that_do_not_fit_are_one_line(change, message, workers, tmp_path, capsys):
    change(labels_tree(tmp_path))
    arguments = ["fit", "--config=configs/own_data/semantic.yaml", f"--data.root={tmp_path}"]
    arguments += [f"--data.num_workers={workers}", "--trainer.num_sanity_val_steps=0"]
    line = said([*arguments, "--trainer.logger=false"], capsys)
    assert re.search(message, line)


@pytest.mark.parametrize("task", ["mask_rcnn", "semantic_fpn"])
@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("attentionvig_nano", "2, 4, 8, 16; stem_strides [2, 2] would give them"),
        ("sag_vit", "4, 8, 16"),
        ("vit_tiny_patch16_224", "16, 16, 16"),
    ],
)
def test_a_backbone_without_features_is_one_line(task, name, got, tmp_path, capsys):
    more = [f"--model.init_args.name={name}", "--model.init_args.model_args=null"]
    line = said(["fit", *scene_options(task, tmp_path, *more)], capsys)
    assert "expected a backbone with features at strides 4, 8, 16 and 32" in line
    assert f"got {name} with {got}" in line
