"""Measuring rivals in one process, in turn."""

from __future__ import annotations

import json
import platform
import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def seconds(
    rivals: dict[str, Callable[[], Any]], device: torch.device, repeats: int, warm_up: int = 2
) -> dict[str, float]:
    """The median time of a call of each, called in turn so that a noisy moment hits all.

    The order changes from turn to turn, as each finds the caches as the one before left them. On
    one thread of a CPU the processor's time is taken, which others on the machine do not lengthen.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in rivals}
    order = random.Random(0)
    for turn in range(-warm_up, repeats):
        for name in order.sample(list(rivals), len(rivals)):
            _wait(device)
            start = clock()
            rivals[name]()
            _wait(device)
            if turn >= 0:
                times[name].append(clock() - start)
    return {name: median(values) for name, values in times.items()}


def peak_bytes(call: Callable[[], Any], device: torch.device) -> int:
    """The most memory that tensors took during a call, above what was taken before it."""
    call()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    activities = [ProfilerActivity.CPU]
    # Some versions warn of what is kept after one cycle, unless they are told.
    with profile(activities=activities, profile_memory=True, acc_events=True) as profiler:
        call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    taken = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        taken += event.nbytes()
        peak = max(peak, taken)
    return peak


def spread(values: list[float], digits: int) -> str:
    """The mean of several runs and their standard deviation, as tables show them."""
    return f"{mean(values):.{digits}f} ± {stdev(values) if len(values) > 1 else 0:.{digits}f}"


def differs(a: torch.Tensor, b: torch.Tensor) -> float:
    """The relative difference of two results, |a - b| / |b|."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


def environment(device: torch.device) -> dict[str, Any]:
    """What a result was measured on."""
    import torch_geometric

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": name,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_geometric": torch_geometric.__version__,
    }


def caption(device: torch.device) -> str:
    """The same in a line, for a table."""
    where = environment(device)
    return (
        f"{where['device']}, {where['instructions']}, {where['threads']} thread(s), "
        f"torch {where['torch']}, PyG {where['torch_geometric']}"
    )


def _processor() -> str:
    """The processor's name where Linux tells it, else its kind."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def save(name: str, device: torch.device, rows: list[dict[str, Any]]) -> Path:
    """Write the rows beside the environment they were measured in."""
    path = _results(name)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    where = json.dumps(environment(device), indent=1).removesuffix("\n}")
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    partial.write_text(f'{where},\n "rows": [\n  {lines}\n ]\n}}\n')
    partial.replace(path)
    return path


def saved(name: str) -> list[dict[str, Any]]:
    """The rows that are written under a name; none if there is no such file."""
    path = _results(name)
    return json.loads(path.read_text())["rows"] if path.exists() else []


def _results(name: str) -> Path:
    return Path(__file__).parent / "results" / f"{name}.json"


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
