"""The products of cross-attention in C++, for the CPU (cpp/).

Compiled when first needed, into the user's cache. Where there is no compiler for C++ with OpenMP,
or ``PYG_AVIG_KERNELS=0`` is set in the environment, :mod:`pyg_avig.ops.axial` and
:mod:`pyg_avig.ops.csr` take PyTorch's own products instead.

The source knows nothing of Python or PyTorch: it compiles in a few seconds and serves every version
of both. Its threads are PyTorch's, as the OpenMP library that PyTorch has loaded serves it too.

All tensors are contiguous, of single or double precision, indices of int64.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import math
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

_SOURCES = Path(__file__).with_name("cpp")
_FLAGS = ["-O3", "-std=c++17", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi"]
_TYPES = {torch.float32: "float", torch.float64: "double"}
_log = logging.getLogger(__name__)


def serves(x: Tensor) -> bool:
    """Whether the kernels take tensors of this kind, here."""
    return x.device.type == "cpu" and x.dtype in _TYPES and library() is not None


def lattice_pairs(
    a: Tensor, b: Tensor, scales: list[Tensor], graphs: int, axes: list[int]
) -> list[Tensor]:
    """Products of the rows of a and b, in each class of each axis.

    Args:
        a: Rows, with the channels last.
        b: As ``a``.
        scales: None, or one number for each row of a and of b; the products are multiplied with
            both and held to [-1, 1].
        graphs: Number of graphs.
        axes: Three numbers for each axis: seen as (graphs * before, members, inner, C), rows hold
            one class in each [p, :, r].

    Returns:
        (graphs * before, inner, members, members) for each axis.
    """
    return torch.ops.pyg_avig.lattice_pairs(a, b, scales, graphs, axes)


def lattice_spread(
    x: Tensor, weights: list[Tensor], transpose: bool, graphs: int, axes: list[int]
) -> Tensor:
    """Weighted sums of the rows of x, in each class, over all axes.

    Args:
        x: Rows, with the channels last.
        weights: As :func:`lattice_pairs` gives them.
        transpose: Send from the weights' rows to their columns instead.
        graphs: As there.
        axes: As there.

    Returns:
        As ``x``.
    """
    return torch.ops.pyg_avig.lattice_spread(x, weights, transpose, graphs, axes)


def csr_pairs(
    pointer: Tensor, columns: Tensor, a: Tensor, b: Tensor, scales: list[Tensor]
) -> Tensor:
    """Products of the rows and columns of each entry of a CSR matrix.

    Args:
        pointer: Where each row's entries begin, (rows + 1,).
        columns: The column of each entry, (E,).
        a: (rows, heads, C).
        b: (columns, heads, C).
        scales: As in :func:`lattice_pairs`: (rows, heads) and (columns, heads).

    Returns:
        (E, heads).
    """
    return torch.ops.pyg_avig.csr_pairs(pointer, columns, a, b, scales)


def csr_spread(
    pointer: Tensor, columns: Tensor, order: Tensor | None, x: Tensor, weight: Tensor
) -> Tensor:
    """The product of a CSR matrix of weights and x, for each head.

    Args:
        pointer: Where each row's entries begin, (rows + 1,).
        columns: The column of each entry, (E,).
        order: Which weight belongs to each entry, (E,); ``None`` for its own.
        x: (columns, heads, C).
        weight: (E, heads).

    Returns:
        (rows, heads, C).
    """
    return torch.ops.pyg_avig.csr_spread(pointer, columns, order, x, weight)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; ``None`` where there can be none, and the log says why."""
    if os.environ.get("PYG_AVIG_KERNELS") == "0":
        return None
    try:
        path = _compiled()
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # Broken in the cache, perhaps.
            path.unlink()
            return ctypes.CDLL(str(_compiled()))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        _log.warning("PyTorch's products serve instead of the C++ kernels: %s", error)
        return None


def _compiled() -> Path:
    """The library for this source and compiler, taken from the cache if it is there."""
    found = shutil.which("c++") or shutil.which("g++")
    compiler = shlex.split(os.environ.get("CXX", "")) or ([found] if found else [])
    if not compiler:
        raise RuntimeError("found no C++ compiler (c++, g++ or $CXX)")
    command = [*compiler, *_FLAGS]
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True)
    files = sorted(_SOURCES.iterdir())
    what = [*(file.read_bytes() for file in files), " ".join(command).encode(), version.stdout]
    key = hashlib.sha256(b"\0".join(what)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "pyg_avig" / "kernels" / f"{platform.machine()}-{key}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = Path(folder) / path.name
            command += [str(file) for file in files if file.suffix == ".cpp"]
            run = subprocess.run([*command, "-o", str(built)], capture_output=True)
            if run.returncode != 0:
                said = run.stderr.decode(errors="replace")
                raise RuntimeError(f"{' '.join(command)} failed:\n{said}")
            built.replace(path)  # Whole or not at all, whoever else compiles it now.
    return path


def _run(name: str, dtype: torch.dtype, *args: Any) -> None:
    """Call a kernel of a type with tensors, numbers, ``None``, and lists of one of them.

    The kernels see memory alone, so what does not fit must not reach them.
    """
    flat = [x for arg in args for x in (arg if isinstance(arg, list) else [arg])]
    for x in flat:
        if isinstance(x, Tensor) and not (x.is_contiguous() and x.dtype in (dtype, torch.int64)):
            raise RuntimeError(
                f"{name}: expected contiguous tensors of {dtype}, indices of int64 (got {x.dtype}, "
                f"shape {tuple(x.shape)}, strides {x.stride()})"
            )
    getattr(library(), f"{name}_{_TYPES[dtype]}")(*map(_to_c, args))


def _to_c(value: Any) -> Any:
    if value is None:
        return ctypes.c_void_p()
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, list):
        values = [_to_c(v) for v in value]
        return (type(values[0]) * len(values))(*values)
    return ctypes.c_int64(value)


# Operators of PyTorch, so that its profiler, flop counter and fake tensors see them.
_operators = torch.library.Library("pyg_avig", "FRAGMENT")
_operators.define(
    "lattice_pairs(Tensor a, Tensor b, Tensor[] scales, int graphs, int[] axes) -> Tensor[]"
)
_operators.define(
    "lattice_spread(Tensor x, Tensor[] weights, bool transpose, int graphs, int[] axes) -> Tensor"
)
_operators.define(
    "csr_pairs(Tensor pointer, Tensor columns, Tensor a, Tensor b, Tensor[] scales) -> Tensor"
)
_operators.define(
    "csr_spread(Tensor pointer, Tensor columns, Tensor? order, Tensor x, Tensor weight) -> Tensor"
)


@torch.library.impl(_operators, "lattice_pairs", "Meta")
def _empty_lattice_pairs(a, b, scales, graphs, axes):
    return [
        a.new_empty(graphs * before, inner, members, members)
        for before, members, inner in zip(axes[::3], axes[1::3], axes[2::3], strict=True)
    ]


@torch.library.impl(_operators, "lattice_pairs", "CPU")
def _lattice_pairs(a, b, scales, graphs, axes):
    weights = _empty_lattice_pairs(a, b, scales, graphs, axes)
    _run_lattice("lattice_pairs", a, [b, *(scales or (None, None))], graphs, axes, weights)
    return weights


@torch.library.impl(_operators, "lattice_spread", "Meta")
def _empty_lattice_spread(x, weights, transpose, graphs, axes):
    return torch.empty_like(x)


@torch.library.impl(_operators, "lattice_spread", "CPU")
def _lattice_spread(x, weights, transpose, graphs, axes):
    out = torch.empty_like(x)
    _run_lattice("lattice_spread", x, [out, transpose], graphs, axes, weights)
    return out


def _run_lattice(
    name: str, x: Tensor, args: list[Any], graphs: int, axes: list[int], weights: list[Tensor]
) -> None:
    if x.numel() == 0:
        for weight in weights:
            weight.zero_()
    else:
        rows, channels = x.numel() // x.size(-1), x.size(-1)
        sizes = channels, graphs, rows // graphs, len(weights)
        _run(name, x.dtype, x, *args, *sizes, axes, weights)


@torch.library.impl(_operators, "csr_pairs", "Meta")
def _empty_csr_pairs(pointer, columns, a, b, scales):
    return a.new_empty(columns.size(0), a.size(1))


@torch.library.impl(_operators, "csr_pairs", "CPU")
def _csr_pairs(pointer, columns, a, b, scales):
    out = _empty_csr_pairs(pointer, columns, a, b, scales)
    scales = scales or (None, None)
    _run("csr_pairs", a.dtype, a, b, *scales, out, pointer, columns, *a.shape)
    return out


@torch.library.impl(_operators, "csr_spread", "Meta")
def _empty_csr_spread(pointer, columns, order, x, weight):
    return x.new_empty(pointer.size(0) - 1, *x.shape[1:])


@torch.library.impl(_operators, "csr_spread", "CPU")
def _csr_spread(pointer, columns, order, x, weight):
    out = _empty_csr_spread(pointer, columns, order, x, weight)
    _run("csr_spread", x.dtype, x, weight, out, pointer, columns, order, *out.shape)
    return out


@register_flop_formula(torch.ops.pyg_avig.lattice_pairs)
def _flops_of_lattice_pairs(a, *_, out_shape, **__) -> int:
    return sum(2 * math.prod(weight) * a[-1] for weight in out_shape)


@register_flop_formula(torch.ops.pyg_avig.lattice_spread)
def _flops_of_lattice_spread(x, weights, *_, **__) -> int:
    return sum(2 * math.prod(weight) * x[-1] for weight in weights)


@register_flop_formula(torch.ops.pyg_avig.csr_pairs)
def _flops_of_csr_pairs(pointer, columns, a, *_, out_shape, **__) -> int:
    return 2 * math.prod(out_shape) * a[-1]


@register_flop_formula(torch.ops.pyg_avig.csr_spread)
def _flops_of_csr_spread(pointer, columns, order, x, weight, **_) -> int:
    return 2 * math.prod(weight) * x[-1]
