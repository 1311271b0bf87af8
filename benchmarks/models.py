"""Images per second of the backbone beside two of timm's of about its cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from timm.models import reparameterize_model
from torch import Tensor, nn

from benchmarks.timing import peak_bytes, seconds
from pyg_avig.models import AttentionViG

LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def models(
    device: torch.device, dtype: torch.dtype, repeats: int, names: list[str], batch_size: int = 8
) -> list[dict[str, Any]]:
    """Inference and training at 224, each model in the memory layout that suits it.

    *Fused*: with BatchNorm and what else the model can merged for inference.
    """
    images = torch.randn(batch_size, 3, 224, 224, device=device, dtype=dtype)
    rows: list[dict[str, Any]] = []
    for graph in ("inference", "inference, fused", "training step"):
        row: dict[str, Any] = {"graph": graph}
        rows.append(row)
        calls: dict[str, Callable[[], Any]] = {}
        for name in names:
            options = {
                layout: _call(name, images, memory_format, graph)
                for layout, memory_format in LAYOUTS.items()
            }
            fastest = seconds(options, device, repeats=3, warm_up=1)
            layout = min(fastest, key=lambda key: fastest[key])
            calls[f"{name} ({layout})"] = options[layout]
        row["images/s"] = {
            name: batch_size / time for name, time in seconds(calls, device, repeats).items()
        }
        row["bytes"] = {name: peak_bytes(call, device) for name, call in calls.items()}
    return rows


def _call(
    name: str, images: Tensor, memory_format: torch.memory_format, graph: str
) -> Callable[[], Any]:
    model: nn.Module = timm.create_model(name).to(images.device, images.dtype)
    training = graph == "training step"
    model = model.to(memory_format=memory_format).train(training)
    if graph == "inference, fused":
        model = model.fuse() if isinstance(model, AttentionViG) else reparameterize_model(model)
    images = images.contiguous(memory_format=memory_format)

    def train() -> None:
        model.zero_grad()
        model(images).logsumexp(-1).sum().backward()

    @torch.inference_mode()
    def infer() -> Tensor:
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
