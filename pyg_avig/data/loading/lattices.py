"""Batches of graphs that are lattices of one size, made without what such have in common."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import default_collate
from torch_geometric.data import Batch, Data

from pyg_avig.graphs.cache import cache_by_size
from pyg_avig.transforms import ImageToGraph

_FIELDS = {"x", "y", "lattice_size", "patch_size"}


class PixelsToGraph(ImageToGraph):
    """:class:`~pyg_avig.transforms.ImageToGraph` of one node a pixel, for images nobody else holds.

    The nodes are a view of the image. That puts the numbers of a pixel side by side is left to
    :func:`collate_lattices`, which copies anyway.
    """

    def __init__(self) -> None:
        super().__init__(patch_size=1, edges=False)

    def _nodes(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        _, height, width = pixels.shape
        return pixels.flatten(1).t(), (height, width)


def collate_lattices(graphs: Sequence[Data]) -> Batch:
    """PyG's ``Batch`` of graphs; those of one size share all that hangs on the size alone.

    The vectors ``batch`` and ``ptr`` are made once for a number of equal lattices, so do not write
    into them.

    Args:
        graphs: Such as :class:`~pyg_avig.transforms.ImageToGraph` makes them with ``edges=False``;
            others are collated as PyG does it.
    """
    first = graphs[0]
    shapes = _shapes(first)
    if shapes is None or any(_shapes(graph) != shapes for graph in graphs[1:]):
        return Batch.from_data_list(list(graphs))
    batch = copy.copy(_alike(len(graphs), *shapes))
    for name, _ in shapes[0]:
        batch[name] = default_collate([graph[name] for graph in graphs]).flatten(0, 1)
    return batch


def _shapes(graph: Data) -> tuple | None:
    """What equal lattices have in common; ``None`` if the graph is none, or has more to it."""
    names = list(graph.keys())
    tensors = [(name, graph[name]) for name in names if name in ("x", "y")]
    plain = (
        type(graph) is Data
        and set(names) <= _FIELDS
        and {"x", "lattice_size"} <= set(names)
        and all(isinstance(value, Tensor) and value.dim() for _, value in tensors)
    )
    if not plain:
        return None
    return (
        tuple((name, (value.shape, value.dtype, value.device)) for name, value in tensors),
        tuple((name, graph[name]) for name in names if name not in ("x", "y")),
    )


@cache_by_size
def _alike(number: int, tensors: tuple, others: tuple) -> Batch:
    """A batch of as many equal lattices, without their tensors."""
    graph = Data(**dict(others))
    for name, (shape, dtype, device) in tensors:
        graph[name] = torch.empty((), dtype=dtype, device=device).expand(shape)
    batch = Batch.from_data_list([graph] * number)
    for name, _ in tensors:
        del batch[name]
    return batch
