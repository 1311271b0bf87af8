import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from data.scenes import picture
from faster_coco_eval import COCO, mask
from PIL import Image

from pyg_avig.train.cli import main
from pyg_avig.train.predict_scenes import coco_results, draw_classes, draw_objects


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / "139.png", tmp_path / "street.jpg"]
    for n, path in enumerate(paths):
        picture(path, (70 + n, 50), n)
    return [str(path) for path in paths]


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def test_a_detector_writes_results_and_drawings(detector_checkpoint, pictures, tmp_path):
    out = tmp_path / "out"
    assert main(["predict", detector_checkpoint, *pictures, "--out", str(out)]) == 0
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.*")) == [
        "drawn/139.png",
        "drawn/street.png",
        "results.json",
    ]
    assert pixels(out / "drawn/street.png").shape == (50, 71, 3)
    results = json.loads((out / "results.json").read_text())
    for result in results:
        assert set(result) == {"image_id", "category_id", "bbox", "score", "segmentation"}
        assert result["image_id"] in (139, pictures[1])
        assert 1 <= result["category_id"] <= 10


FOUND = {
    "boxes": torch.tensor([[2.0, 3.0, 10.0, 9.0], [0.0, 0.0, 4.0, 4.0]]),
    "labels": torch.tensor([2, 1]),
    "scores": torch.tensor([0.75, 0.25]),
    "masks": torch.zeros(2, 20, 30, dtype=torch.bool),
}
FOUND["masks"][0, 3:9, 2:10] = True


def test_results_are_those_of_coco():
    """COCO's own reader takes them, with the categories' ids."""
    annotation = {"category_ids": [3, 7]}
    results = coco_results(FOUND, annotation, "images/000139.jpg")
    assert [result["category_id"] for result in results] == [7, 3]
    assert results[0]["bbox"] == [2, 3, 8, 6]
    assert mask.decode(results[0]["segmentation"]).sum() == 48
    truth = COCO(
        {
            "images": [{"id": 139, "width": 30, "height": 20}],
            "annotations": [],
            "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}],
        }
    )
    assert len(truth.loadRes(json.loads(json.dumps(results))).anns) == 2


def test_what_is_sure_is_drawn():
    image = torch.full((3, 20, 30), 128, dtype=torch.uint8)
    drawn = draw_objects(image, FOUND, ["a", "b"], 0.5)
    assert drawn.shape == image.shape
    changed = (drawn != image).any(0)
    assert changed[FOUND["masks"][0]].all()
    assert torch.equal(draw_objects(image, FOUND, ["a", "b"], 0.9), image)
    labels = torch.zeros(20, 30, dtype=torch.long)
    labels[:10] = 1
    colours = draw_classes(image, labels, 2)
    assert len(colours.flatten(1).unique(dim=1).T) == 2


def test_a_segmenter_writes_labels_and_drawings(segmenter_checkpoint, pictures, tmp_path):
    out = tmp_path / "out"
    assert main(["predict", segmenter_checkpoint, *pictures, "--out", str(out)]) == 0
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*.*")) == [
        "drawn/139.png",
        "drawn/street.png",
        "labels/139.png",
        "labels/street.png",
    ]
    labels = pixels(out / "labels/street.png")
    assert labels.shape == (50, 71)
    assert labels.max() <= 10


def test_labels_are_those_of_the_data(segmenter_checkpoint, pictures, tmp_path):
    content = torch.load(segmenter_checkpoint, weights_only=True)
    content["hyper_parameters"]["annotation"]["values"] = list(range(20, 31))
    torch.save(content, tmp_path / "other.ckpt")
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "other.ckpt"), pictures[0], "--out", str(out)]) == 0
    assert pixels(out / "labels/139.png").min() >= 20


def test_unreadable_files_are_named_and_the_others_done(
    segmenter_checkpoint, pictures, tmp_path, capsys
):
    (tmp_path / "text.png").write_text("no picture")
    out = tmp_path / "out"
    files = [str(tmp_path / "text.png"), pictures[0]]
    assert main(["predict", segmenter_checkpoint, *files, "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert "text.png: expected a readable image file" in error
    assert "images a second" in error
    assert [p.name for p in out.rglob("*.png")] == ["139.png", "139.png"]


def test_an_image_too_narrow_to_be_resized_is_named(
    detector_checkpoint, pictures, tmp_path, capsys
):
    Image.new("RGB", (1000, 1)).save(tmp_path / "line.png")
    out = tmp_path / "out"
    files = [str(tmp_path / "line.png"), pictures[0]]
    assert main(["predict", detector_checkpoint, *files, "--out", str(out)]) == 1
    assert "line.png: expected images that are less than" in capsys.readouterr().err
    assert (out / "results.json").is_file()
    assert len(list(out.rglob("*.png"))) == 1


def test_a_folder_is_its_images(segmenter_checkpoint, pictures, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(pictures[0], tmp_path / "in")
    out = str(tmp_path / "out")
    assert main(["predict", segmenter_checkpoint, str(tmp_path / "in"), "--out", out]) == 0
    empty = [str(tmp_path / "in"), f"{tmp_path}/*.gif"]
    assert main(["predict", segmenter_checkpoint, *empty, "--out", out]) == 1
    assert len(list(Path(out).rglob("*.png"))) == 2


def refused(arguments, capsys):
    assert main(["predict", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


def test_what_does_not_fit_is_one_line(detector_checkpoint, checkpoint, pictures, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert "add --out FOLDER" in refused([detector_checkpoint, *pictures], capsys)
    message = refused([checkpoint, *pictures, "--out", out], capsys)
    assert "expected a detector or segmenter" in message
    twice = [detector_checkpoint, pictures[0], pictures[0], "--out", out]
    assert "different names (got '139' twice)" in refused(twice, capsys)
    unsure = [detector_checkpoint, pictures[0], "--out", out, "--threshold", "2"]
    assert "threshold must lie in [0, 1]" in refused(unsure, capsys)
    for option in ("--top=2", "--format=csv"):
        message = refused([detector_checkpoint, pictures[0], "--out", out, option], capsys)
        assert "expected a classifier of images, for --top and --format" in message
    assert "expected a folder" in refused(
        [detector_checkpoint, pictures[0], "--out", pictures[1]], capsys
    )


def test_a_checkpoint_of_another_task_is_one_line(detector_checkpoint, pictures, tmp_path, capsys):
    out, other = str(tmp_path / "out"), str(tmp_path / "other.ckpt")
    content = torch.load(detector_checkpoint, weights_only=True)
    torch.save({**content, "hyper_parameters": {"name": "of a task of their own"}}, other)
    assert "expected a checkpoint of `pyg-avig fit`" in refused([other, *pictures], capsys)
    for annotation, message in (({"of": "words"}, "{'of': 'words'}"), (None, "got None")):
        hparams = {**content["hyper_parameters"], "annotation": annotation}
        torch.save({**content, "hyper_parameters": hparams}, other)
        assert message in refused([other, pictures[0], "--out", out], capsys)


def test_weights_of_nan_are_no_prediction(detector_checkpoint, pictures, tmp_path, capsys):
    content = torch.load(detector_checkpoint, weights_only=True)
    name = next(name for name in content["state_dict"] if name.endswith("cls_score.bias"))
    content["state_dict"][name].fill_(torch.nan)
    torch.save(content, tmp_path / "nan.ckpt")
    message = refused(
        [str(tmp_path / "nan.ckpt"), pictures[0], "--out", str(tmp_path / "out")], capsys
    )
    assert "expected finite weights" in message
    assert not (tmp_path / "out").exists()
