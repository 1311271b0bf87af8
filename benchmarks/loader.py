"""What turning images into graphs costs a training loader."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.utils.data import default_collate
from torch_geometric.data import Batch

from benchmarks.timing import differs, seconds
from pyg_avig.data.loading.image_graphs import ImageGraphs, train_transform
from pyg_avig.data.loading.lattices import collate_lattices
from pyg_avig.data.loading.sampling import seeded
from pyg_avig.graphs import graph_images


class Photos:
    """JPEG files in memory, cut from scikit-learn's two photos; decoded at each access."""

    def __init__(self, number: int, side: int = 400) -> None:
        generator = np.random.default_rng(0)
        self.files = []
        for n in range(number):
            photo = load_sample_images().images[n % 2]
            top, left = (int(generator.integers(size - side)) for size in photo.shape[:2])
            file = io.BytesIO()
            Image.fromarray(photo[top : top + side, left : left + side]).save(file, "JPEG")
            self.files.append(file.getvalue())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.open(io.BytesIO(self.files[index])).convert("RGB"), index % 2


def loader(repeats: int, batch_size: int = 32) -> list[dict[str, Any]]:
    """Images per second of one process: decoding, the ImageNet augmentation, collation."""
    photos = Photos(batch_size)
    transform = train_transform(
        {"input_size": 224}, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25, re_mode="pixel"
    )
    graphs = ImageGraphs(photos, transform)

    def tensors() -> Tensor:
        items = [photos[i] for i in range(batch_size)]
        return default_collate([(transform(image), label) for image, label in items])[0]

    def batch() -> Batch:
        return collate_lattices([graphs[i] for i in range(batch_size)])

    row: dict[str, Any] = {
        "graph": f"{batch_size} photos of 400 x 400 to 224 x 224",
        "difference": differs(graph_images(_seeded(batch)), _seeded(tensors)),
    }
    if row["difference"] == 0:
        rivals: dict[str, Callable[[], Any]] = {
            "graphs": partial(_seeded, batch),
            "tensors": partial(_seeded, tensors),
        }
        times = seconds(rivals, torch.device("cpu"), repeats)
        row["images/s"] = {name: batch_size / time for name, time in times.items()}
    return [row]


def _seeded(call: Callable[[], Any]) -> Any:
    """The same augmentation for both, so that both do the same work."""
    with seeded(0):
        return call()


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table."""
    lines = [
        "| pipeline | graphs, images/s | tensors, images/s | graphs / tensors |",
        "|---" * 4 + "|",
    ]
    for row in rows:
        if "images/s" not in row:
            lines.append(f"{row['graph']}: images differ by {row['difference']:.1e}; no speed")
            continue
        graphs, tensors = row["images/s"]["graphs"], row["images/s"]["tensors"]
        lines.append(f"| {row['graph']} | {graphs:.1f} | {tensors:.1f} | {graphs / tensors:.3f} |")
    return lines
