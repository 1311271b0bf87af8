"""The operators on a GPU: launches of the kernels in Triton, by the same source on CUDA and ROCm.

No atomic operations, and one order of every sum: equal input gives equal output. A kernel that
fails, for want of a C compiler or of support for the card, leaves the work to PyTorch's own
operations from then on; the log says why, once.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyg_avig.ops.kernels import composed, schemas

# Members M of a class up to which the kernels serve. Computed, not measured: the products of M rows
# with M others take M / 4 operations for each byte of single precision, and up to about 16 of them
# a GPU waits for its memory. Beyond, a matrix library is worth the permuted copies that it needs.
SMALL = 64
_TILE = 128  # Channels, of one head or several, that a tile of edges holds.
_EDGES = 16  # Edges in a tile.
_log = logging.getLogger(__name__)
_MOST = 2**16 - 1  # Programs along the second and third axis of a grid.
_failed: set[tuple[torch.device, torch.dtype]] = set()


def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the kernels do not serve features of ``dtype`` here; ``None`` if they do."""
    if os.environ.get("PYG_AVIG_KERNELS") == "0":
        return "PYG_AVIG_KERNELS=0 turns its kernels off"
    if not _has_triton():
        return "its kernels for GPUs need Triton, which is not installed"
    for where, kind in _failed:
        if kind == dtype and device.index in (None, where.index):
            return f"its kernels failed for {dtype} on this GPU (the log says why)"
    return None


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _run(name: str, launches: Sequence[tuple[tuple[int, ...], list[Any], dict[str, Any]]]) -> bool:
    """Run a kernel, in turn on each grid with its arguments and what it is compiled for.

    Returns:
        Whether it could be run.
    """
    tensors = [x for _, args, _ in launches for x in args if isinstance(x, Tensor)]
    device, dtype = tensors[0].device, next(x.dtype for x in tensors if x.is_floating_point())
    for x in tensors:  # A mistake of the caller's says nothing of the kernels.
        if x.device != device:
            raise RuntimeError(f"{name}: expected tensors on one device (got {device}, {x.device})")
    fits = all(max(grid[1:]) <= _MOST for grid, _, _ in launches)
    if not fits or refusal(device, dtype) is not None:
        return False
    try:
        for grid, args, sizes in launches:
            with torch.cuda.device_of(args[0]):  # Triton launches on the current one.
                _kernel(name)[grid](*args, **sizes)
    except Exception as error:  # Triton, its compilers and drivers have no common one.
        if not is_captured():  # Much fails in a CUDA graph that works outside of it.
            _failed.add((device, dtype))
        _log.warning("PyTorch serves instead of the Triton kernels: %s: %s", name, error)
        return False
    return True


def is_captured() -> bool:
    """Whether a CUDA graph is being captured."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def _kernel(name: str) -> Any:
    from pyg_avig.ops.kernels.triton import axial, csr

    return getattr(axial if name.startswith("axial") else csr, name)


def axial_pairs(
    a: Tensor, b: Tensor, scales: list[Tensor], graphs: int, axes: list[int]
) -> list[Tensor]:
    """See :func:`pyg_avig.ops.kernels.axial_pairs`."""
    schemas.check("axial_pairs", a.dtype, a, b)
    schemas.check("axial_pairs", schemas.weight_dtype(a), *scales)
    weights = schemas.empty_axial_pairs(a, b, scales, graphs, axes)
    if a.numel() == 0:
        return [weight.zero_() for weight in weights]
    launches = []
    for weight in weights:
        before, inner, members, _ = weight.shape
        tiles = _axial_tiles(members, weight.dtype)
        high = _parts(members, tiles["ROWS"])
        args = [a, b, *(scales or (a, a)), weight, members, inner, a.size(-1)]
        sizes = {"SCALED": bool(scales), **tiles}
        launches.append(((before * inner, high, high), args, sizes))
    if not _run("axial_pairs", launches):
        return composed.axial_pairs(a, b, scales, graphs, axes)
    return weights


def axial_spread(
    x: Tensor, weights: list[Tensor], transpose: bool, graphs: int, axes: list[int]
) -> Tensor:
    """See :func:`pyg_avig.ops.kernels.axial_spread`."""
    schemas.check("axial_spread", x.dtype, x)
    schemas.check("axial_spread", schemas.weight_dtype(x), *weights)
    out = torch.empty_like(x)
    if x.numel() == 0:
        return out
    # The axes add up in single precision at least, so half-precision numbers are rounded once.
    sums = torch.empty_like(x, dtype=schemas.weight_dtype(x)) if len(weights) > 1 else out
    launches = []
    for n, weight in enumerate(weights):
        before, inner, members, _ = weight.shape
        tiles = _axial_tiles(members, weight.dtype)
        grid = before * inner, _parts(members, tiles["ROWS"]), _parts(x.size(-1), tiles["CHANNELS"])
        target = out if n == len(weights) - 1 else sums
        args = [x, weight, sums, target, members, inner, x.size(-1)]
        launches.append((grid, args, {"ADD": n > 0, "TRANSPOSE": transpose, **tiles}))
    if not _run("axial_spread", launches):
        return composed.axial_spread(x, weights, transpose, graphs, axes)
    return out


def _axial_tiles(members: int, dtype: torch.dtype) -> dict[str, Any]:
    """Tiles small enough for the memory that every GPU has beside its arithmetic, in fp64 too."""
    rows = min(max(_power_of_2(members), 16), SMALL)
    return {"ROWS": rows, "CHANNELS": 32, "PRECISION": _precision(dtype), "num_stages": 2}


def _precision(dtype: torch.dtype) -> str:
    """That of products: TF32 where PyTorch was told that it may, and the GPU has it."""
    asked = torch.get_float32_matmul_precision() != "highest" and dtype == torch.float32
    return "tf32" if asked and torch.version.hip is None else "ieee"


def csr_pairs(
    pointer: Tensor, columns: Tensor, a: Tensor, b: Tensor, scales: list[Tensor]
) -> Tensor:
    """See :func:`pyg_avig.ops.kernels.csr_pairs`."""
    out = schemas.empty_csr_pairs(pointer, columns, a, b, scales)
    schemas.check("csr_pairs", a.dtype, a, b)
    schemas.check("csr_pairs", out.dtype, *scales)
    schemas.check("csr_pairs", torch.int64, pointer, columns)
    rows, heads, channels = a.shape
    if out.numel() == 0 or channels == 0:
        return out.zero_()
    tiles = _csr_tiles(heads, channels)
    args = [pointer, columns, a, b, *(scales or (a, a)), out, heads, channels]
    launch = (rows, _parts(heads, tiles["HEADS"])), args, {"SCALED": bool(scales), **tiles}
    if not _run("csr_pairs", [launch]):
        return composed.csr_pairs(pointer, columns, a, b, scales)
    return out


def csr_spread(
    pointer: Tensor, columns: Tensor, order: Tensor | None, x: Tensor, weight: Tensor
) -> Tensor:
    """See :func:`pyg_avig.ops.kernels.csr_spread`."""
    out = schemas.empty_csr_spread(pointer, columns, order, x, weight)
    schemas.check("csr_spread", x.dtype, x)
    schemas.check("csr_spread", schemas.weight_dtype(x), weight)
    schemas.check("csr_spread", torch.int64, pointer, columns, *([] if order is None else [order]))
    if out.numel() == 0:
        return out
    rows, heads, channels = out.shape
    tiles = _csr_tiles(heads, channels)
    grid = rows, _parts(heads, tiles["HEADS"]), _parts(channels, tiles["CHANNELS"])
    args = [pointer, columns, columns if order is None else order, x, weight, out, heads, channels]
    if not _run("csr_spread", [(grid, args, {"ORDERED": order is not None, **tiles})]):
        return composed.csr_spread(pointer, columns, order, x, weight)
    return out


def _csr_tiles(heads: int, channels: int) -> dict[str, int]:
    """Tiles of a row's edges: of one head's channels, or of several narrow heads."""
    wide = min(_power_of_2(channels), _TILE)
    several = min(_power_of_2(heads), _TILE // wide)
    warps = 4 if wide * several > 32 else 1
    return {"EDGES": _EDGES, "HEADS": several, "CHANNELS": wide, "num_warps": warps}


def _parts(length: int, tile: int) -> int:
    return -(-length // tile)


def _power_of_2(n: int) -> int:
    """The least power of two that is no less than n."""
    return 1 << max(n - 1, 0).bit_length()


OPERATORS: dict[str, Callable[..., Any]] = {
    "axial_pairs": axial_pairs,
    "axial_spread": axial_spread,
    "csr_pairs": csr_pairs,
    "csr_spread": csr_spread,
}
for _name, _operator in OPERATORS.items():
    torch.library.impl(schemas.OPERATORS, _name, "CUDA")(_operator)
