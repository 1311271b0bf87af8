"""The public operator: checks its input, picks a path, can say why it refused one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyg_avig.errors import InputError
from pyg_avig.graphs.adjacency import (
    Adjacency,
    check_size,
    checked_edge_list,
    is_recorded,
    num_edges,
)
from pyg_avig.graphs.axial_graph import AxialGraph
from pyg_avig.graphs.masked_axial import MaskedAxialGraph
from pyg_avig.ops import axial, csr, reference
from pyg_avig.ops.affinity import get_affinity
from pyg_avig.ops.reference import EdgeFeatures


def cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    graph: Adjacency,
    beta: Tensor,
    affinity: str = "exponential",
    *,
    edge_features: EdgeFeatures | None = None,
    dropout: float = 0.0,
    backend: str | None = None,
) -> Tensor:
    r"""Cosine cross-attention over the neighbours of each target node.

    The aggregation of `"AttentionViG: Cross-Attention-Based Dynamic Neighbor Aggregation
    in Vision GNNs" <https://arxiv.org/abs/2509.25570>`_ (section 3.1):

    .. math::
        \mathbf{m}_i = \sum_{j \in \mathcal{N}(i)} \alpha_{ij} \mathbf{v}_j, \quad
        \alpha_{ij} = \exp \bigl(-\beta (1 - \cos(\mathbf{q}_i, \mathbf{k}_j)) \bigr).

    Args:
        query: (N_target, heads, C); need not be normalised, the operator takes the cosine.
        key: (N_source, heads, C).
        value: (N_source, heads, C').
        graph: Any adjacency of PyG, or an :class:`AxialGraph`; see
            :data:`pyg_avig.graphs.Adjacency`.
        beta: Inverse temperature of each head, (heads,), not negative.
        affinity: Name of a registered affinity (:mod:`pyg_avig.ops.affinity`).
        edge_features: :class:`EdgeFeatures` ``(attr, projection)`` of shapes (E, D) and (heads, C,
            D), projected and added to the key and value that each edge carries; edges in the order
            of the graph. C' is C then. Our extension of the paper.
        dropout: Probability of dropping a weight.
        backend: A name of :func:`backends` forces one; ``None`` takes that of :func:`use_backend`,
            or else the cheapest.

    Returns:
        (N_target, heads, C'), in the dtype of ``value``. Similarity and weights are
        computed in at least fp32.

    Raises:
        InputError: If shapes do not fit, or the forced backend does not take the graph.
        IndexError: If the edge list names a node that is not there.
    """
    get_affinity(affinity)
    _check_shapes(query, key, value, beta, edge_features)
    check_size(graph, key.size(0), query.size(0))
    where = graph, query.device, edge_features is not None, query.dtype
    backend = backend or forced_backend()
    if backend is None:
        possible = [name for name in _BACKENDS if refusal(name, *where) is None]
        backend = _cheapest(possible, graph, key, value)
    elif (reason := refusal(backend, *where)) is not None:
        raise InputError(f"backend {backend!r} cannot run here: {reason}")
    args = [query, key, value, graph, beta, affinity, dropout]
    if edge_features is not None:
        args.append(edge_features)
    return _BACKENDS[backend](*args)


def backends() -> list[str]:
    """The names of all backends."""
    return list(_BACKENDS)


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Force a backend wherever none is given, in the layers of a model above all, in all threads.

    Args:
        backend: A name of :func:`backends`. Where it cannot run, the call raises an
            ``InputError`` that says why.
    """
    if backend not in _BACKENDS:
        raise InputError(f"backend must be one of {backends()} (got {backend!r})")
    global _forced
    before, _forced = _forced, backend
    try:
        yield
    finally:
        _forced = before


def forced_backend() -> str | None:
    """The backend of :func:`use_backend`, if there is one."""
    return _forced


def refusal(
    backend: str,
    graph: Adjacency,
    device: torch.device | str = "cpu",
    edge_features: bool = False,
    dtype: torch.dtype = torch.float32,
) -> str | None:
    """Why ``backend`` does not take ``graph`` and features of ``dtype`` on ``device``, if not.

    Returns:
        The reason; ``None`` if it takes them.
    """
    if backend not in _BACKENDS:
        raise InputError(f"backend must be one of {backends()} (got {backend!r})")
    if backend == "axial" and not isinstance(graph, AxialGraph):
        return f"it takes an AxialGraph (got {type(graph).__name__})"
    if backend == "axial" and edge_features:
        return "it never looks at single edges, whose features were given"
    if backend == "csr":
        return csr.refuse(graph, torch.device(device), dtype)
    return None


def _edge_list(query: Tensor, key: Tensor, value: Tensor, graph: Adjacency, *args: Any) -> Tensor:
    edge_index, _ = checked_edge_list(graph, key.size(0), query.size(0), query.device)
    return reference.edge_list_attention(query, key, value, edge_index, *args)


_BACKENDS: dict[str, Callable[..., Tensor]] = {
    "axial": axial.axial_attention,
    "csr": csr.csr_attention,
    "edge_list": _edge_list,
}
# No ContextVar, which compilers do not follow.
_forced: str | None = None


class _Cost(NamedTuple):
    """What a backend takes, forward and backward."""

    call: float
    """Microseconds of a call, beyond those that every backend takes."""
    edge: float
    """Nanoseconds for each neighbour of a node (each member of its class, in
    :mod:`~pyg_avig.ops.axial`)."""
    number: float
    """Nanoseconds for each number of a key and value that such a neighbour brings."""


# Measured by `python -m benchmarks growth` (its rows of backends), on one thread. That of the edge
# list is for few numbers; many, which no longer fit the cache, take two to three times as long.
_COSTS = {"axial": _Cost(700, 0, 0.5), "csr": _Cost(400, 50, 1.5), "edge_list": _Cost(0, 70, 3.5)}
# Microseconds to build a lattice's edges, and for each hop along an axis: always counted, as models
# make a new lattice at each call, and what runs is not to hang on what was asked for before.
_BUILD, _HOP = 100, 4


def _cheapest(possible: list[str], graph: Adjacency, key: Tensor, value: Tensor) -> str:
    """The backend that takes the least time."""
    if len(possible) == 1:
        return possible[0]
    lattice = graph if isinstance(graph, AxialGraph) else None
    if isinstance(lattice, MaskedAxialGraph) and "axial" in possible:
        return "axial"  # Its edges would have to be found first, anew at each call.
    if is_recorded() and lattice is not None and axial.is_complete(lattice):
        return "axial"  # As of other sizes too, which may be symbolic here.
    numbers = key.numel() + value.numel()
    # What a call and an edge cost has been measured on the CPU, and is to be left aside in a
    # program that is recorded once and run often.
    counted = key.device.type == "cpu" and not is_recorded()

    def cost(name: str) -> float:
        """Nanoseconds for each number of a key and value."""
        call, edge, number = _COSTS[name]
        if lattice is None:
            neighbors = num_edges(graph) / max(key.size(0), 1)
        elif name == "axial":
            neighbors = axial.num_members(lattice)
        else:
            neighbors = lattice.degree
            call += _BUILD + _HOP * lattice.degree
        if not counted:
            return number * neighbors
        return (1e3 * call + edge * neighbors * key.size(0)) / max(numbers, 1) + number * neighbors

    best = possible[0]
    for name in possible[1:]:  # A compiler takes no min() of symbolic costs.
        best = name if cost(name) < cost(best) else best
    return best


def _check_shapes(
    query: Tensor, key: Tensor, value: Tensor, beta: Tensor, edge_features: EdgeFeatures | None
) -> None:
    fits = (
        query.dim() == key.dim() == value.dim() == 3
        and query.shape[1:] == key.shape[1:]
        and key.shape[:2] == value.shape[:2]
        and beta.shape == query.shape[1:2]
    )
    if not fits:
        raise InputError(
            "expected query (N_target, heads, C), key (N_source, heads, C), value "
            f"(N_source, heads, C') and beta (heads,) (got query {tuple(query.shape)}, key "
            f"{tuple(key.shape)}, value {tuple(value.shape)} and beta {tuple(beta.shape)})"
        )
    if edge_features is None:
        return
    attr, projection = edge_features
    fits = attr.dim() == 2 and projection.shape == (*key.shape[1:], attr.size(1))
    if not fits or value.shape != key.shape:
        raise InputError(
            f"expected edge_features (E, D) and (heads, C, D), and values as wide as keys (got "
            f"{tuple(attr.shape)}, {tuple(projection.shape)}, key {tuple(key.shape)} and value "
            f"{tuple(value.shape)})"
        )
