"""`pyg-avig predict`: images, scenes or graphs, as the task of the checkpoint is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pyg_avig.data.loading.image_trees import images_among
from pyg_avig.errors import InputError
from pyg_avig.files import place
from pyg_avig.models.exported_onnx import OnnxModel
from pyg_avig.train.checkpoint import (
    graph_task_of,
    load_classifier,
    load_graph_task,
    read_trained,
)
from pyg_avig.train.config_data import Reading, reading_of
from pyg_avig.train.export import NEEDED_OF_GRAPHS
from pyg_avig.train.image_classifier import ImageClassifier
from pyg_avig.train.model_card import run_config
from pyg_avig.train.predict_graphs import predict_data, predict_files
from pyg_avig.train.predict_images import predict_images
from pyg_avig.train.predict_scenes import load_task, predict_scenes


def predict(
    checkpoint: str,
    images: list[str],
    batch_size: int = 64,
    out: str | None = None,
    threshold: float = 0.5,
    config: str | None = None,
    split: str | None = None,
    top: int | None = None,
    format: str | None = None,
) -> int:
    """Say or draw what is on images or of graphs, as a checkpoint's task is; the exit status.

    Args:
        checkpoint: See :func:`predict_images`.
        images: See :func:`predict_images` and :func:`predict_files`; also folders of images and
            patterns, see :func:`~pyg_avig.data.loading.image_trees.images_among`.
        batch_size: See :func:`predict_images`.
        out: Where a detector or segmenter writes, see ``predict_scenes``; or of graphs, see
            :func:`predict_files`.
        threshold: See ``predict_scenes``.
        config: See :func:`predict_data`; with files, how they are read, see :func:`predict_files`.
        split: See :func:`predict_data`.
        top: See :func:`predict_images`.
        format: Its ``form``.
    """
    content, said = _looked_into(checkpoint)
    of_graphs = said.keys() >= NEEDED_OF_GRAPHS
    if (top, format) != (None, None) and (of_graphs or "annotation" in said):
        raise InputError(f"{checkpoint}: expected a classifier of images, for --top and --format")
    if of_graphs:
        return _predict_graphs(checkpoint, content, images, out, config, split)
    if config is not None or split is not None:
        raise InputError(f"{checkpoint}: expected a GraphTask, for --config and --split")
    if not images:
        raise InputError("expected image files (got none)")
    files, errors = images_among(images)
    for error in errors:
        print(error, file=sys.stderr)
    if isinstance(content, OnnxModel) or "annotation" not in said:
        if out is not None:
            raise InputError(
                f"{checkpoint}: expected a detector or segmenter, to write into {out} (a "
                "classifier's labels are printed; leave out --out)"
            )
        top = 1 if top is None else top
        model: ImageClassifier | OnnxModel = (
            content if isinstance(content, OnnxModel) else load_classifier(checkpoint, content)
        )
        status = predict_images(model, files, batch_size, top, format or "tsv")
        return 1 if errors else status
    if out is None:
        raise InputError(f"{checkpoint}: expected a folder to write to: add --out FOLDER")
    status = predict_scenes(load_task(content, checkpoint), files, out, threshold)
    return 1 if errors else status


def _looked_into(path: str) -> tuple[dict[str, Any] | OnnxModel, dict[str, Any]]:
    """A checkpoint, an export or a program, read once; and what is said of its model."""
    suffix = Path(path).suffix
    if suffix == ".pt2":
        raise InputError(
            f"{path}: expected a checkpoint, or an exported *.safetensors, *.onnx or folder (got a "
            "program for torch.export.load, whose reading can run code of the file)"
        )
    if suffix == ".onnx":
        program = OnnxModel(path)
        return program, program.description
    content = read_trained(path)
    return content, content["hyper_parameters"]


def _predict_graphs(
    checkpoint: str,
    content: dict[str, Any] | OnnxModel,
    files: list[str],
    out: str | None,
    config: str | None,
    split: str | None,
) -> int:
    if out is None:
        raise InputError(f"{checkpoint}: expected a file to write to: add --out FILE.csv")
    if not files and config is None:
        raise InputError("expected graph files, or a data set by --config (got neither)")
    if isinstance(content, OnnxModel):
        task = graph_task_of(content)
    else:
        task = load_graph_task(checkpoint, content)
    if config is not None and not files:
        predict_data(task, config, out, split)
        return 0
    if split is not None:
        raise InputError(f"expected no files but --config, for the split {split!r} of its data")
    return predict_files(task, files, out, _reading(checkpoint, config))


def _reading(checkpoint: str, config: str | None) -> Reading | None:
    """How files are read: as a config says, that of the checkpoint's run if none is given."""
    if config is None:
        own = run_config(checkpoint)
        system, name = place(own)
        try:
            return reading_of(own) if system.exists(name) else None
        except InputError:  # It is something else, of that name.
            return None
    reading = reading_of(config)
    if reading is None:
        raise InputError(f"{config}: expected data OwnGraphs, to read files as they are read there")
    return reading
