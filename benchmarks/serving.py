"""What a trained classifier gives, and how fast, in each form that it can be exported to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import seconds
from pyg_avig.data.loading.image_graphs import ImageGraphDataModule
from pyg_avig.graphs import graph_images
from pyg_avig.models.exported_onnx import OnnxModel
from pyg_avig.train import load_classifier
from pyg_avig.train.checkpoint import export_checkpoint
from pyg_avig.train.config_data import data_of
from pyg_avig.train.model_card import run_config

FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "model.safetensors": (".safetensors", {}),
    "model.safetensors, bf16": (".safetensors", {"precision": "bf16"}),
    "model.pt2": (".pt2", {}),
    "model.pt2, bf16": (".pt2", {"precision": "bf16"}),
    "model.onnx": (".onnx", {}),
    "model.onnx, int8": (".onnx", {"quantize": "int8"}),
}
"""The suffix of each form, and what it is asked for with. Others are compared with the first."""


def serving(checkpoint: str, repeats: int, batch_size: int = 64) -> list[dict[str, Any]]:
    """Accuracy on the test split, size and speed of each form; a row for each.

    Args:
        checkpoint: A checkpoint of an image classifier, in the folder of its run.
        repeats: Calls of each; the median counts.
        batch_size: Images in a call.
    """
    data = data_of(run_config(checkpoint), ImageGraphDataModule)
    data.prepare_data()
    data.setup("test")
    rows: list[dict[str, Any]] = []
    calls: dict[str, Callable[[], Any]] = {}
    images = _images(data, batch_size)
    with TemporaryDirectory() as folder:
        for number, (form, (suffix, options)) in enumerate(FORMS.items()):
            path = Path(folder, f"{number}{suffix}")
            export_checkpoint(checkpoint, path, **options)  # type: ignore[arg-type]
            model = _opened(path)
            right = torch.cat([model(x).argmax(-1) == y for x, y in _tests(data)]).float()
            row = {"data": type(data).__name__, "form": form, "bytes": path.stat().st_size}
            rows.append({**row, "accuracy": float(right.mean()), "images": len(right)})
            calls[form] = partial(model, images)
    times = seconds(calls, torch.device("cpu"), repeats)
    return [{**row, "images/s": batch_size / times[row["form"]]} for row in rows]


def _opened(path: Path) -> Callable[[Tensor], Tensor]:
    """What runs an export: images to logits."""
    if path.suffix == ".onnx":
        return OnnxModel(path)
    model: Any = load_classifier(path) if path.suffix != ".pt2" else _program(path)
    return torch.inference_mode()(model)


def _program(path: Path) -> Any:
    return torch.export.load(path).module()


def _tests(data: ImageGraphDataModule) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in data.test_dataloader():
        yield graph_images(batch).contiguous(), batch.y


def _images(data: ImageGraphDataModule, number: int) -> Tensor:
    """The first of the test split, and again if there are fewer."""
    images = torch.cat([images for images, _ in _tests(data)])
    return images.repeat(-(-number // len(images)), 1, 1, 1)[:number].contiguous()


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table."""
    titles = ["data", "form", "kB", "accuracy", "images/s", "times the first"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    first: dict[str, float] = {}
    for row in rows:
        speed = row["images/s"]
        ratio = speed / first.setdefault(row["data"], speed)
        lines.append(
            f"| {row['data']} | {row['form']} | {row['bytes'] / 1000:,.0f} | {row['accuracy']:.4f} "
            f"| {speed:.0f} | {ratio:.2f} |"
        )
    return lines
