"""Images per second of the backbone beside two of timm's of about its cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import timm
import torch
from timm.models import reparameterize_model
from torch import Tensor, nn

from benchmarks.timing import peak_bytes, seconds
from pyg_avig.models import AttentionViG
from pyg_avig.models.dense_backbone import DenseBackbone

RECOMPUTED = "training step, activations recomputed"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def models(
    device: torch.device, dtype: torch.dtype, repeats: int, names: list[str], batch_size: int = 8
) -> list[dict[str, Any]]:
    """Inference and training at 224, each model in the memory layout that suits it.

    *Fused*: with BatchNorm and what else the model can merged for inference. *Recomputed*: with
    timm's gradient checkpointing.
    """
    images = torch.randn(batch_size, 3, 224, 224, device=device, dtype=dtype)
    built = {name: partial(timm.create_model, name) for name in names}
    return [
        {"graph": graph, **_measured(built, images, graph, repeats)}
        for graph in ("inference", "inference, fused", "training step", RECOMPUTED)
    ]


def features(
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
    names: list[str],
    sizes: Sequence[tuple[int, int]],
) -> list[dict[str, Any]]:
    """Features at strides 4 to 32 of one image of each size, as detectors and segmenters pad it."""
    built = {name: partial(DenseBackbone, name) for name in names}
    divisor = math.lcm(*(build().size_divisible for build in built.values()))
    rows = []
    for size in sizes:
        padded = [-(-side // divisor) * divisor for side in size]
        images = torch.randn(1, 3, *padded, device=device, dtype=dtype)
        for graph in ("inference", "training step"):
            title = f"{graph}, {size[0]} x {size[1]}"
            rows.append({"graph": title, **_measured(built, images, graph, repeats)})
    return rows


def _measured(
    built: Mapping[str, Callable[[], nn.Module]], images: Tensor, graph: str, repeats: int
) -> dict[str, Any]:
    """Images a second and peak memory of each model, in the layout that suits it."""
    device = images.device
    calls: dict[str, Callable[[], Any]] = {}
    for name, build in built.items():
        options = {
            layout: _call(build, images, memory_format, graph)
            for layout, memory_format in LAYOUTS.items()
        }
        fastest = seconds(options, device, repeats=3, warm_up=1)
        layout = min(fastest, key=lambda key: fastest[key])
        calls[f"{name} ({layout})"] = options[layout]
    times = seconds(calls, device, repeats)
    return {
        "images/s": {name: len(images) / time for name, time in times.items()},
        "bytes": {name: peak_bytes(call, device) for name, call in calls.items()},
    }


def _call(
    build: Callable[[], nn.Module], images: Tensor, memory_format: torch.memory_format, graph: str
) -> Callable[[], Any]:
    model: Any = build().to(images.device, images.dtype)
    training = graph.startswith("training step")
    model = model.to(memory_format=memory_format).train(training)
    if graph == "inference, fused":
        model = model.fuse() if isinstance(model, AttentionViG) else reparameterize_model(model)
    if graph == RECOMPUTED:
        model.set_grad_checkpointing()
    images = images.contiguous(memory_format=memory_format)

    def train() -> None:
        model.zero_grad()
        outputs = model(images)
        outputs = [outputs] if isinstance(outputs, Tensor) else outputs
        sum(x.float().logsumexp(1).mean() for x in outputs).backward()

    @torch.inference_mode()
    def infer() -> Any:
        return model(images)

    return train if training else infer


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table, ours (the first) over each."""
    lines = ["| pass | model | images/s | ours / it | peak memory |", "|---|---|---|---|---|"]
    for row in rows:
        ours = next(iter(row["images/s"].values()))
        lines += [
            f"| {row['graph']} | {name} | {speed:.1f} | {ours / speed:.2f} | "
            f"{row['bytes'][name] / 2**20:.0f} MiB |"
            for name, speed in row["images/s"].items()
        ]
    return lines
