"""CrossAttnConv, the aggregation of AttentionViG as a PyG layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense.linear import Linear
from torch_geometric.nn.resolver import activation_resolver
from torch_geometric.utils import degree

from pyg_avig.errors import InputError
from pyg_avig.graphs.axial import AxialGraph
from pyg_avig.ops import cross_attention
from pyg_avig.ops.affinity import get_affinity
from pyg_avig.ops.cross_attention import check_edge_index
from pyg_avig.ops.reference import edge_weights

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
        **kwargs: Arguments of :class:`torch_geometric.nn.conv.MessagePassing`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, or
          :math:`((|\mathcal{V}_s|, F_s), (|\mathcal{V}_t|, F_t))` if bipartite; edge
          indices :math:`(2, |\mathcal{E}|)` or an :class:`~pyg_avig.graphs.AxialGraph`
        - **output:** :math:`(|\mathcal{V}_t|, H \cdot F_{out})`, or
          :math:`(|\mathcal{V}_t|, F_{out})` without ``concat``; with
          ``return_attention_weights=True`` also
          :math:`((2, |\mathcal{E}|), (|\mathcal{E}|, H))`
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
        **kwargs,
    ) -> None:
        kwargs.setdefault("aggr", "add")
        super().__init__(node_dim=0, **kwargs)
        if not 0 < beta <= MAX_BETA:
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
        self.log_beta = Parameter(torch.empty(heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        super().reset_parameters()
        self.lin_query.reset_parameters()
        self.lin_key.reset_parameters()
        self.lin_value.reset_parameters()
        self.lin_update.reset_parameters()
        torch.nn.init.constant_(self.log_beta, math.log(self.initial_beta))

    @property
    def beta(self) -> Tensor:
        """The inverse temperature of each head, (heads,)."""
        return self.log_beta.clamp(max=math.log(MAX_BETA)).exp()

    def forward(
        self,
        x: Tensor | tuple[Tensor, Tensor],
        edge_index: Tensor | AxialGraph,
        return_attention_weights: bool | None = None,
    ) -> Any:
        """Run the layer.

        Args:
            x: Node features, or those of sources and targets.
            edge_index: The graph.
            return_attention_weights: ``True`` adds ``(edge_index, alpha)``: the weight
                of each edge and head, before dropout.

        Raises:
            InputError: If the features or the graph do not fit the layer.
            IndexError: If an edge names a node that is not there.
        """
        source, target = (x, x) if isinstance(x, Tensor) else x
        self._check_features(source, target)

        query = self.lin_query(target).view(-1, self.heads, self.out_channels)
        key = self.lin_key(source).view(-1, self.heads, self.out_channels)
        value = self.lin_value(source).view(-1, self.heads, self.out_channels)

        alpha = None
        if return_attention_weights or self._needs_edges():
            if isinstance(edge_index, AxialGraph):
                edge_index = edge_index.edge_index
            i, j = (1, 0) if self.flow == "source_to_target" else (0, 1)
            num_nodes = {i: len(query), j: len(key)}
            check_edge_index(edge_index, num_nodes[0], num_nodes[1])
            # edge_updater_type: (query: Tensor, key: Tensor)
            alpha = self.edge_updater(edge_index, query=query, key=key)
            # propagate_type: (value: Tensor, alpha: Tensor)
            out = self.propagate(
                edge_index, size=(num_nodes[0], num_nodes[1]), value=value, alpha=alpha
            )
        else:
            out = cross_attention(
                query,
                key,
                value,
                edge_index,
                self.beta,
                self.affinity,
                dropout=self.dropout if self.training else 0.0,
            )

        if self.normalize:
            out = out / self._degree(edge_index, len(query), out).view(-1, 1, 1)
        out = out.flatten(1) if self.concat else out.mean(1)
        out = self.lin_update(torch.cat([target, out], -1))
        if self.act is not None:
            out = self.act(out)
        return (out, (edge_index, alpha)) if return_attention_weights else out

    def edge_update(self, query_i: Tensor, key_j: Tensor, index: Tensor, dim_size: int) -> Tensor:
        """The weight of each edge and head, (E, heads)."""
        return edge_weights(query_i, key_j, self.beta, index, dim_size, self.affinity)

    def message(self, value_j: Tensor, alpha: Tensor) -> Tensor:
        """The weighted value that each edge carries, (E, heads, C)."""
        alpha = F.dropout(alpha, self.dropout, self.training).to(value_j.dtype)
        return alpha.unsqueeze(-1) * value_j

    def _needs_edges(self) -> bool:
        """Whether somebody looks at, or changes, what passes along single edges."""
        return (
            self.explain
            or self.aggr not in ("add", "sum")
            or self.flow != "source_to_target"
            or self.decomposed_layers > 1
            or type(self).message is not CrossAttnConv.message
            or type(self).edge_update is not CrossAttnConv.edge_update
            or any(hooks for name, hooks in vars(self).items() if name in _EDGE_HOOKS)
        )

    def _degree(self, graph: Tensor | AxialGraph, num_nodes: int, like: Tensor) -> Tensor:
        """The number of neighbours of each target, at least one."""
        if isinstance(graph, AxialGraph):
            return like.new_tensor(max(graph.degree, 1))
        index = graph[1 if self.flow == "source_to_target" else 0]
        return degree(index, num_nodes, like.dtype).clamp(min=1)

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
            if x.dim() != 2 or lin.in_channels not in (-1, x.size(-1)):
                raise InputError(
                    f"expected {name} features of shape (N, {lin.in_channels}) "
                    f"(got {tuple(x.shape)})"
                )

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}({self.in_channels}, {self.out_channels}, "
            f"heads={self.heads})"
        )


_EDGE_HOOKS = {
    f"_{stage}_forward_{kind}"
    for stage in (
        "propagate",
        "message",
        "aggregate",
        "message_and_aggregate",
        "edge_update",
    )
    for kind in ("pre_hooks", "hooks")
}
