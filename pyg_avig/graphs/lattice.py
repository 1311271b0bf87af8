"""Node features on a lattice, and the image that they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from pyg_avig.errors import InputError


def lattice_size(data: Data) -> tuple[int, ...]:
    """The size of the lattice that ``data``, or every graph of a batch, lies on.

    Args:
        data: A ``Data`` or ``Batch`` with the field ``lattice_size``: one tuple
            of ints a graph, as the transforms of this package write it.

    Raises:
        InputError: If the field is missing, or the graphs of a batch differ.
    """
    size = getattr(data, "lattice_size", None)
    if size is None:
        raise InputError(
            f"expected a graph with the field `lattice_size`, as ImageToGraph makes it (got {data})"
        )
    return _common("lattice_size", size, isinstance(data, Batch))


def nodes_to_grid(x: Tensor, size: Sequence[int]) -> Tensor:
    """View node features (B * N, C) as a channels-last batch (B, C, *size); no copy."""
    if x.dim() != 2 or x.size(0) % math.prod(size):
        raise InputError(
            f"expected node features (B * N, C) of lattices {tuple(size)} (got {tuple(x.shape)})"
        )
    grid = x.view(-1, *size, x.size(-1))
    return grid.movedim(-1, 1)


def grid_to_nodes(grid: Tensor) -> Tensor:
    """The node features (B * N, C) of (B, C, *size); a view if that is channels-last."""
    return grid.movedim(1, -1).reshape(-1, grid.size(1))


def graph_images(data: Data) -> Tensor:
    """The images (B, C, H, W) that a graph or batch of graphs was made of.

    The inverse of :class:`~pyg_avig.transforms.ImageToGraph`. For patches of one pixel a
    channels-last view of the node features, not a copy.
    """
    size = lattice_size(data)
    if data.get("patch_size") is None or data.x is None:
        raise InputError(f"expected a graph with the fields x and patch_size (got {data})")
    p_h, p_w = _common("patch_size", data.patch_size, isinstance(data, Batch))
    grid = nodes_to_grid(data.x, size)
    if (p_h, p_w) == (1, 1):
        return grid
    rows, columns = size
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
    # Copied in two steps, as runs of a patch's width alone would be slow.
    nodes = pixels.reshape(batch, -1, rows * columns).transpose(1, 2)
    # A clone, as one channel or one patch alone would be a view, and the nodes are not the image's.
    nodes = nodes.clone(memory_format=torch.contiguous_format)
    return nodes.view(batch * rows * columns, -1)


def _common(name: str, values: Sequence, is_batch: bool) -> tuple:
    """The value that all graphs of a batch have in common (a lone graph's own)."""
    values = list(values) if is_batch else [values]
    for value in values:
        if tuple(value) != tuple(values[0]):
            raise InputError(
                f"expected graphs of one {name} in a batch (got {tuple(values[0])} and "
                f"{tuple(value)}); put equal ones together, or use a model that reads "
                "edge_index"
            )
    return tuple(values[0])
