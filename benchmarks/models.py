"""Images per second of the backbone beside two of timm's of about its cost."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
import timm
import torch
from timm.models import reparameterize_model
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler

from benchmarks.loader import Photos
from benchmarks.timing import peak_bytes, seconds
from pyg_avig.data.loading.image_graphs import ImageGraphs, train_transform
from pyg_avig.data.loading.lattices import collate_lattices
from pyg_avig.graphs import graph_images
from pyg_avig.models import AttentionViG
from pyg_avig.models.dense_backbone import DenseBackbone

RECOMPUTED = "training step, activations recomputed"
ONNX = "inference, fused, onnxruntime"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def models(
    device: torch.device, dtype: torch.dtype, repeats: int, names: list[str], batch_size: int = 8
) -> list[dict[str, Any]]:
    """Inference and training at 224, each model in the memory layout that suits it.

    *Fused*: with BatchNorm and what else the model can merged for inference. *Recomputed*: with
    timm's gradient checkpointing. *onnxruntime*: on the CPU, in single precision, with as many
    threads.
    """
    on_cpu = device.type == "cpu" and dtype == torch.float32
    images = torch.randn(batch_size, 3, 224, 224, device=device, dtype=dtype)
    built = {name: partial(timm.create_model, name) for name in names}
    return [
        {"graph": graph, **_measured(built, images, graph, repeats)}
        for graph in ("inference", "inference, fused", ONNX, "training step", RECOMPUTED)
        if on_cpu or graph != ONNX
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
        if graph == ONNX:
            calls[name] = _onnx_call(build, images)
            continue
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
        # Of what runs outside of PyTorch it cannot tell.
        "bytes": {
            name: None if graph == ONNX else peak_bytes(call, device)
            for name, call in calls.items()
        },
    }


def _call(
    build: Callable[[], nn.Module], images: Tensor, memory_format: torch.memory_format, graph: str
) -> Callable[[], Any]:
    model: Any = build().to(images.device, images.dtype)
    training = graph.startswith("training step")
    model = model.to(memory_format=memory_format).train(training)
    if graph == "inference, fused":
        model = _fused(model)
    if graph == RECOMPUTED:
        model.set_grad_checkpointing()
    images = images.contiguous(memory_format=memory_format)

    def train() -> None:
        _train(model, images)

    @torch.inference_mode()
    def infer() -> Any:
        return model(images)

    return train if training else infer


def _fused(model: Any) -> nn.Module:
    return model.fuse() if isinstance(model, AttentionViG) else reparameterize_model(model)


def _onnx_call(build: Callable[[], nn.Module], images: Tensor) -> Callable[[], Any]:
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # What the exporter says of its own operators.
        path = Path(folder, "model.onnx")
        torch.onnx.export(_fused(build().eval()), (images,), path, dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, {session.get_inputs()[0].name: images.numpy()})


def _train(model: nn.Module, images: Tensor) -> None:
    model.zero_grad()
    outputs = model(images)
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    sum(x.float().logsumexp(1).mean() for x in outputs).backward()


def fed(
    device: torch.device,
    dtype: torch.dtype,
    names: list[str],
    batch_size: int,
    num_workers: int,
    batches: int = 30,
    warm_up: int = 3,
) -> list[dict[str, Any]]:
    """Training steps on JPEG files that a loader decodes and augments, and how long they wait."""
    photos = Photos(batch_size)
    transform = train_transform({"input_size": 224}, auto_augment="rand-m9-mstd0.5-inc1")
    graphs: Any = ImageGraphs(photos, transform)
    rows = []
    for name in names:
        model = timm.create_model(name).to(device, dtype).to(memory_format=torch.channels_last)
        number = (warm_up + batches) * batch_size
        loader = DataLoader(
            graphs,
            batch_size,
            sampler=RandomSampler(graphs, replacement=True, num_samples=number),
            num_workers=num_workers,
            collate_fn=collate_lattices,
            pin_memory=device.type == "cuda",
        )
        waited, began = [], [time.perf_counter()]
        for batch in loader:
            waited.append(time.perf_counter() - began[-1])
            images = graph_images(batch).to(device, dtype, memory_format=torch.channels_last)
            _train(model.train(), images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            began.append(time.perf_counter())
        total = began[-1] - began[warm_up]
        row = {"model": name, "images/s": batches * batch_size / total}
        rows.append({**row, "waiting": sum(waited[warm_up:]) / total})
    return rows


def report_fed(rows: list[dict[str, Any]]) -> list[str]:
    """The rows of :func:`fed` as a Markdown table."""
    lines = ["| model | images/s | share of the time the loader is waited for |", "|---|---|---|"]
    lines += [f"| {r['model']} | {r['images/s']:.1f} | {r['waiting']:.2f} |" for r in rows]
    return lines


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table, ours (the first) over each."""
    lines = ["| pass | model | images/s | ours / it | peak memory |", "|---|---|---|---|---|"]
    for row in rows:
        ours = next(iter(row["images/s"].values()))
        lines += [
            f"| {row['graph']} | {name} | {speed:.1f} | {ours / speed:.2f} | "
            f"{_memory(row['bytes'][name])} |"
            for name, speed in row["images/s"].items()
        ]
    return lines


def _memory(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:.0f} MiB"
