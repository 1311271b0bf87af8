"""CrossAttnConv, the aggregation of AttentionViG as a PyG layer."""

import math
from collections.abc import Callable
from operator import index as as_int
from typing import Any, Optional

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.inits import reset
from torch_geometric.nn.resolver import activation_resolver
from torch_geometric.typing import OptTensor
from torch_geometric.utils import degree, is_torch_sparse_tensor

from pyg_avig.errors import InputError
from pyg_avig.graphs.adjacency import (
    Adjacency,
    check_size,
    checked_edge_list,
    is_sparse_matrix,
    to_edge_list,
    with_value,
)
from pyg_avig.graphs.axial_graph import AxialGraph
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
        bias: Whether :math:`\mathbf{W}` has a bias.
        edge_dim: Size (or -1) of the edge features :math:`\mathbf{e}_{ij}`, if there are any. They
            enter keys and values, :math:`\mathbf{K} \mathbf{x}_j + \mathbf{E}
            \mathbf{e}_{ij}` and :math:`\mathbf{V} \mathbf{x}_j + \mathbf{E}
            \mathbf{e}_{ij}`, as in :class:`~torch_geometric.nn.TransformerConv`; our
            extension of the paper.
        residual: Add a learned linear map of the target's feature before the activation.
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
        **kwargs,
    ) -> None:
        kwargs.setdefault("aggr", "add")
        super().__init__(node_dim=0, **kwargs)
        in_channels = _ints("in_channels", in_channels)
        out_channels, heads = _ints("out_channels", out_channels), _ints("heads", heads)
        edge_dim = None if edge_dim is None else _ints("edge_dim", edge_dim)
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
        self.act = activation_resolver(act) if isinstance(act, str) else act

        source, target = (in_channels, in_channels) if isinstance(in_channels, int) else in_channels
        width = heads * out_channels
        message = width if concat else out_channels
        self.lin_query = Linear(target, width, bias=False, weight_initializer="glorot")
        self.lin_key = Linear(source, width, bias=False, weight_initializer="glorot")
        self.lin_value = Linear(source, width, bias=False, weight_initializer="glorot")
        self.lin_update = Linear(
            -1 if target == -1 else target + message,
            message,
            bias=bias,
            weight_initializer="glorot",
            bias_initializer="zeros",
        )
        self.lin_edge = self.res = None
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
        self._check_features(source, target)
        self._check_size(size, source.size(-2), target.size(-2))
        if self.flow != "source_to_target" and is_sparse_matrix(edge_index):
            raise InputError(
                "expected an edge list for flow='target_to_source' (got a sparse matrix; "
                "transpose it and use flow='source_to_target')"
            )
        check_size(edge_index, *self._in_order(source.size(-2), target.size(-2)))
        if source.dim() == 3:
            return self._forward_static(
                source, target, edge_index, edge_attr, return_attention_weights
            )

        query = self.lin_query(target).unflatten(-1, (self.heads, self.out_channels))
        key = self.lin_key(source).unflatten(-1, (self.heads, self.out_channels))
        value = self.lin_value(source).unflatten(-1, (self.heads, self.out_channels))

        if self.edge_dim is None and edge_attr is not None:
            raise InputError("expected no edge_attr: the layer was made without edge_dim")
        by_edge = return_attention_weights or self._needs_edges()
        if by_edge and forced_backend() not in (None, "edge_list"):
            raise InputError(
                f"backend {forced_backend()!r} cannot run here: somebody looks at single edges "
                "(attention weights, hooks, explain, aggr, flow or an overridden method)"
            )
        if by_edge or self.lin_edge is not None:
            edges, edge_attr = self._edges(edge_index, edge_attr, key.size(0), query.size(0))
        alpha = None
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
                edge_index,
                self.beta,
                self.affinity,
                edge_features=self._edge_features(edge_attr),
                dropout=self.dropout if self.training else 0.0,
            )

        if self.normalize:
            out = out / self._degree(edge_index, query.size(0), out).view(-1, 1, 1)
        out = out.flatten(1) if self.concat else out.mean(1)
        out = self._update(target, out)
        if self.res is not None:
            out = out + self.res(target)
        if self.act is not None:
            out = self.act(out)
        if not return_attention_weights:
            return out
        if isinstance(edge_index, AxialGraph):
            return out, (edge_index.edge_index, alpha)
        if not is_sparse_matrix(edge_index):
            return out, (edge_index, alpha)
        assert alpha is not None
        weighted = with_value(edge_index, alpha)
        return out, ((weighted, alpha) if isinstance(edge_index, Tensor) else weighted)

    def _forward_static(
        self,
        source: Tensor,
        target: Tensor,
        adjacency: Adjacency,
        edge_attr: Tensor | None,
        return_attention_weights: bool | None,
    ) -> Any:
        """Run (B, N, F) features on one graph, as B disjoint copies of it."""
        batch, num_sources, _ = source.shape
        x = source.flatten(0, 1), target.flatten(0, 1)
        if isinstance(adjacency, AxialGraph):
            edges = None  # Not built unless asked for.
            graph: Adjacency = AxialGraph(
                adjacency.size, adjacency.stride, batch * adjacency.batch_size, adjacency.device
            )
        else:
            sizes = self._in_order(num_sources, target.size(1))
            edges, value = checked_edge_list(adjacency, *sizes, x[0].device)
            if edge_attr is None and self.edge_dim is not None:
                edge_attr = value
            copies = torch.arange(batch, device=edges.device).view(-1, 1)
            rows = [(row + copies * size).flatten() for row, size in zip(edges, sizes, strict=True)]
            graph = torch.stack(rows)
        if edge_attr is not None:
            edge_attr = edge_attr.repeat(batch, *[1] * (edge_attr.dim() - 1))
        out = self.forward(x, graph, edge_attr, None, return_attention_weights)
        if not return_attention_weights:
            return out.unflatten(0, (batch, target.size(1)))
        out, (_, alpha) = out
        edges = to_edge_list(adjacency).edge_index if edges is None else edges
        alpha = alpha.unflatten(0, (batch, edges.size(1)))
        return out.unflatten(0, (batch, target.size(1))), (edges, alpha)

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
        if not is_torch_sparse_tensor(target):
            return self.lin_update(torch.cat([target, message], -1))
        lin = self.lin_update
        if not self._projects_plainly(lin) or lin.in_channels == -1:
            return lin(torch.cat([target.to_dense(), message], -1))
        # A sparse matrix cannot stand beside a dense one, but its product can be added.
        own, others = lin.weight.split([target.size(-1), message.size(-1)], dim=1)
        return F.linear(target, own) + F.linear(message, others, lin.bias)

    def _needs_edges(self) -> bool:
        """Whether somebody looks at, or changes, what passes along single edges."""
        return (
            self.explain
            or not self._projects_plainly(self.lin_edge)
            or self.aggr not in ("add", "sum")
            or self.flow != "source_to_target"
            or self.decomposed_layers > 1
            or any(
                getattr(type(self), name) is not getattr(CrossAttnConv, name) or name in vars(self)
                for name in _STAGES
            )
            or any(hooks for name, hooks in vars(self).items() if name in _EDGE_HOOKS)
        )

    @staticmethod
    def _projects_plainly(linear: torch.nn.Module | None) -> bool:
        """Whether a projection is nothing but the product with its weight."""
        if linear is None:
            return True
        return type(linear) is Linear and not (linear._forward_hooks or linear._forward_pre_hooks)

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
        given = edge_attr is not None
        edge_attr = edge_attr if given else value
        num_edges = edges.size(1)
        if edge_attr is not None and edge_attr.dim() == 1:
            edge_attr = edge_attr.unsqueeze(-1)
        width = _in_channels(self.lin_edge)
        fits = edge_attr is not None and edge_attr.dim() == 2 and edge_attr.size(0) == num_edges
        if edge_attr is None or not fits or width not in (-1, edge_attr.size(1)):
            shape = None if edge_attr is None else tuple(edge_attr.shape)
            raise InputError(
                f"expected edge_attr of shape {(num_edges, width)}, the edges and "
                f"edge_dim (got {shape})"
            )
        if not given:  # The values of a matrix, of whatever type they are.
            edge_attr = edge_attr.to(self.log_beta.dtype)
        self._check_kind("edge_attr", edge_attr)
        return edges, edge_attr

    def _edge_features(self, edge_attr: Tensor | None) -> EdgeFeatures | None:
        """The edge features and their projection, for the operator."""
        if edge_attr is None or self.lin_edge is None:
            return None
        return EdgeFeatures(edge_attr, self.lin_edge.weight.unflatten(0, (self.heads, -1)))

    def _degree(self, graph: Adjacency, num_nodes: int, like: Tensor) -> Tensor:
        """The number of neighbours of each target, at least one."""
        if isinstance(graph, AxialGraph):
            return like.new_tensor(max(graph.degree, 1))
        index = to_edge_list(graph).edge_index[1 if self.flow == "source_to_target" else 0]
        # Counted in single precision: a half-precision count stops growing.
        return degree(index, num_nodes, torch.float32).clamp(min=1).to(like.dtype)

    @staticmethod
    def _check_size(
        size: tuple[int | None, int | None] | None, num_sources: int, num_targets: int
    ) -> None:
        found = (num_sources, num_targets)
        for wanted, number in zip(size or found, found, strict=True):
            if wanted not in (None, number):
                raise InputError(
                    f"expected {size} source and target nodes, as size says (got {found})"
                )

    def _check_kind(self, name: str, x: Tensor) -> None:
        if x.device != self.log_beta.device:
            raise InputError(
                f"expected {name} and layer on one device (got {x.device} and "
                f"{self.log_beta.device})"
            )
        if x.dtype != self.log_beta.dtype and not torch.is_autocast_enabled(x.device.type):
            raise InputError(
                f"expected {name} and layer of one dtype (got {x.dtype} and {self.log_beta.dtype})"
            )

    def _check_features(self, source: Tensor, target: Tensor | None) -> None:
        if target is None:
            raise InputError(
                "expected x = (x_source, x_target): the query is the target's own "
                "feature (got None for x_target)"
            )
        for name, x, lin in (
            ("source", source, self.lin_key),
            ("target", target, self.lin_query),
        ):
            width = _in_channels(lin)
            # No `in`: torch up to 2.13 finds no size of a compiled graph in a tuple.
            other = width != -1 and width != x.size(-1)
            if x.dim() not in (2, 3) or other:
                raise InputError(
                    f"expected {name} features of shape (N, {width}) or (B, N, {width}) (got "
                    f"{tuple(x.shape)})"
                )
            if x.dim() == 3 and is_torch_sparse_tensor(x):
                raise InputError(
                    f"expected sparse {name} features of shape (N, {width}) (got {tuple(x.shape)})"
                )
            self._check_kind(f"{name} features", x)
        if source.shape[:-2] != target.shape[:-2]:
            raise InputError(
                "expected source and target features of as many sets "
                f"(got {tuple(source.shape)} and {tuple(target.shape)})"
            )

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"heads={self.heads})"
        )


def _ints(name: str, value: Any) -> Any:
    """An integer of any kind, NumPy's too, or several, as Python's."""
    try:
        return tuple(map(as_int, value)) if isinstance(value, tuple | list) else as_int(value)
    except TypeError:
        raise InputError(f"{name} must be of integers (got {value!r})") from None


def _in_channels(linear: torch.nn.Module) -> int:
    """The width that a linear map takes, whosever module it is; -1 if it does not say."""
    for name in ("in_channels", "in_features"):
        if isinstance(width := getattr(linear, name, None), int):
            return width
    return -1


_MAPS = ("lin_query", "lin_key", "lin_value", "lin_update", "lin_edge", "res")
_STAGES = ("edge_update", "message", "aggregate", "message_and_aggregate", "update")
_EDGE_HOOKS = {
    f"_{stage}_forward_{kind}"
    for stage in ("propagate", *_STAGES)
    for kind in ("pre_hooks", "hooks")
}
