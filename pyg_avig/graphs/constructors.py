"""The table of graph constructors: from nodes to the edges between them.

Each is a PyG transform that sets ``edge_index``, one a file, and enters itself here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform
from torch_geometric.utils import cumsum

from pyg_avig.errors import InputError
from pyg_avig.graphs.adjacency import Adjacency, to_edge_list
from pyg_avig.graphs.axial_graph import AxialGraph


class GraphConstructor(BaseTransform):
    """What all constructors share: ``constructor(data)`` joins the nodes of a graph.

    Takes a ``Data`` or ``Batch``; edges never leave a graph, go from source to target, come ordered
    by target, and join no node with itself and no pair twice. What a constructor needs of ``data``
    stands in its docstring.

    What was said of the old edges is dropped: ``edge_attr`` and ``edge_weight``, ``adj`` and
    ``adj_t``, and of all other fields those as long as the old edges, if ``edge`` is in their name
    or there are not as many nodes or graphs. ``x``, ``pos``, ``y``, ``batch`` and ``ptr`` stay, and
    so do the pairs of ``edge_label_index`` with their ``edge_label``.

    Raises:
        InputError: For graphs of several kinds of nodes, such as ``HeteroData``.
    """

    @property
    def reads_features(self) -> bool:
        """Whether the edges depend on ``x``, and so change from block to block of a model."""
        return getattr(self, "of", None) == "x"

    @abstractmethod
    def graph(self, data: Data) -> Tensor | AxialGraph:
        """The edges, (2, E), or a graph that knows them without holding them."""

    def on_lattice(self, x: Tensor, size: Sequence[int]) -> Adjacency:
        """The graph of node features (B * N, C) on B lattices of one size.

        As of a ``Batch`` of graphs with ``x``, ``lattice_size`` and the nodes' places as ``pos``.
        """
        places = torch.cartesian_prod(*map(torch.arange, size)).view(-1, len(size))
        copies = len(x) // len(places)
        batch = torch.arange(copies).repeat_interleave(len(places))
        pos = places.repeat(copies, 1).to(x)
        data = Data(x=x, pos=pos, batch=batch.to(x.device), lattice_size=tuple(size))
        return self.graph(data)

    def forward(self, data: Data) -> Data:
        """Set the edges."""
        if not isinstance(data, Data):
            raise InputError(
                f"expected a Data or Batch of one kind of nodes (got {type(data).__name__})"
            )
        edge_index = to_edge_list(self.graph(data)).edge_index
        for name in _edge_fields(data):
            del data[name]
        data.edge_index = edge_index
        if isinstance(data, Batch) and hasattr(data, "_slice_dict"):
            _note_graphs_of_edges(data)
        return data

    def __repr__(self) -> str:
        args = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{self.__class__.__name__}({args})"


def _edge_fields(data: Data) -> list[str]:
    """The fields that speak of single edges, but for ``edge_index``."""
    names = {"edge_attr", "edge_weight", "adj", "adj_t"} & set(data.keys())
    if data.get("edge_index") is None:
        return sorted(names)
    others = set(data.keys()) - {"edge_index", "edge_label_index", "x", "pos", "y", "batch", "ptr"}
    if "edge_label_index" in data:
        others -= {"edge_label"}
    # The coincidence of a number of edges with one of these does not make a field one of edges.
    counts = {data.num_nodes, data.num_graphs if isinstance(data, Batch) else 1}
    for name in others:
        value, number = data[name], data.num_edges
        if "edge" in name or (number not in counts and isinstance(value, (Tensor, np.ndarray))):
            names |= {name} if _length(data, name, value) == number else set()
    return sorted(names)


def _length(data: Data, name: str, value: Any) -> int | None:
    """How many edges, nodes or graphs a field speaks of."""
    if isinstance(value, (list, tuple)):  # A batch has one a graph.
        parts = value if isinstance(data, Batch) else [value]
        return sum(len(part) for part in parts if isinstance(part, (list, tuple)))
    axis = data.__cat_dim__(name, value)
    if not isinstance(value, (Tensor, np.ndarray)) or not value.ndim or not isinstance(axis, int):
        return None
    return value.shape[axis]


def _note_graphs_of_edges(batch: Any) -> None:
    """Tell a batch which edges are whose, so that it comes apart again."""
    ends = torch.tensor(node_ranges(batch))
    slices = torch.searchsorted(batch.edge_index[1].cpu().contiguous(), ends)
    batch._slice_dict = {**batch._slice_dict, "edge_index": slices}
    batch._inc_dict = {**batch._inc_dict, "edge_index": ends[:-1]}


_CONSTRUCTORS: dict[str, type[GraphConstructor]] = {}
_Class = TypeVar("_Class", bound=type[GraphConstructor])


def register_graph(name: str) -> Callable[[_Class], _Class]:
    """Enter the decorated constructor into the table."""

    def register(constructor: _Class) -> _Class:
        _CONSTRUCTORS[name] = constructor
        return constructor

    return register


def graph_names() -> list[str]:
    """The names of all registered graph constructors."""
    return sorted(_CONSTRUCTORS)


def make_graph(name: str, **args: Any) -> GraphConstructor:
    """The constructor registered under ``name``, with its arguments.

    Raises:
        InputError: If there is none of this name, or its arguments are others.

    Example:
        >>> from pyg_avig.graphs import make_graph
        >>> type(make_graph("radius", r=0.1)).__name__
        'RadiusEdges'
    """
    if name not in _CONSTRUCTORS:
        raise InputError(f"graph must be one of {graph_names()} (got {name!r})")
    try:
        return _CONSTRUCTORS[name](**args)
    except TypeError as error:
        raise InputError(f"expected arguments of the graph {name!r} ({error})") from None


def points_of(data: Data, field: str) -> Tensor:
    """The points (N, D) between whose nodes distances are taken.

    Raises:
        InputError: If the field is missing, has another shape, or is not finite.
    """
    points = data.get(field)
    if not isinstance(points, Tensor) or points.dim() != 2 or not points.is_floating_point():
        found = tuple(points.shape) if isinstance(points, Tensor) else points
        raise InputError(f"expected data.{field} of shape (N, D), floating point (got {found})")
    if data.num_nodes != len(points):
        raise InputError(f"expected {data.num_nodes} points in data.{field} (got {len(points)})")
    if not points.isfinite().all():
        raise InputError(f"expected finite points in data.{field} (got NaN or infinity)")
    return points.detach().to(torch.promote_types(points.dtype, torch.float32))


def node_ranges(data: Data) -> list[int]:
    """Where the nodes of each graph of a batch begin, and at the end the number of nodes."""
    if isinstance(data, Batch) and data.get("ptr") is not None:
        return data.ptr.tolist()
    batch = data.get("batch")
    if batch is None:
        return [0, int(data.num_nodes or 0)]
    if (batch.diff() < 0).any():
        raise InputError("expected the nodes of a batch graph after graph (got them mixed)")
    return cumsum(batch.bincount()).tolist()


def device_of(data: Data) -> torch.device:
    """Where the nodes are."""
    nodes = data.x if data.x is not None else data.pos
    return torch.device("cpu") if nodes is None else nodes.device


def graphs_of(data: Data) -> Iterator[slice]:
    """The nodes of each graph of a batch."""
    ends = node_ranges(data)
    yield from map(slice, ends[:-1], ends[1:])


def ordered(edge_index: Tensor) -> Tensor:
    """Edges ordered by target, then as they came."""
    return edge_index[:, torch.argsort(edge_index[1], stable=True)]


def positive(name: str, value: float, kind: type = int) -> Any:
    """A positive number, as an ``int`` or ``float``; raises an InputError for any other value."""
    known = Integral if kind is int else Real  # NumPy's too.
    if isinstance(value, bool) or not isinstance(value, known) or not value > 0:
        raise InputError(f"{name} must be a positive {kind.__name__} (got {value!r})")
    return kind(value)
