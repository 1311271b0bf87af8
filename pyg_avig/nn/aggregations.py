"""The table of aggregations that a Grapher can be built on: ours, and what it is compared with.

Each entry makes a layer from node features (N, C) to (N, C), called as
``layer(x, graph, edge_attr)`` with any adjacency and edge features (E, D) or ``None``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch_geometric import nn as gnn

from pyg_avig.errors import InputError
from pyg_avig.graphs.adjacency import Adjacency, to_edge_list
from pyg_avig.graphs.constructors import positive
from pyg_avig.nn.cross_attn_conv import CrossAttnConv
from pyg_avig.nn.max_relative_conv import MaxRelativeConv

_AGGREGATIONS: dict[str, Callable[..., nn.Module]] = {}


def register_aggregation(function: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Enter the decorated function into the table under its own name.

    It takes ``(channels, heads, edge_dim, **args)``, where ``edge_dim`` is ``None`` or the size of
    the edge features.
    """
    _AGGREGATIONS[function.__name__] = function
    return function


def aggregation_names() -> list[str]:
    """The names of all registered aggregations."""
    return sorted(_AGGREGATIONS)


def make_aggregation(
    name: str, channels: int, heads: int = 1, edge_dim: int | None = None, **args: Any
) -> nn.Module:
    """The layer registered under ``name``.

    Args:
        name: One of :func:`aggregation_names`.
        channels: Width of the node features, in and out.
        heads: Attention heads, where the layer has any; must divide ``channels``.
        edge_dim: Size of the edge features, which layers that take none leave aside.
        **args: Further arguments of the layer.

    Raises:
        InputError: If there is no such layer, or it cannot be made of this.
    """
    if name not in _AGGREGATIONS:
        raise InputError(f"aggregation must be one of {aggregation_names()} (got {name!r})")
    channels, heads = positive("channels", channels), positive("heads", heads)
    edge_dim = None if edge_dim is None else int(edge_dim)
    if channels % heads:
        raise InputError(f"heads must divide channels (got {heads} and {channels})")
    try:
        return _AGGREGATIONS[name](channels, heads, edge_dim, **args)
    except TypeError as error:
        raise InputError(f"expected arguments of the aggregation {name!r} ({error})") from None


class EdgeListConv(nn.Module):
    """A layer of PyG that reads an edge list, on any adjacency.

    Args:
        conv: The layer.
        edge_dim: Size of the edge features that it takes; ``None`` keeps them from it.
    """

    def __init__(self, conv: nn.Module, edge_dim: int | None = None) -> None:
        super().__init__()
        self.conv = conv
        self.takes_edge_features = edge_dim is not None

    def forward(self, x: Tensor, graph: Adjacency, edge_attr: Tensor | None = None) -> Tensor:
        """Run the layer on node features (N, C)."""
        edge_index = to_edge_list(graph).edge_index
        if self.takes_edge_features:
            return self.conv(x, edge_index, edge_attr)
        return self.conv(x, edge_index)


class NodeWise(nn.Module):
    """A linear map of each node on its own: what is left of a model without its graph.

    Args:
        channels: Width of the node features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lin = nn.Linear(channels, channels)

    def forward(self, x: Tensor, graph: Adjacency, edge_attr: Tensor | None = None) -> Tensor:
        """Map node features (N, C); the graph is not looked at."""
        return self.lin(x)


@register_aggregation
def cross_attention(channels: int, heads: int, edge_dim: int | None, **args: Any) -> nn.Module:
    """:class:`CrossAttnConv`; for its arguments see there."""
    args = {"bias": False, **args}
    return CrossAttnConv(channels, channels // heads, heads, edge_dim=edge_dim, **args)


@register_aggregation
def gat(channels: int, heads: int, edge_dim: int | None, **args: Any) -> nn.Module:
    """`GATConv <https://arxiv.org/abs/1710.10903>`_."""
    conv = gnn.GATConv(channels, channels // heads, heads, edge_dim=edge_dim, **args)
    return EdgeListConv(conv, edge_dim)


@register_aggregation
def gatv2(channels: int, heads: int, edge_dim: int | None, **args: Any) -> nn.Module:
    """`GATv2Conv <https://arxiv.org/abs/2105.14491>`_."""
    conv = gnn.GATv2Conv(channels, channels // heads, heads, edge_dim=edge_dim, **args)
    return EdgeListConv(conv, edge_dim)


@register_aggregation
def transformer(channels: int, heads: int, edge_dim: int | None, **args: Any) -> nn.Module:
    """`TransformerConv <https://arxiv.org/abs/2009.03509>`_."""
    conv = gnn.TransformerConv(channels, channels // heads, heads, edge_dim=edge_dim, **args)
    return EdgeListConv(conv, edge_dim)


@register_aggregation
def edge_conv(channels: int, heads: int, edge_dim: int | None, **args: Any) -> nn.Module:
    """`EdgeConv <https://arxiv.org/abs/1801.07829>`_ with one linear map, norm and GELU."""
    mlp = nn.Sequential(
        nn.Linear(2 * channels, channels, bias=False), nn.BatchNorm1d(channels), nn.GELU()
    )
    return EdgeListConv(gnn.EdgeConv(mlp, **args))


@register_aggregation
def sage(channels: int, heads: int, edge_dim: int | None, **args: Any) -> nn.Module:
    """`GraphSAGE <https://arxiv.org/abs/1706.02216>`_ with the mean over the neighbours."""
    return EdgeListConv(gnn.SAGEConv(channels, channels, **args))


@register_aggregation
def gin(channels: int, heads: int, edge_dim: int | None, **args: Any) -> nn.Module:
    """`GIN <https://arxiv.org/abs/1810.00826>`_ with one linear map and a learned epsilon."""
    return EdgeListConv(gnn.GINConv(nn.Linear(channels, channels), train_eps=True, **args))


@register_aggregation
def max_relative(channels: int, heads: int, edge_dim: int | None, **args: Any) -> nn.Module:
    """:class:`MaxRelativeConv`, the aggregation of Vision GNN."""
    return EdgeListConv(MaxRelativeConv(channels, channels, **args))


@register_aggregation
def none(channels: int, heads: int, edge_dim: int | None) -> nn.Module:
    """No aggregation: each node on its own."""
    return NodeWise(channels)
