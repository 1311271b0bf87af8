"""Labels for image files, from a checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyg_avig.data.loading.image_files import read_image
from pyg_avig.data.loading.image_graphs import eval_transform
from pyg_avig.errors import InputError
from pyg_avig.models.exported_onnx import OnnxModel
from pyg_avig.train.checkpoint import load_classifier
from pyg_avig.train.export import NEEDED


def predict_images(checkpoint: str, images: list[str], batch_size: int = 64) -> int:
    """Print the most likely class of each image file, and its probability.

    A line of tab-separated path, label and probability for each readable file goes to
    standard output; a file that cannot be read is named on standard error, and the others
    are still done.

    Args:
        checkpoint: A checkpoint of `pyg-avig fit`, an exported ``*.safetensors``, ``*.onnx``
            or folder; a path or address.
        images: Image files, of any size.
        batch_size: Images that go through the model at a time.

    Returns:
        The exit status: 0, or 1 if a file could not be read.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1 (got {batch_size})")
    if isinstance(sys.stdout, TextIOWrapper):  # File names are bytes, whatever they are written in.
        sys.stdout.reconfigure(errors="surrogateescape")
    said, logits = _loaded(checkpoint)
    data_config, classes = said["data_config"], said["classes"]
    transform = eval_transform(data_config)
    failed = 0
    for first in range(0, len(images), batch_size):
        paths, readable = [], []
        for path in images[first : first + batch_size]:
            try:
                readable.append(transform(read_image(path, data_config["input_size"][0])))
                paths.append(path)
            except InputError as error:
                print(error, file=sys.stderr)
                failed += 1
        if not paths:
            continue
        probability = _probabilities(logits, torch.stack(readable))
        for path, row in zip(paths, probability, strict=True):
            best = int(row.argmax())
            print(f"{path}\t{classes[best]}\t{row[best]:.4f}")
    return 1 if failed else 0


def _loaded(path: str) -> tuple[dict[str, Any], Callable[[Tensor], Tensor]]:
    """What is said of a classifier, and the classifier: images (B, C, H, W) to logits."""
    if Path(path).suffix == ".onnx":
        model = OnnxModel(path, NEEDED)
        return model.description, model
    classifier = load_classifier(path)
    return dict(classifier.hparams), classifier


@torch.inference_mode()
def _probabilities(logits: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    probability = logits(images).softmax(-1)
    if not probability.isfinite().all():
        raise InputError("expected finite weights in the checkpoint (its logits are NaN)")
    return probability
