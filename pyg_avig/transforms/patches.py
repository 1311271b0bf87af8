"""What images and clips have in common on their way to graphs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_avig.errors import InputError
from pyg_avig.graphs.axial_graph import AxialGraph
from pyg_avig.graphs.cache import cache_by_size
from pyg_avig.graphs.constructors import positive
from pyg_avig.graphs.lattice import patch_centres


class PatchesToGraph(BaseTransform):
    """Cut pixels into patches, one node each, joined as SVGA joins them.

    A subclass names its field, makes a tensor of what is given, and cuts it.

    Args:
        patch: Side of a patch along each axis.
        stride: The K of SVGA along each axis.
        edges: ``False`` leaves edges and positions implicit.
    """

    field: str
    """Where a ``Data`` holds what is cut."""
    noun: str
    """What it is called in messages, with its article."""
    patch_field: str
    """Where the graph keeps the size of a patch."""

    def __init__(self, patch: tuple[int, ...], stride: tuple[int, ...], edges: bool) -> None:
        setattr(self, self.patch_field, patch)
        self.stride = stride
        self.edges = edges

    @abstractmethod
    def _pixels(self, given: Any) -> Tensor:
        """What is cut, as a float tensor."""

    @abstractmethod
    def _nodes(self, pixels: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """The patches (N, D), in memory of their own, and the size of their lattice."""

    def forward(self, data: Any) -> Data:
        """Transform one of them."""
        if isinstance(data, Data):
            if data.get(self.field) is None:
                raise InputError(f"expected a Data with the field `{self.field}` (got {data})")
            out, given = data, data[self.field]
            del out[self.field]
        elif isinstance(data, (tuple, list)):
            if len(data) != 2:
                raise InputError(
                    f"expected {self.noun} or a pair ({self.field}, y) (got {len(data)} items)"
                )
            given, y = data
            out = Data() if y is None else Data(y=label_tensor(y))
        else:
            out, given = Data(), data

        patch = getattr(self, self.patch_field)
        out.x, size = self._nodes(self._pixels(given))
        if self.edges:
            graph, out.pos = _lattice(size, self.stride, patch)
            out.edge_index = graph.edge_index
        out.lattice_size, out[self.patch_field] = size, patch
        return out

    def __repr__(self) -> str:
        args = ", ".join(f"{name}={value}" for name, value in vars(self).items())
        return f"{self.__class__.__name__}({args})"


@cache_by_size
def _lattice(
    size: tuple[int, ...], stride: tuple[int, ...], patch: tuple[int, ...]
) -> tuple[AxialGraph, Tensor]:
    """The graph of a lattice, which keeps its edges, and the centres of its patches."""
    return AxialGraph(size, stride), patch_centres(size, patch)


def checked_pixels(pixels: Tensor, noun: str, layout: str) -> Tensor:
    """Finite pixels in floating point; bytes are scaled to [0, 1].

    Args:
        pixels: A tensor.
        noun: What it is called in messages, with its article.
        layout: Its axes, such as ``(C, H, W)``.
    """
    if pixels.dim() != layout.count(",") + 1:
        raise InputError(f"expected {noun} of shape {layout} (got {tuple(pixels.shape)})")
    if pixels.dtype == torch.uint8:
        return pixels.float() / 255
    if not pixels.is_floating_point():
        raise InputError(f"expected {noun} of dtype uint8 or float (got {pixels.dtype})")
    # NaN and infinity show in the sum too, and are found there much faster.
    if not pixels.sum().isfinite() and (bad := int((~pixels.isfinite()).sum())):
        raise InputError(f"expected finite pixels (got NaN or infinity in {bad} of them)")
    return pixels


def label_tensor(y: Any) -> Tensor:
    """A label as a field of a graph: tensors as they are, a number as (1,)."""
    try:
        return y if isinstance(y, Tensor) else torch.tensor([y])
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"expected y as a number or a tensor (got {y!r})") from None


def sides(name: str, value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """Positive ints, NumPy's too, one an axis; one alone is that of all axes."""
    values: Any = [value] * axes if isinstance(value, Integral) else value
    try:
        if isinstance(values, (tuple, list, np.ndarray)) and len(values) == axes:
            return tuple(positive(name, v) for v in values)
    except InputError:
        pass
    number = {2: "two", 3: "three"}[axes]
    raise InputError(f"{name} must be a positive int or {number} of them (got {value!r})")
