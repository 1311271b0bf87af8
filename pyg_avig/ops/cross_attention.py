"""The public operator: checks its input, picks a path, can say why it refused one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pyg_avig.errors import InputError
from pyg_avig.graphs.axial import AxialGraph
from pyg_avig.ops import axial, reference
from pyg_avig.ops.affinity import get_affinity


def cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    graph: Tensor | AxialGraph,
    beta: Tensor,
    affinity: str = "exponential",
    *,
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
        graph: An edge list (2, E), source to target, or an :class:`AxialGraph`.
        beta: Inverse temperature of each head, (heads,), not negative.
        affinity: Name of a registered affinity (:mod:`pyg_avig.ops.affinity`).
        dropout: Probability of dropping a weight.
        backend: ``None`` chooses; a name of :func:`backends` forces one.

    Returns:
        (N_target, heads, C'), in the dtype of ``value``. Similarity and weights are
        computed in at least fp32.

    Raises:
        InputError: If shapes do not fit, or the forced backend does not take the graph.
        IndexError: If the edge list names a node that is not there.
    """
    get_affinity(affinity)
    _check_shapes(query, key, value, beta)
    if backend is None:
        backend = next(name for name in _BACKENDS if refusal(name, graph) is None)
    elif (reason := refusal(backend, graph)) is not None:
        raise InputError(f"backend {backend!r} cannot run here: {reason}")
    return _BACKENDS[backend](query, key, value, graph, beta, affinity, dropout)


def backends() -> list[str]:
    """The names of all backends, in the order in which they are tried."""
    return list(_BACKENDS)


def refusal(backend: str, graph: Tensor | AxialGraph) -> str | None:
    """Why ``backend`` does not take ``graph``; ``None`` if it does."""
    if backend not in _BACKENDS:
        raise InputError(f"backend must be one of {backends()} (got {backend!r})")
    if backend == "axial" and not isinstance(graph, AxialGraph):
        return f"it takes an AxialGraph (got {type(graph).__name__})"
    return None


def _axial(query, key, value, graph, beta, affinity, dropout) -> Tensor:
    for name, x in (("query", query), ("key", key)):
        if len(x) != graph.num_nodes:
            raise InputError(f"{graph} has {graph.num_nodes} nodes, but {name} has {len(x)} rows")
    return axial.cross_attention(query, key, value, graph, beta, affinity, dropout)


def _edge_list(query, key, value, graph, beta, affinity, dropout) -> Tensor:
    edge_index = graph.edge_index if isinstance(graph, AxialGraph) else graph
    check_edge_index(edge_index, len(key), len(query))
    return reference.cross_attention(query, key, value, edge_index, beta, affinity, dropout)


_BACKENDS: dict[str, Callable[..., Tensor]] = {"axial": _axial, "edge_list": _edge_list}


def check_edge_index(edge_index: Tensor, num_sources: int, num_targets: int) -> None:
    """Refuse what is not an edge list (2, E) between so many sources and targets."""
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.is_floating_point():
        raise InputError(
            "edge_index must be an integer tensor of shape (2, E) "
            f"(got {edge_index.dtype}, {tuple(edge_index.shape)})"
        )
    # Looking at the values would break a compiled graph and stall an accelerator.
    if torch.compiler.is_compiling() or edge_index.device.type != "cpu" or edge_index.numel() == 0:
        return
    for row, name, limit in ((0, "source", num_sources), (1, "target", num_targets)):
        low, high = (int(v) for v in edge_index[row].aminmax())
        if low < 0 or high >= limit:
            raise IndexError(
                f"edge_index[{row}] must lie in the interval [0, {limit}), the {name} "
                f"nodes (got values from {low} to {high})"
            )


def _check_shapes(query: Tensor, key: Tensor, value: Tensor, beta: Tensor) -> None:
    shapes = ", ".join(
        f"{name} {tuple(x.shape)}"
        for name, x in (("query", query), ("key", key), ("value", value), ("beta", beta))
    )
    fits = (
        query.dim() == key.dim() == value.dim() == 3
        and query.shape[1:] == key.shape[1:]
        and key.shape[:2] == value.shape[:2]
        and tuple(beta.shape) == (query.size(1),)
    )
    if not fits:
        raise InputError(
            "expected query (N_target, heads, C), key (N_source, heads, C), value "
            f"(N_source, heads, C') and beta (heads,) (got {shapes})"
        )
