import csv
import json
from pathlib import Path

import pytest
import timm
import torch
from data.scenes import coco_tree
from train.runs import fit_elsewhere, last_checkpoint
from train.scene_runs import scene_options

from pyg_avig import CrossAttnConv, InputError
from pyg_avig.train import Detector
from pyg_avig.train.cli import CLI, main
from pyg_avig.train.export import write_export

ANNOTATION = {"of": "instances", "masks": True, "classes": ["a", "b"], "category_ids": [3, 7]}
NANO = {"stem_strides": [2, 2], "channels": [8, 8, 8, 8]}
SMALL = {
    "pyramid_channels": 16,
    "box_features": 16,
    "mask_channels": [16],
    "anchor_sizes": [8, 16, 32, 64, 128],
    "min_size": 64,
    "max_size": 64,
}
BOXES = {key: value for key, value in SMALL.items() if key != "mask_channels"}


def detector(**args):
    args = {"name": "attentionvig_nano", "model_args": NANO, "detector_args": SMALL, **args}
    return Detector(ANNOTATION, **args)


def test_losses_and_average_precision_are_logged(trained_detector):
    path = Path(trained_detector.trainer.log_dir, "metrics.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    names = {f"val_{kind}_{at}" for kind in ("box", "mask") for at in ("ap", "ap50", "ap75")}
    assert names < set(rows[0])
    assert len([row for row in rows if row["val_mask_ap50"]]) == 2
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in names if row[name])
    assert all(float(row["train_loss_mask"]) > 0 for row in rows if row["train_loss"])


def test_a_detector_of_what_is_there_scores_one(monkeypatch):
    """Average precision counts objects as they are, and crowds neither way."""
    module = detector()
    boxes = torch.tensor([[2.0, 3, 20, 30], [30, 30, 50, 60]])
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[0, 3:30, 2:20] = masks[1, 30:60, 30:50] = 1
    target = {
        "boxes": boxes,
        "labels": torch.tensor([1, 2]),
        "masks": masks,
        "iscrowd": torch.tensor([0, 1]),
        "area": torch.tensor([486.0, 600.0]),
    }
    found = {"boxes": boxes[:1], "labels": torch.tensor([1]), "scores": torch.ones(1)}
    found["masks"] = masks[:1, None].float()
    logged = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: float(value)}))
    monkeypatch.setattr(module.model, "forward", lambda images: [dict(found)])
    module.eval().validation_step(([torch.zeros(3, 64, 64)], [target]), 0)
    module.on_validation_epoch_end()
    assert len(logged) == 6
    assert set(logged.values()) == {1.0}


def test_more_objects_than_a_hundred_are_counted(monkeypatch):
    """All 150 objects are found and right, so precision is 1 at every recall."""
    module = detector(masks=False, detector_args={**BOXES, "box_detections_per_img": 150}).eval()
    corners = 4.0 * torch.cartesian_prod(torch.arange(15.0), torch.arange(10.0))
    boxes, labels = torch.cat([corners, corners + 3], 1), torch.ones(150, dtype=torch.long)
    target = {"boxes": boxes, "labels": labels, "iscrowd": labels * 0, "area": labels * 9.0}
    found = {"boxes": boxes, "labels": labels, "scores": torch.ones(150)}
    logged = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: float(value)}))
    monkeypatch.setattr(module.model, "forward", lambda images: [dict(found)])
    module.validation_step(([torch.zeros(3, 64, 64)], [target]), 0)
    module.on_validation_epoch_end()
    assert logged["val_box_ap"] == 1


def export(path, name="attentionvig_nano", model_args=NANO, mean=(0.485, 0.456, 0.406)):
    model = timm.create_model(name, num_classes=3, **model_args)
    config = {"input_size": [3, 32, 32], "mean": list(mean), "std": [0.229, 0.224, 0.225]}
    description = {"name": name, "model_args": model_args, "classes": list("abc")}
    write_export(path, model.state_dict(), {**description, "data_config": config})
    return str(path), model


def test_exported_weights_start_the_backbone_and_freeze_beta_and_norm(tmp_path):
    path, model = export(tmp_path / "model.safetensors")
    module = detector(initial_weights=path)
    body = module.model.backbone.body.body
    images = torch.rand(1, 3, 64, 64)
    assert torch.allclose(body.eval()(images)[-1], model.eval().forward_features(images), atol=1e-6)
    convs = [m for m in module.modules() if isinstance(m, CrossAttnConv)]
    assert convs
    assert not any(conv.log_beta.requires_grad for conv in convs)
    assert not module.train().model.backbone.body.body.model.stem[0][1].training
    free = detector(initial_weights=path, freeze_beta=False, freeze_norm=False)
    convs = [m for m in free.modules() if isinstance(m, CrossAttnConv)]
    assert all(conv.log_beta.requires_grad for conv in convs)
    assert free.train().model.backbone.body.body.model.stem[0][1].training


def test_without_weights_nothing_is_frozen():
    module = detector()
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert module.train().model.backbone.body.body.model.stem[0][1].training


def test_weights_that_do_not_fit_are_named(tmp_path):
    path, _ = export(tmp_path / "a.safetensors", "resnet18", {})
    with pytest.raises(InputError, match="a.safetensors, of resnet18: .*fit attentionvig_nano"):
        detector(initial_weights=path)
    path, _ = export(tmp_path / "b.safetensors", mean=(0.5, 0.5, 0.5))
    with pytest.raises(InputError, match=r"image_mean \[0.5, 0.5, 0.5\], as .*b.safetensors"):
        detector(initial_weights=path)
    moved = {**SMALL, "image_mean": [0.5, 0.5, 0.5]}
    assert detector(initial_weights=path, detector_args=moved)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"name": "attentionvig_nano", "model_args": None}, "strides 4, 8, 16 and 32"),
        ({"detector_args": {"min_sise": 3}}, "FasterRCNN .got 'min_sise'"),
        ({"masks": False, "detector_args": {"mask_channels": [8]}}, "got 'mask_channels'"),
    ],
)
def test_arguments_that_do_not_fit_are_named(args, message):
    with pytest.raises(InputError, match=message):
        detector(**args)


def test_boxes_alone_make_no_mask_rcnn():
    boxes = {**ANNOTATION, "masks": False}
    with pytest.raises(InputError, match="set model.masks to false"):
        Detector(boxes, name="attentionvig_nano", model_args=NANO)


@pytest.mark.parametrize("task", ["mask_rcnn", "semantic_fpn"])
def test_data_of_another_task_are_one_line(task, tmp_path, capsys):
    options = scene_options(task, tmp_path)[1:]
    options = [o for o in options if not o.startswith("--data")]
    config = f"--config=configs/digit_scenes/{task}.yaml"
    assert main(["fit", config, *options, "--data=pyg_avig.data.Digits"]) == 2
    assert "pyg-avig: expected images with" in capsys.readouterr().err.splitlines()[-1]


def test_faster_rcnn_learns_and_is_tested_on_a_json(tmp_path):
    root = coco_tree(tmp_path / "coco")
    args = json.dumps(BOXES)
    cli = CLI(
        [
            "fit",
            "--model=pyg_avig.train.Detector",
            "--model.masks=false",
            "--model.name=resnet18",
            f"--model.detector_args={args}",
            "--data=pyg_avig.data.CocoInstances",
            f"--data.root={root}",
            "--data.batch_size=2",
            "--data.masks=false",
            "--trainer.max_epochs=1",
            "--trainer.logger=false",
            "--trainer.enable_checkpointing=false",
            "--trainer.enable_progress_bar=false",
            "--trainer.enable_model_summary=false",
        ]
    )
    (metrics,) = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    assert set(metrics) == {"test_box_ap", "test_box_ap50", "test_box_ap75"}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["mask_rcnn", "semantic_fpn"])
def test_a_killed_run_resumes_to_the_weights_of_an_undisturbed_one(task, tmp_path):
    flip = "{class_path: torchvision.transforms.v2.RandomHorizontalFlip}"
    flip = f"--data.init_args.augmentation=[{flip}]"
    args = scene_options(task, tmp_path / "a", flip)
    assert fit_elsewhere(*args)[0] == 0
    kill = "--trainer.callbacks+={class_path: train.runs.Kill, init_args: {epoch: 1, batch: 0}}"
    args = scene_options(task, tmp_path / "b", flip)
    assert fit_elsewhere(*args, kill)[0] != 0
    resumed = scene_options(task, tmp_path / "c", flip)
    status, said = fit_elsewhere(*resumed, f"--ckpt_path={last_checkpoint(tmp_path / 'b')}")
    assert status == 0, said
    whole, again = (
        torch.load(last_checkpoint(tmp_path / name), weights_only=True)["state_dict"]
        for name in "ac"
    )
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
