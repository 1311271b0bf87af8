"""Node features on a lattice, and the image that they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_avig.errors import InputError


def lattice_size(data: Data) -> tuple[int, ...]:
    """The size of the lattice that ``data``, or every graph of a batch, lies on.

    Args:
        data: A ``Data`` or ``Batch`` with the field ``lattice_size``: one tuple
            of ints a graph, as the transforms of this package write it. An int (one axis), a list
            and a tensor of ints do as well. Where a ``Data`` holds several graphs, one size alone
            is that of them all.

    Raises:
        InputError: If the field is missing or no size, or the graphs of a batch differ.
    """
    size = getattr(data, "lattice_size", None)
    if size is None:
        raise InputError(
            f"expected a graph with the field `lattice_size`, as ImageToGraph makes it (got {data})"
        )
    return _common("lattice_size", size, data)


def nodes_to_grid(x: Tensor, size: Sequence[int]) -> Tensor:
    """View node features (B * N, C) as a channels-last batch ``(B, C, *size)``; no copy."""
    if x.dim() != 2 or x.size(0) % math.prod(size):
        raise InputError(
            f"expected node features (B * N, C) of lattices {tuple(size)} (got {tuple(x.shape)})"
        )
    grid = x.view(-1, *size, x.size(-1))
    return grid.movedim(-1, 1)


def grid_to_nodes(grid: Tensor) -> Tensor:
    """The node features (B * N, C) of ``(B, C, *size)``; a view if that is channels-last."""
    return grid.movedim(1, -1).reshape(-1, grid.size(1))


def graph_images(data: Data) -> Tensor:
    """The images (B, C, H, W) that a graph or batch of graphs was made of.

    The inverse of :class:`~pyg_avig.transforms.ImageToGraph`. For patches of one pixel a
    channels-last view of the node features, not a copy.
    """
    size = lattice_size(data)
    if data.get("patch_size") is None or data.x is None:
        raise InputError(f"expected a graph with the fields x and patch_size (got {data})")
    patch = _common("patch_size", data.patch_size, data)
    if len(size) != 2 or len(patch) > 2:
        raise InputError(f"expected a lattice and patches of two axes (got {size} and {patch})")
    rows, columns = size
    p_h, p_w = patch * 2 if len(patch) == 1 else patch
    grid = nodes_to_grid(data.x, size)
    if (p_h, p_w) == (1, 1):
        return grid
    if data.x.size(1) % (p_h * p_w):
        raise InputError(
            f"expected patches of {p_h} x {p_w} pixels, C * {p_h * p_w} values each "
            f"(got {data.x.size(1)})"
        )
    patches = grid.reshape(len(grid), -1, p_h, p_w, rows, columns)
    return patches.permute(0, 1, 4, 2, 5, 3).reshape(len(grid), -1, rows * p_h, columns * p_w)


def patch_centres(size: Sequence[int], patch_size: Sequence[int]) -> Tensor:
    """Where the patches of a lattice have their centres, (N, axes), in pixels or frames."""
    centres = [
        torch.arange(n, device="cpu") * p + (p - 1) / 2
        for n, p in zip(size, patch_size, strict=True)
    ]
    return torch.cartesian_prod(*centres).view(-1, len(centres))


def image_nodes(images: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """The node features (B * N, C * P_h * P_w) of images (B, C, H, W), cut into patches.

    The inverse of :func:`graph_images`.
    """
    batch, channels, height, width = images.shape
    p_h, p_w = patch_size
    rows, columns = height // p_h, width // p_w
    pixels = images.reshape(batch, channels, rows, p_h, columns, p_w).permute(0, 1, 3, 5, 2, 4)
    width = channels * p_h * p_w
    # Copied in two steps, as runs of a patch's width alone would be slow.
    nodes = pixels.reshape(batch, width, rows * columns).transpose(1, 2)
    # A clone, as one channel or one patch alone would be a view, and the nodes are not the image's.
    nodes = nodes.clone(memory_format=torch.contiguous_format)
    return nodes.view(batch * rows * columns, width)


def _common(name: str, values: Any, data: Data) -> tuple:
    """The size that all graphs have in common."""
    sizes = _sizes(values, data)
    if not sizes or not all(size and all(_is_length(v) for v in size) for size in sizes):
        raise InputError(f"expected {name} as positive ints, one an axis (got {values!r})")
    for size in sizes:
        if size != sizes[0]:
            raise InputError(
                f"expected graphs of one {name} in a batch (got {sizes[0]} and "
                f"{size}); put equal ones together, or use a model that reads "
                "edge_index"
            )
    return sizes[0]


def _sizes(values: Any, data: Data) -> list[tuple]:
    """The size of each graph, or one alone, from whatever PyG makes of them in a batch."""
    if isinstance(values, (Tensor, np.ndarray, np.integer)):
        values = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
        graphs = 0 if data.get("ptr") is None else len(data.ptr) - 1
        if values.ndim == 1 and graphs and values.size % graphs == 0:
            values = values.reshape(graphs, -1)  # Those of graphs come end to end.
        values = values.tolist()
    if not isinstance(values, (list, tuple)):
        return [(values,)]
    if any(isinstance(value, (list, tuple, Tensor, np.ndarray)) for value in values):
        return [size for value in values for size in _sizes(value, Data())]
    size = tuple(v.item() if isinstance(v, np.integer) else v for v in values)
    # A batch keeps what it cannot put end to end as a list, here of ints.
    return [(v,) for v in size] if isinstance(data, Batch) and isinstance(values, list) else [size]


def _is_length(value: Any) -> bool:
    # A traced program has symbolic sizes.
    number = isinstance(value, (int, torch.SymInt)) and not isinstance(value, bool)
    return number and bool(value > 0)
