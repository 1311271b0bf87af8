r"""ViG, an isotropic model of Graphers on any graph.

Paper: `"Vision GNN: An Image is Worth Graph of Nodes" <https://arxiv.org/abs/2206.00272>`_: the
sizes, and nearest neighbours in feature space, dilated and found anew in each block. The blocks are
those of `"AttentionViG" <https://arxiv.org/abs/2509.25570>`_, which runs its aggregation in a
"vanilla ViG" too; here any aggregation and any graph can stand in their places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.nn.aggr import MultiAggregation
from torch_geometric.nn.resolver import aggregation_resolver

from pyg_avig.errors import InputError
from pyg_avig.graphs import Adjacency, GraphConstructor, lattice_size, make_graph
from pyg_avig.graphs.adjacency import to_edge_list
from pyg_avig.graphs.constructors import positive
from pyg_avig.models.layers import counted, dtype_of
from pyg_avig.nn import CrossAttnConv, Grapher, make_aggregation
from pyg_avig.nn.layer_inputs import checked_floating
from pyg_avig.ops import refusal

LEVELS = ("graph", "node", "edge")
POS_CHANNELS = 8  # Few, as CrossAttnConv expands edge features that are smaller than a head.


class ViG(nn.Module):
    r"""Node features, a linear map, a stack of Graphers, a head.

    Takes a ``Data`` or ``Batch`` with ``x`` (N, ``in_channels``) and, as the arguments ask for
    them, ``edge_index``, ``edge_attr``, ``pos``, ``lattice_size``, ``edge_label_index``.

    Args:
        in_channels: Size of each node feature.
        out_channels: Number of outputs, such as classes.
        channels: Width.
        num_blocks: Number of Graphers.
        level: What the outputs are of: ``graph`` (B, O), ``node`` (N, O), or ``edge`` (L, O), the
            pairs (source, target) of ``edge_label_index`` (2, L).
        graph: Name of a graph constructor (:func:`pyg_avig.graphs.graph_names`); ``None`` takes
            the ``edge_index`` at hand. One that compares features (``of: x``) is applied anew in
            each block.
        graph_args: Its arguments.
        max_dilation: Block i of a graph of nearest features takes every d-th neighbour, with
            d = i // 4 + 1 and at most this, as Vision GNN does.
        aggregation: Name of the aggregation (:func:`pyg_avig.nn.aggregation_names`).
        aggregation_args: Its arguments.
        heads: Attention heads.
        edge_dim: Size of the edge features ``edge_attr`` that the aggregation takes, if any.
        pos: How nodes know where they are: ``conv``, a depth-wise convolution on their lattice in
            each block; ``relative``, a perceptron of the position of source against target, which
            joins the edge features (added to keys and values in :class:`CrossAttnConv`); ``None``.
        pos_dim: Coordinates of a position; for ``conv`` the axes of the lattice.
        pos_kernel: Side of the convolution's kernel.
        ffn_ratio: Hidden width of the feed-forward network over ``channels``.
        dropout: Probability of dropping a feature before the last linear map.
        block_dropout: Probability of dropping a feature behind each activation of a block.
        drop_path: Probability of skipping a residual branch for a whole graph; rising from 0 in the
            first block to this in the last.
        layer_scale: Initial layer scale.
        pool: How a graph's nodes become one: aggregations of PyG by name, concatenated.

    Raises:
        InputError: If an argument is none of these, or the data lack a field.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_avig.models import ViG
        >>> model = ViG(in_channels=3, out_channels=5, channels=16, num_blocks=2, graph="knn")
        >>> cloud = torch.rand(50, 3)
        >>> model(Data(x=cloud, pos=cloud)).shape
        torch.Size([1, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: int = 192,
        num_blocks: int = 12,
        level: str = "graph",
        graph: str | None = None,
        graph_args: dict[str, Any] | None = None,
        max_dilation: int = 1,
        aggregation: str = "cross_attention",
        aggregation_args: dict[str, Any] | None = None,
        heads: int = 1,
        edge_dim: int | None = None,
        pos: str | None = None,
        pos_dim: int = 2,
        pos_kernel: int = 7,
        ffn_ratio: float = 4.0,
        dropout: float = 0.0,
        block_dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float = 1.0,
        pool: Sequence[str] = ("mean",),
    ) -> None:
        super().__init__()
        pos_dim = positive("pos_dim", pos_dim)
        if level not in LEVELS:
            raise InputError(f"level must be one of {', '.join(LEVELS)} (got {level!r})")
        if pos not in ("conv", "relative", None):
            raise InputError(f"pos must be conv, relative or null (got {pos!r})")
        if pos == "conv" and not 1 <= pos_dim <= 3:
            raise InputError(f"pos_dim must be 1 to 3 axes for pos conv (got {pos_dim})")
        if edge_dim is not None and graph is not None:
            raise InputError(
                "expected edge_dim for the edges at hand only (got a graph constructor too)"
            )
        self.level = level
        channels, num_blocks = positive("channels", channels), counted("num_blocks", num_blocks)
        self.in_channels = positive("in_channels", in_channels)
        self.edge_dim = edge_dim
        self.pos = pos
        self.pos_dim = pos_dim
        self.graphs = _graphs_of_blocks(graph, graph_args or {}, num_blocks, max_dilation)
        self.relative = None
        if pos == "relative":
            self.relative = RelativePosition(pos_dim, POS_CHANNELS)
            edge_dim = (edge_dim or 0) + self.relative.out_channels
        self.embed = nn.Sequential(
            nn.Linear(self.in_channels, channels, bias=False), nn.BatchNorm1d(channels)
        )
        self.blocks = nn.ModuleList(
            Grapher(
                channels,
                ffn_ratio=ffn_ratio,
                pos_kernel=pos_kernel if pos == "conv" else None,
                pos_axes=pos_dim,
                drop_path=drop_path * n / max(num_blocks - 1, 1),
                layer_scale=layer_scale,
                dropout=block_dropout,
                conv=make_aggregation(
                    aggregation, channels, heads, edge_dim, **(aggregation_args or {})
                ),
            )
            for n in range(num_blocks)
        )
        try:
            self.pool = MultiAggregation([aggregation_resolver(name) for name in pool])
        except ValueError as error:
            raise InputError(f"expected pool as aggregations of PyG ({error})") from None
        width = channels * {"graph": len(pool), "node": 1, "edge": 2}[level]
        self.head = nn.Sequential(
            nn.Linear(width, channels),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(channels, positive("out_channels", out_channels)),
        )

    def forward(self, data: Data) -> Tensor:
        """The outputs of a graph or batch of graphs."""
        x = self.forward_features(data)
        if self.level == "graph":
            x = self.pool(x, _batch(data), dim_size=_num_graphs(data))
        elif self.level == "edge":
            source, target = self._field(data, "edge_label_index")
            x = torch.cat([x[source], x[target]], -1)
        return self.head(x)

    def forward_features(self, data: Data) -> Tensor:
        """The nodes' features behind the last block, (N, ``channels``)."""
        if isinstance(data, Tensor):
            raise InputError(
                f"expected a graph, Data(x=..., edge_index=...) (got a tensor {tuple(data.shape)})"
            )
        x = self._field(data, "x")
        if x.dim() != 2 or x.size(1) != self.in_channels:
            raise InputError(
                f"expected node features x of shape (N, {self.in_channels}) (got {tuple(x.shape)})"
            )
        self._check_dtype("x", x)
        if self.training and len(x) == 1 and isinstance(self.embed[1], nn.BatchNorm1d):
            raise InputError("expected at least 2 nodes in training, as BatchNorm needs (got 1)")
        x = self.embed(x)
        # A program holds for any number of graphs.
        several = torch.compiler.is_exporting() or _num_graphs(data) > 1
        batch = _batch(data) if several else None
        size = lattice_size(data) if self.pos == "conv" else None
        graph: Adjacency | None = None
        edge_attr = None
        for block, constructor in zip(self.blocks, self.graphs, strict=True):
            rebuilt = constructor is not None and constructor.reads_features
            if graph is None or rebuilt:
                graph, order = self._graph(constructor, data, x, batch), None
                if not rebuilt and isinstance(graph, Tensor) and self._shares_sorting(graph):
                    graph, order = sorted_by_target(graph, len(x))
                edge_attr = self._edge_features(graph, data, order)
            x = block(x, graph, edge_attr, batch, size)
        return x

    def _graph(
        self, constructor: GraphConstructor | None, data: Data, x: Tensor, batch: Tensor | None
    ) -> Adjacency:
        if constructor is None:
            graph = self._field(data, "edge_index")
        elif constructor.reads_features:
            size = None if data.get("lattice_size") is None else lattice_size(data)
            graph = constructor.graph(Data(x=x, batch=batch, lattice_size=size))
        else:
            graph = constructor.graph(data)
        # Relative positions are those of single edges.
        return to_edge_list(graph).edge_index if self.relative is not None else graph

    def _shares_sorting(self, graph: Tensor) -> bool:
        """Whether blocks would sort the same edges again and again.

        Not where somebody looks at single edges: they stay in the order in which they came.
        """
        convs = [block.conv for block in self.blocks]
        return (
            graph.layout == torch.strided
            and all(isinstance(conv, CrossAttnConv) and not conv._needs_edges() for conv in convs)
            and refusal("csr", graph, graph.device) is None
        )

    def _edge_features(self, graph: Adjacency, data: Data, order: Tensor | None) -> Tensor | None:
        """The features of the edges, and of their relative positions.

        ``order`` is where the edges of the graph are among those of the data, if elsewhere.
        """
        features = []
        if self.edge_dim is not None:
            edge_attr = self._field(data, "edge_attr")
            self._check_dtype("edge_attr", edge_attr)
            edge_attr = edge_attr if order is None else edge_attr[order]
            features.append(edge_attr.view(-1, 1) if edge_attr.dim() == 1 else edge_attr)
        if self.relative is not None:
            pos = self._field(data, "pos")
            if pos.dim() != 2 or pos.size(1) != self.pos_dim:
                raise InputError(
                    f"expected positions pos of shape (N, {self.pos_dim}), as pos_dim says (got "
                    f"{tuple(pos.shape)})"
                )
            features.append(self.relative(pos, to_edge_list(graph).edge_index))
        return torch.cat(features, -1) if features else None

    def _check_dtype(self, name: str, value: Tensor) -> None:
        checked_floating(name, value)
        dtype = dtype_of(self)
        if value.dtype != dtype and not torch.is_autocast_enabled(value.device.type):
            raise InputError(f"expected {name} of the model's dtype {dtype} (got {value.dtype})")

    @staticmethod
    def _field(data: Data, name: str) -> Any:
        value = data.get(name)
        if value is None:
            raise InputError(f"expected a graph with the field {name} (got {data})")
        return value


class RelativePosition(nn.Module):
    """Where an edge's source lies, seen from its target, through a perceptron.

    Args:
        pos_dim: Coordinates of a position.
        out_channels: Size of the code.

    Shapes:
        - **input:** positions (N, ``pos_dim``), edges (2, E)
        - **output:** (E, ``out_channels``)
    """

    def __init__(self, pos_dim: int, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.mlp: Any = nn.Sequential(
            nn.Linear(pos_dim, out_channels), nn.GELU(), nn.Linear(out_channels, out_channels)
        )

    def forward(self, pos: Tensor, edge_index: Tensor) -> Tensor:
        """The code of each edge."""
        source, target = edge_index
        # Differences are taken before positions lose digits to a model of half precision.
        return self.mlp((pos[source] - pos[target]).to(self.mlp[0].weight.dtype))


def sorted_by_target(edges: Tensor, num_nodes: int) -> tuple[EdgeIndex, Tensor | None]:
    """Edges as an ``EdgeIndex``, which keeps its sorting by source too for all who read it.

    Args:
        edges: The edges between ``num_nodes`` nodes, (2, E); an ``EdgeIndex`` of this kind is
            returned as it is.
        num_nodes: Their number.

    Returns:
        The edges, and where they were before; ``None`` if they had been sorted.
    """
    size = (num_nodes, num_nodes)
    if isinstance(edges, EdgeIndex) and edges.is_sorted_by_col and edges.sparse_size() == size:
        return edges, None
    edges, order = to_edge_list(edges).edge_index, None
    if bool((edges[1].diff() < 0).any()):
        order = edges[1].argsort(stable=True)
        edges = edges[:, order]
    return EdgeIndex(edges, sparse_size=size, sort_order="col"), order


def _graphs_of_blocks(
    name: str | None, args: dict[str, Any], num_blocks: int, max_dilation: int
) -> list[GraphConstructor | None]:
    if name is None:
        return [None] * num_blocks
    if max_dilation == 1:
        return [make_graph(name, **args)] * num_blocks
    dilations = [min(n // 4 + 1, max_dilation) for n in range(num_blocks)]
    return [make_graph(name, **{**args, "dilation": dilation}) for dilation in dilations]


def _num_graphs(data: Data) -> int:
    if isinstance(data, Batch):
        return data.num_graphs
    batch = data.get("batch")
    return 1 if batch is None or not len(batch) else int(batch.max()) + 1


def _batch(data: Data) -> Tensor:
    batch = data.get("batch")
    return data.x.new_zeros(data.x.size(0), dtype=torch.long) if batch is None else batch


def vig_tiny(in_channels: int, out_channels: int, **kwargs: Any) -> ViG:
    """ViG-Ti: 12 blocks of width 192; by default 9 neighbours among the features.

    Args:
        in_channels: Size of each node feature; 768 for patches of 16 x 16 colour pixels.
        out_channels: Number of outputs.
        **kwargs: Further arguments of :class:`ViG`.
    """
    return _sized(in_channels, out_channels, 192, 12, kwargs)


def vig_small(in_channels: int, out_channels: int, **kwargs: Any) -> ViG:
    """ViG-S: 16 blocks of width 320; otherwise as :func:`vig_tiny`."""
    return _sized(in_channels, out_channels, 320, 16, kwargs)


def vig_base(in_channels: int, out_channels: int, **kwargs: Any) -> ViG:
    """ViG-B: 16 blocks of width 640; otherwise as :func:`vig_tiny`."""
    return _sized(in_channels, out_channels, 640, 16, kwargs)


def _sized(
    in_channels: int, out_channels: int, channels: int, num_blocks: int, kwargs: dict[str, Any]
) -> ViG:
    # 196 nodes at 224 x 224: with 9 neighbours a dilation beyond 196 // 9 would run out of nodes.
    features: dict[str, Any] = {"graph": "knn", "max_dilation": 196 // 9}
    features["graph_args"] = {"k": 9, "of": "x", "cosine": True}
    sizes = {"channels": channels, "num_blocks": num_blocks}
    chosen = sizes if "graph" in kwargs else {**sizes, **features}
    return ViG(in_channels, out_channels, **{**chosen, **kwargs})
