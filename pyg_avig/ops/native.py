"""The products on a lattice's classes in C++, for the CPU (lattice.cpp).

Compiled when first needed, into the user's cache. Where there is no compiler for C++ with OpenMP,
or ``PYG_AVIG_KERNELS=0`` is set in the environment, :mod:`pyg_avig.ops.axial` takes PyTorch's own
products instead.

The source knows nothing of Python or PyTorch: it compiles in two seconds and serves every version
of both. Its threads are PyTorch's, as the OpenMP library that PyTorch has loaded serves it too.

Both operators take ``graphs``, the number of graphs, and ``axes``, three numbers for each axis:
seen as (graphs * before, members, inner, C), contiguous rows hold one class in each [p, :, r].
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import math
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

_SOURCE = Path(__file__).with_name("lattice.cpp")
_FLAGS = ["-O3", "-std=c++17", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi"]
_TYPES = {torch.float32: "float", torch.float64: "double"}
_log = logging.getLogger(__name__)


def serves(x: Tensor) -> bool:
    """Whether the kernels take tensors of this kind, here."""
    return x.device.type == "cpu" and x.dtype in _TYPES and library() is not None


def pairs(a: Tensor, b: Tensor, scales: list[Tensor], graphs: int, axes: list[int]) -> list[Tensor]:
    """Products of the rows of a and b, in each class of each axis.

    Args:
        a: Rows, contiguous, with the channels last.
        b: As ``a``.
        scales: None, or one number for each row of a and of b; the products are multiplied with
            both and held to [-1, 1].
        graphs: See above.
        axes: See above.

    Returns:
        (graphs * before, inner, members, members) for each axis.
    """
    return _operators.pairs(a, b, scales, graphs, axes)


def spread(
    x: Tensor, weights: list[Tensor], transpose: bool, graphs: int, axes: list[int]
) -> Tensor:
    """Weighted sums of the rows of x, in each class, over all axes.

    Args:
        x: Rows, contiguous, with the channels last.
        weights: As :func:`pairs` gives them, contiguous.
        transpose: Send from the weights' rows to their columns instead.
        graphs: See above.
        axes: See above.

    Returns:
        As ``x``.
    """
    return _operators.spread(x, weights, transpose, graphs, axes)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; ``None`` where there can be none, and the log says why."""
    if os.environ.get("PYG_AVIG_KERNELS") == "0":
        return None
    try:
        return ctypes.CDLL(str(_compiled()))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        _log.warning("PyTorch's products serve instead of the C++ kernels: %s", error)
        return None


def _compiled() -> Path:
    """The library for this source and compiler, taken from the cache if it is there."""
    compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
    if not compiler:
        raise RuntimeError("found no C++ compiler (c++, g++ or $CXX)")
    command = [*compiler.split(), *_FLAGS]
    version = subprocess.run([*compiler.split(), "--version"], capture_output=True, check=True)
    what = [_SOURCE.read_bytes(), " ".join(command).encode(), version.stdout]
    key = hashlib.sha256(b"\0".join(what)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "pyg_avig" / "kernels" / f"lattice-{platform.machine()}-{key}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = Path(folder) / path.name
            command += [str(_SOURCE), "-o", str(built)]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode != 0:
                raise RuntimeError(f"{' '.join(command)} failed:\n{run.stderr}")
            built.replace(path)  # Whole or not at all, whoever else compiles it now.
    return path


# Operators of PyTorch, so that its profiler, flop counter and fake tensors see them.
_definitions = torch.library.Library("pyg_avig", "FRAGMENT")
_definitions.define(
    "pairs(Tensor a, Tensor b, Tensor[] scales, int graphs, int[] axes) -> Tensor[]"
)
_definitions.define(
    "spread(Tensor x, Tensor[] weights, bool transpose, int graphs, int[] axes) -> Tensor"
)
_operators = torch.ops.pyg_avig


@torch.library.impl(_definitions, "pairs", "Meta")
def _empty_pairs(
    a: Tensor, b: Tensor, scales: list[Tensor], graphs: int, axes: list[int]
) -> list[Tensor]:
    return [
        a.new_empty(graphs * before, inner, members, members)
        for before, members, inner in zip(axes[::3], axes[1::3], axes[2::3], strict=True)
    ]


@torch.library.impl(_definitions, "pairs", "CPU")
def _pairs(
    a: Tensor, b: Tensor, scales: list[Tensor], graphs: int, axes: list[int]
) -> list[Tensor]:
    weights = _empty_pairs(a, b, scales, graphs, axes)
    _run("pairs", [a, b, *(scales or (None, None))], [], graphs, axes, weights)
    return weights


@torch.library.impl(_definitions, "spread", "Meta")
def _empty_spread(
    x: Tensor, weights: list[Tensor], transpose: bool, graphs: int, axes: list[int]
) -> Tensor:
    return torch.empty_like(x)


@torch.library.impl(_definitions, "spread", "CPU")
def _spread(
    x: Tensor, weights: list[Tensor], transpose: bool, graphs: int, axes: list[int]
) -> Tensor:
    out = torch.empty_like(x)
    _run("spread", [x, out], [transpose], graphs, axes, weights)
    return out


def _run(
    name: str,
    rows: list[Any],
    options: list[int],
    graphs: int,
    axes: list[int],
    weights: list[Tensor],
) -> None:
    """Call a kernel for the type of the rows."""
    x = rows[0]
    if x.numel() == 0:
        return
    nodes = x.numel() // (graphs * x.size(-1))
    numbers = [*options, x.size(-1), graphs, nodes, len(weights)]
    kernel = getattr(library(), f"{name}_{_TYPES[x.dtype]}")
    kernel(
        *(ctypes.c_void_p(None if row is None else row.data_ptr()) for row in rows),
        *map(ctypes.c_int64, numbers),
        (ctypes.c_int64 * len(axes))(*axes),
        (ctypes.c_void_p * len(weights))(*(weight.data_ptr() for weight in weights)),
    )


@register_flop_formula(torch.ops.pyg_avig.pairs)
def _flops_of_pairs(a: tuple, *_: Any, out_shape: list[tuple], **__: Any) -> int:
    return sum(2 * math.prod(weight) * a[-1] for weight in out_shape)


@register_flop_formula(torch.ops.pyg_avig.spread)
def _flops_of_spread(x: tuple, weights: list[tuple], *_: Any, **__: Any) -> int:
    return sum(2 * math.prod(weight) * x[-1] for weight in weights)
