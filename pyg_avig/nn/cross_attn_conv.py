"""CrossAttnConv, the aggregation of AttentionViG as a PyG layer."""

import math
from collections.abc import Callable
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import reset, zeros
from torch_geometric.nn.resolver import activation_resolver
from torch_geometric.typing import OptTensor
from torch_geometric.utils import is_torch_sparse_tensor

from pyg_avig.errors import InputError
from pyg_avig.graphs.adjacency import (
    Adjacency,
    check_size,
    checked_edge_list,
    disjoint_copies,
    is_mapped,
    is_recorded,
    is_sparse_matrix,
    matrix_like,
    neighbor_counts,
    to_edge_list,
    with_value,
)
from pyg_avig.graphs.axial_graph import AxialGraph
from pyg_avig.graphs.self_loops import check_fill_value, with_self_loops
from pyg_avig.nn.edge_access import looks_at_edges, projects_plainly
from pyg_avig.nn.layer_inputs import (
    checked_edge_features,
    checked_features,
    checked_ints,
    checked_sizes,
)
from pyg_avig.ops import EdgeFeatures, cross_attention
from pyg_avig.ops.affinity import get_affinity
from pyg_avig.ops.cross_attention import forced_backend
from pyg_avig.ops.reference import edge_weights, unit

MAX_BETA = 100.0  # As Swin Transformer v2 bounds its logit scale.


class CrossAttnConv(MessagePassing):
    r"""The cross-attention operator from the `"AttentionViG: Cross-Attention-Based
    Dynamic Neighbor Aggregation in Vision GNNs" <https://arxiv.org/abs/2509.25570>`_
    paper (section 3.1, equations 3 to 7).

    .. math::
        \mathbf{x}^{\prime}_i = \sigma \Bigl( \mathbf{W} \Bigl[ \mathbf{x}_i \,\Vert\,
        \sum_{j \in \mathcal{N}(i)} \alpha_{ij} \mathbf{V} \mathbf{x}_j \Bigr] \Bigr),
        \qquad
        \alpha_{ij} = \exp \Bigl( -\beta \bigl( 1 - \cos(\mathbf{Q} \mathbf{x}_i,
        \mathbf{K} \mathbf{x}_j) \bigr) \Bigr)

    Neighbours do not compete: the weights lie in :math:`(0, 1]` and need not sum to
    one. A node attends to itself only if the graph has a self-loop; its own feature
    enters by the concatenation.

    Inferred, as the paper does not publish it: one :math:`\beta` a head, held as
    ``log_beta`` and bounded by 100 as in Swin Transformer v2, 1 at first; no bias on
    :math:`\mathbf{Q}, \mathbf{K}, \mathbf{V}`. Heads are our extension.

    When to choose what (figures in ``docs/choosing.md``): the defaults in a model with skip
    connections of its own, such as :class:`Grapher`, on graphs whose nodes have few neighbours or
    all the same number. Where some have a hundred times as many as others, and in a plain stack of
    layers with few labelled nodes, where others have :class:`~torch_geometric.nn.GATConv`,
    ``add_self_loops=True`` with ``root_weight=False``: the columns of :math:`\mathbf{W}` for
    :math:`\mathbf{x}_i` learn from the few nodes near a label alone, and two linear maps in a row,
    :math:`\mathbf{W}` behind :math:`\mathbf{V}`, fit these too well. With them ``normalize=True``,
    or ``affinity="softmax"``, keeps nodes with many neighbours on the scale of those with few.

    Any module may take the place of ``lin_query``, ``lin_key``, ``lin_value`` and ``lin_update``,
    an adapter such as LoRA's above all. :func:`pyg_avig.ops.use_backend` forces a path.

    Args:
        in_channels: Size of each node feature, or -1 to take it from the first call;
            a tuple (source, target) for a bipartite graph.
        out_channels: Size of each head's output.
        heads: Number of heads.
        concat: Concatenate the heads; ``False`` averages them.
        affinity: How a similarity becomes a weight: a name of
            :func:`pyg_avig.ops.affinity_names`.
        beta: Initial inverse temperature of every head, in (0, 100].
        normalize: Divide the sum by the number of neighbours (the paper's ablation).
        dropout: Probability of dropping an attention weight in training.
        act: The activation :math:`\sigma`, by name or as a callable; ``None`` for none.
        bias: Whether :math:`\mathbf{W}`, or without it the sum, has a bias.
        edge_dim: Size (or -1) of the edge features :math:`\mathbf{e}_{ij}`, if there are any. They
            enter keys and values, :math:`\mathbf{K} \mathbf{x}_j + \mathbf{E}
            \mathbf{e}_{ij}` and :math:`\mathbf{V} \mathbf{x}_j + \mathbf{E}
            \mathbf{e}_{ij}`, as in :class:`~torch_geometric.nn.TransformerConv`; our
            extension of the paper.
        residual: Add a learned linear map of the target's feature before the activation.
        add_self_loops: Let each node attend to itself: the graph's self-loops, if it has any, are
            replaced by one a node. In a bipartite graph source i and target i are taken for one
            node, as in :class:`~torch_geometric.nn.GATConv`.
        fill_value: Edge features of these self-loops: a number, a tensor (D,), or how they come
            from those of the edges that lead to the node (``add``, ``mean``, ``min``, ``max``,
            ``mul``).
        root_weight: Whether :math:`\mathbf{W}` maps the node's own feature :math:`\mathbf{x}_i`
            and the sum, as the equation has it; ``False`` leaves :math:`\mathbf{W}` out, so that
            the heads' sums (and a bias) are the output, as in
            :class:`~torch_geometric.nn.GATConv`.
        **kwargs: Arguments of :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, or
          :math:`((|\mathcal{V}_s|, F_s), (|\mathcal{V}_t|, F_t))` if bipartite, each with
          a leading :math:`B` for :math:`B` sets of features on one graph, or without it a
          sparse tensor; a graph, in any
          form of :data:`pyg_avig.graphs.Adjacency`; edge features
          :math:`(|\mathcal{E}|, D)` *(optional)*
        - **output:** :math:`(|\mathcal{V}_t|, H \cdot F_{out})`, or
          :math:`(|\mathcal{V}_t|, F_{out})` without ``concat``; with
          ``return_attention_weights=True`` also
          :math:`((2, |\mathcal{E}|), (|\mathcal{E}|, H))`, for a sparse matrix the matrix
          with the weights as its values in the place of the edge indices (and nothing else
          for a ``SparseTensor``), for :math:`B` sets of features always the edge indices and
          :math:`(B, |\mathcal{E}|, H)`

    Example:
        >>> import torch
        >>> from pyg_avig import AxialGraph, CrossAttnConv
        >>> conv = CrossAttnConv(in_channels=16, out_channels=32, heads=2)
        >>> edge_index = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
        >>> conv(torch.randn(4, 16), edge_index).shape
        torch.Size([4, 64])
        >>> lattice = AxialGraph(size=(14, 14), stride=2)  # SVGA, its edges never built
        >>> conv(torch.randn(196, 16), lattice).shape
        torch.Size([196, 64])
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        affinity: str = "exponential",
        beta: float = 1.0,
        normalize: bool = False,
        dropout: float = 0.0,
        act: str | Callable | None = None,
        bias: bool = True,
        edge_dim: int | None = None,
        residual: bool = False,
        add_self_loops: bool = False,
        fill_value: float | Tensor | str = "mean",
        root_weight: bool = True,
        **kwargs,
    ) -> None:
        kwargs.setdefault("aggr", "add")
        super().__init__(node_dim=0, **kwargs)
        in_channels = checked_ints("in_channels", in_channels)
        out_channels = checked_ints("out_channels", out_channels)
        heads = checked_ints("heads", heads)
        edge_dim = None if edge_dim is None else checked_ints("edge_dim", edge_dim)
        if heads < 1 or out_channels < 1:
            raise InputError(
                f"heads and out_channels must be positive (got {heads} and {out_channels})"
            )
        if not 0 <= dropout <= 1:
            raise InputError(f"dropout must lie in [0, 1] (got {dropout})")
        if self.aggr is None or isinstance(self.aggr, list):
            raise InputError(f"aggr must be one aggregation (got {self.aggr!r})")
        if isinstance(beta, bool) or not 0 < beta <= MAX_BETA:
            raise InputError(f"beta must lie in (0, {MAX_BETA:g}] (got {beta})")
        get_affinity(affinity)
        check_fill_value(fill_value)

        self.in_channels = in_channels
        self.out_channels = out_channels
        self.heads = heads
        self.concat = concat
        self.affinity = affinity
        self.initial_beta = beta
        self.normalize = normalize
        self.dropout = dropout
        self.edge_dim = edge_dim
        self.residual = residual
        self.add_self_loops = add_self_loops
        self.fill_value = fill_value
        self.root_weight = root_weight
        self.act = activation_resolver(act) if isinstance(act, str) else act

        source, target = (in_channels, in_channels) if isinstance(in_channels, int) else in_channels
        width = heads * out_channels
        message = width if concat else out_channels
        self.lin_query = Linear(target, width, bias=False, weight_initializer="glorot")
        self.lin_key = Linear(source, width, bias=False, weight_initializer="glorot")
        self.lin_value = Linear(source, width, bias=False, weight_initializer="glorot")
        self.lin_update = self.bias = self.lin_edge = self.res = None
        if root_weight:
            self.lin_update = Linear(
                -1 if target == -1 else target + message,
                message,
                bias=bias,
                weight_initializer="glorot",
                bias_initializer="zeros",
            )
        elif bias:
            self.bias = Parameter(torch.empty(message))
        if edge_dim is not None:
            self.lin_edge = Linear(edge_dim, width, bias=False, weight_initializer="glorot")
        if residual:
            self.res = Linear(target, message, bias=False, weight_initializer="glorot")
        self.log_beta = Parameter(torch.empty(heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        super().reset_parameters()
        for name in _MAPS:
            reset(getattr(self, name))
        zeros(self.bias)
        torch.nn.init.constant_(self.log_beta, math.log(self.initial_beta))

    @property
    def beta(self) -> Tensor:
        """The inverse temperature of each head, (heads,)."""
        return self.log_beta.clamp(max=math.log(MAX_BETA)).exp()

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Adjacency,
        edge_attr: Tensor | None = None,
        size: tuple[int | None, int | None] | None = None,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Run the layer.

        Args:
            x: Node features, or those of sources and targets.
            edge_index: The graph.
            edge_attr: Edge features, if the layer was made for them; by default the values
                of a sparse matrix.
            size: Numbers of sources and targets, only to check them.
            return_attention_weights: ``True`` adds ``(edge_index, alpha)``: the weight of
                each edge and head, before dropout.

        Raises:
            InputError: If features, edge features and graph do not fit the layer or one
                another.
            IndexError: If an edge names a node that is not there.
        """
        source, target = (x, x) if isinstance(x, Tensor) else x
        checked_features(source, target, (self.lin_key, self.lin_query), self.log_beta)
        num_targets = target.size(-2)
        num_sources = num_targets if source is target else source.size(-2)
        checked_sizes(size, num_sources, num_targets)
        if self.flow != "source_to_target" and is_sparse_matrix(edge_index):
            raise InputError(
                "expected an edge list for flow='target_to_source' (got a sparse matrix; "
                "transpose it and use flow='source_to_target')"
            )
        check_size(edge_index, *self._in_order(num_sources, num_targets))
        if self.edge_dim is None and edge_attr is not None:
            raise InputError("expected no edge_attr: the layer was made without edge_dim")
        graph, padded = edge_index, False
        if self.add_self_loops:
            # Where no shape may hang on values, edges that are to go lead to a target too many.
            by_shape = (is_recorded() or is_mapped(graph)) and not return_attention_weights
            implicit = isinstance(graph, AxialGraph) and self.edge_dim is None
            padded = by_shape and not implicit
            graph, edge_attr = self._with_loops(graph, edge_attr, num_sources, num_targets, padded)
            if padded:
                target = F.pad(target, (0, 0, 0, 1))
        run = self._run if source.dim() == 2 else self._run_static
        out, edges, alpha = run(source, target, graph, edge_attr, return_attention_weights)
        if padded:
            out = out.narrow(-2, 0, num_targets)
        if not return_attention_weights:
            return out
        assert edges is not None
        assert alpha is not None
        if out.dim() == 2 and is_sparse_matrix(edge_index):
            if graph is edge_index:
                weighted = with_value(edge_index, alpha)
            else:
                weighted, alpha = matrix_like(edge_index, edges, alpha)
            return out, ((weighted, alpha) if isinstance(edge_index, Tensor) else weighted)
        # The very edges given, of whatever type.
        given = out.dim() == 2 and graph is edge_index and isinstance(graph, Tensor)
        return out, (edge_index if given else edges, alpha)

    def _run(
        self,
        source: Tensor,
        target: Tensor,
        graph: Adjacency,
        edge_attr: Tensor | None,
        return_attention_weights: bool | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The output of features (N, F); where they were looked at, the edges and their weights."""
        query = self.lin_query(target).unflatten(-1, (self.heads, self.out_channels))
        key = self.lin_key(source).unflatten(-1, (self.heads, self.out_channels))
        value = self.lin_value(source).unflatten(-1, (self.heads, self.out_channels))

        by_edge = return_attention_weights or self._needs_edges()
        if by_edge and forced_backend() not in (None, "edge_list"):
            raise InputError(
                f"backend {forced_backend()!r} cannot run here: somebody looks at single edges "
                "(attention weights, hooks, explain, aggr, flow or an overridden method)"
            )
        edges = alpha = None
        if by_edge or self.lin_edge is not None:
            edges, edge_attr = self._edges(graph, edge_attr, key.size(0), query.size(0))
        if by_edge:
            if self.lin_edge is not None:
                edge_attr = self.lin_edge(edge_attr)
                edge_attr = edge_attr.unflatten(-1, (self.heads, self.out_channels))
            # edge_updater_type: (query: Tensor, key: Tensor, edge_attr: OptTensor)
            alpha = self.edge_updater(
                edges,
                query=unit(query),
                key=unit(key) if edge_attr is None else key,
                edge_attr=edge_attr,
            )
            # propagate_type: (value: Tensor, alpha: Tensor, edge_attr: OptTensor)
            out = self.propagate(
                edges,
                size=self._in_order(key.size(0), query.size(0)),
                value=value,
                alpha=alpha,
                edge_attr=edge_attr,
            )
        else:
            out = cross_attention(
                query,
                key,
                value,
                graph,
                self.beta,
                self.affinity,
                edge_features=self._edge_features(edge_attr),
                dropout=self.dropout if self.training else 0.0,
            )

        if self.normalize:
            out = out / neighbor_counts(graph, query.size(0), self._target_row, out).view(-1, 1, 1)
        out = out.flatten(1) if self.concat else out.mean(1)
        out = self._update(target, out)
        if self.res is not None:
            out = out + self.res(target)
        return (out if self.act is None else self.act(out)), edges, alpha

    def _run_static(
        self,
        source: Tensor,
        target: Tensor,
        adjacency: Adjacency,
        edge_attr: Tensor | None,
        return_attention_weights: bool | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """:meth:`_run` for (B, N, F) features on one graph, as B disjoint copies of it."""
        batch, num_sources, _ = source.shape
        edges = None  # Not built unless asked for.
        if isinstance(adjacency, AxialGraph):
            graph: Adjacency = adjacency.repeated(batch)
        else:
            sizes = self._in_order(num_sources, target.size(1))
            edges, value = checked_edge_list(adjacency, *sizes, source.device)
            if edge_attr is None and self.edge_dim is not None:
                edge_attr = value
            graph = disjoint_copies(edges, batch, sizes)
        if edge_attr is not None:
            edge_attr = edge_attr.repeat(batch, *[1] * (edge_attr.dim() - 1))
        x = source.flatten(0, 1), target.flatten(0, 1)
        out, _, alpha = self._run(*x, graph, edge_attr, return_attention_weights)
        out = out.unflatten(0, (batch, target.size(1)))
        if not return_attention_weights or alpha is None:
            return out, None, None
        edges = to_edge_list(adjacency).edge_index if edges is None else edges
        return out, edges, alpha.unflatten(0, (batch, edges.size(1)))

    def edge_update(
        self,
        query_i: Tensor,
        key_j: Tensor,
        edge_attr: OptTensor,
        index: Tensor,
        dim_size: Optional[int],  # noqa: UP045 (read by PyG as a type of TorchScript)
    ) -> Tensor:
        """The weight of each edge and head, (E, heads)."""
        if edge_attr is not None:
            key_j = unit(key_j + edge_attr)
        assert dim_size is not None
        return edge_weights(query_i, key_j, self.beta, index, dim_size, self.affinity)

    def message(self, value_j: Tensor, alpha: Tensor, edge_attr: OptTensor = None) -> Tensor:
        """The weighted value that each edge carries, (E, heads, C)."""
        if edge_attr is not None:
            value_j = value_j + edge_attr
        alpha = F.dropout(alpha, self.dropout, self.training).to(value_j.dtype)
        return alpha.unsqueeze(-1) * value_j

    def _update(self, target: Tensor, message: Tensor) -> Tensor:
        """The linear map of the target's own feature beside its message."""
        if self.lin_update is None:
            return message if self.bias is None else message + self.bias.to(message.dtype)
        if not is_torch_sparse_tensor(target):
            return self.lin_update(torch.cat([target, message], -1))
        lin = self.lin_update
        if not projects_plainly(lin) or lin.in_channels == -1:
            return lin(torch.cat([target.to_dense(), message], -1))
        # A sparse matrix cannot stand beside a dense one, but its product can be added.
        own, others = lin.weight.split([target.size(-1), message.size(-1)], dim=1)
        return F.linear(target, own) + F.linear(message, others, lin.bias)

    def _needs_edges(self) -> bool:
        """Whether somebody looks at, or changes, what passes along single edges."""
        return not projects_plainly(self.lin_edge) or looks_at_edges(self, CrossAttnConv)

    @property
    def _target_row(self) -> int:
        """The row of an edge list that names targets."""
        return 1 if self.flow == "source_to_target" else 0

    def _in_order(self, num_sources: int, num_targets: int) -> tuple[int, int]:
        """Numbers of nodes that the first and second row of an edge list speak of."""
        if self.flow == "source_to_target":
            return num_sources, num_targets
        return num_targets, num_sources

    def _edges(
        self, adjacency: Adjacency, edge_attr: Tensor | None, num_sources: int, num_targets: int
    ) -> tuple[Tensor, Tensor | None]:
        """The edge list, and the edge features (E, D) if the layer takes any."""
        sizes = self._in_order(num_sources, num_targets)
        edges, value = checked_edge_list(adjacency, *sizes, self.log_beta.device)
        if self.lin_edge is None:
            return edges, None
        return edges, checked_edge_features(
            edge_attr, value, edges.size(1), self.lin_edge, self.log_beta
        )

    def _with_loops(
        self,
        adjacency: Adjacency,
        edge_attr: Tensor | None,
        num_sources: int,
        num_targets: int,
        padded: bool,
    ) -> tuple[Adjacency, Tensor | None]:
        """The graph with one self-loop a node, and features of its edges if there are to be any."""
        if isinstance(adjacency, AxialGraph) and self.edge_dim is None:
            return adjacency.with_self_loops(), None
        edges, edge_attr = self._edges(adjacency, edge_attr, num_sources, num_targets)
        return with_self_loops(
            edges,
            num_sources,
            num_targets,
            edge_attr,
            self.fill_value,
            self._target_row,
            padded,
        )

    def _edge_features(self, edge_attr: Tensor | None) -> EdgeFeatures | None:
        """The edge features and their projection, for the operator."""
        if edge_attr is None or self.lin_edge is None:
            return None
        return EdgeFeatures(edge_attr, self.lin_edge.weight.unflatten(0, (self.heads, -1)))

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"heads={self.heads})"
        )


_MAPS = ("lin_query", "lin_key", "lin_value", "lin_update", "lin_edge", "res")
