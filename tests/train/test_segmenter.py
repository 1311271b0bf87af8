import csv
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pyg_avig import InputError
from pyg_avig.train import Segmenter
from pyg_avig.train.segmenter import pixel_loss

ANNOTATION = {"of": "pixels", "classes": ["a", "b", "c"], "values": [1, 2, 3]}
NANO = {"stem_strides": [2, 2], "channels": [8, 8, 8, 8]}
SMALL = {"pyramid_channels": 16, "segmentation_channels": 32}


def segmenter(**args):
    args = {"name": "attentionvig_nano", "model_args": NANO, "segmenter_args": SMALL, **args}
    return Segmenter(ANNOTATION, **args)


def test_loss_and_metrics_are_logged(trained_segmenter):
    path = Path(trained_segmenter.trainer.log_dir, "metrics.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    logged = [row for row in rows if row["val_miou"]]
    assert len(logged) == 2
    assert all(0 <= float(row["val_miou"]) <= 1 and float(row["val_loss"]) > 0 for row in logged)


def test_pixels_without_a_class_count_for_nothing():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    labels = torch.randint(0, 3, (2, 4, 4), dtype=torch.uint8)
    labels[0, :2] = 255
    expected = F.cross_entropy(logits, labels.long(), ignore_index=255)
    assert torch.allclose(pixel_loss(logits, labels), expected)
    nothing = pixel_loss(logits, torch.full_like(labels, 255))
    nothing.backward()
    assert nothing == 0
    assert (logits.grad == 0).all()


def test_the_padding_counts_for_nothing(monkeypatch):
    """The loss of images of different sizes is that of their own pixels."""
    module = segmenter()
    logits = torch.randn(2, 3, 64, 64)
    monkeypatch.setattr(module.model, "forward", lambda images: logits)
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    sizes = [(64, 40), (30, 64)]
    images = [torch.rand(3, *size) for size in sizes]
    labels = [torch.randint(0, 3, size, dtype=torch.uint8) for size in sizes]
    pixels = [
        one[:, : size[0], : size[1]].flatten(1) for one, size in zip(logits, sizes, strict=True)
    ]
    expected = F.cross_entropy(
        torch.cat(pixels, 1).T, torch.cat([one.flatten() for one in labels]).long()
    )
    assert torch.allclose(module.training_step((images, labels), 0), expected)


def test_right_pixels_score_one(monkeypatch):
    module = segmenter().eval()
    labels = torch.tensor([[0, 1], [2, 255]], dtype=torch.uint8)
    right = F.one_hot(labels.long().clamp(max=2), 3).movedim(-1, 0).float() * 9
    monkeypatch.setattr(module.model, "forward", lambda images: [right])
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    monkeypatch.setattr(module, "log_dict", lambda *args, **kwargs: None)
    module.validation_step(([torch.rand(3, 2, 2)], [labels]), 0)
    metrics = module.val_metrics.compute()
    assert metrics == {"val_miou": 1.0, "val_acc": 1.0}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"model_args": None}, "strides 4, 8, 16 and 32"),
        ({"segmenter_args": {"foo": 3}}, "arguments of SemanticFPN .*foo"),
        ({"segmenter_args": {"segmentation_channels": 9}}, "multiple of 32"),
    ],
)
def test_arguments_that_do_not_fit_are_named(args, message):
    with pytest.raises(InputError, match=message):
        segmenter(**args)
