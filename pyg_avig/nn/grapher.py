"""Grapher: position code, cross-attention and feed-forward over node features."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from pyg_avig.errors import InputError
from pyg_avig.graphs.adjacency import Adjacency
from pyg_avig.graphs.axial_graph import AxialGraph
from pyg_avig.graphs.constructors import positive
from pyg_avig.graphs.lattice import grid_to_nodes, nodes_to_grid
from pyg_avig.nn.cross_attn_conv import CrossAttnConv
from pyg_avig.nn.folding import (
    activated_in_place,
    fold_norm,
    fold_norms,
    in_place,
    is_plain,
)
from pyg_avig.nn.norm_gelu import in_sequence, norm_act


class Grapher(nn.Module):
    r"""The Grapher of `"AttentionViG" <https://arxiv.org/abs/2509.25570>`_ (section 3.2).

    .. math::
        \mathbf{x} &\leftarrow \mathbf{x} + \mathrm{DWConv}(\mathbf{x}) \\
        \mathbf{x} &\leftarrow \mathbf{x} + \gamma_1 \, \sigma \bigl( \mathrm{BN}(
        \mathrm{CrossAttnConv}(\mathbf{x}, \mathcal{G})) \bigr) \\
        \mathbf{x} &\leftarrow \mathbf{x} + \gamma_2 \, \mathrm{FFN}(\mathbf{x})

    The position code (conditional positional encoding, a depth-wise convolution) needs
    a lattice; without it the block runs on any graph. Inferred from the paper's relatives
    (MobileViG, GreedyViG): its 7 x 7 kernel, BatchNorm after each linear map, layer scale
    and drop path.

    Args:
        channels: Width of the node features.
        heads: Heads of the attention; must divide ``channels``.
        affinity: See :class:`CrossAttnConv`.
        beta: See :class:`CrossAttnConv`.
        normalize: See :class:`CrossAttnConv`.
        ffn_ratio: Hidden width of the feed-forward network over ``channels``.
        pos_kernel: Side of the position code's kernel, odd; ``None`` for no position code.
        pos_axes: Axes of the lattice, 1 to 3.
        drop_path: Probability of skipping a residual branch for a whole graph.
        layer_scale: Initial :math:`\gamma`.
        conv: Another layer in place of :class:`CrossAttnConv`, called as
            ``conv(x, graph, edge_attr)``; see :func:`make_aggregation`.
        dropout: Probability of dropping a feature behind each of the two activations, in [0, 1).

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, C)`, any graph, edge features
          :math:`(|\mathcal{E}|, D)` if ``conv`` takes any
        - **output:** :math:`(|\mathcal{V}|, C)`

    Example:
        >>> import torch
        >>> from pyg_avig import AxialGraph, Grapher
        >>> block = Grapher(channels=64, heads=4)
        >>> block(torch.randn(196, 64), AxialGraph(size=(14, 14), stride=2)).shape
        torch.Size([196, 64])
    """

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        affinity: str = "exponential",
        beta: float = 1.0,
        normalize: bool = False,
        ffn_ratio: float = 4.0,
        pos_kernel: int | None = 7,
        drop_path: float = 0.0,
        layer_scale: float = 1e-5,
        pos_axes: int = 2,
        conv: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, heads = positive("channels", channels), positive("heads", heads)
        if channels % heads:
            raise InputError(f"heads must divide channels (got {heads} and {channels})")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout must lie in [0, 1) (got {dropout})")
        hidden = int(channels * ffn_ratio)
        self.pos: nn.Module | None = None
        if pos_kernel is not None:
            pos_kernel = positive("pos_kernel", pos_kernel)
            if pos_kernel % 2 == 0:
                raise InputError(f"pos_kernel must be odd (got {pos_kernel})")
            kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[pos_axes - 1]
            padding = pos_kernel // 2
            self.pos = kind(channels, channels, pos_kernel, padding=padding, groups=channels)
        if conv is None:
            conv = CrossAttnConv(
                channels,
                channels // heads,
                heads,
                affinity=affinity,
                beta=beta,
                normalize=normalize,
                bias=False,
            )
        self.conv = conv
        self.norm: nn.Module = nn.BatchNorm1d(channels)
        self.act = _gelu(dropout)
        self.gamma1 = nn.Parameter(torch.full((channels,), layer_scale))
        self.ffn: nn.Module = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            _gelu(dropout),
            nn.Linear(hidden, channels, bias=False),
            nn.BatchNorm1d(channels),
        )
        self.gamma2 = nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = GraphDropPath(drop_path)

    def forward(
        self,
        x: Tensor,
        graph: Adjacency,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
        size: tuple[int, ...] | None = None,
    ) -> Tensor:
        """Run the block.

        Args:
            x: Node features, (N, C).
            graph: Any adjacency.
            edge_attr: Edge features, if the aggregation takes any.
            batch: The graph of each node, (N,), as in PyG's ``Batch``; not needed on lattices, nor
                for one graph.
            size: Size of the lattices that the nodes lie on, if ``graph`` is no ``AxialGraph``.

        Raises:
            InputError: If there is a position code and no lattice.
        """
        graphs: int | Tensor = 1 if batch is None else batch
        if isinstance(graph, AxialGraph):
            graphs, size = graph.batch_size, graph.size
        elif batch is None and size is not None:
            graphs = x.size(0) // math.prod(size)
        if self.pos is not None:
            if size is None:
                raise InputError("expected a lattice, for the position code (or pos_kernel=None)")
            x = x + grid_to_nodes(self.pos(nodes_to_grid(x, size)))
        message = self.conv(x, graph) if edge_attr is None else self.conv(x, graph, edge_attr)
        x = x + self.drop_path(self.gamma1 * norm_act(self.norm, self.act, message), graphs)
        return x + self.drop_path(self.gamma2 * in_sequence(self.ffn, x), graphs)

    def fuse(self) -> Grapher:
        """Merge each BatchNorm into the linear map before it, in place, for evaluation.

        Activations then write over what these maps give.

        One stays where something lies between the two (``residual`` or ``act`` of the layer, a
        layer of another kind, a hook): no output changes.
        """
        if self.training:
            raise InputError("expected a Grapher in evaluation mode, to fuse it (call eval())")
        conv: Any = self.conv
        plain = is_plain(conv, CrossAttnConv) and conv.res is None and conv.act is None
        if plain and conv.lin_update is not None:
            update = fold_norm(conv.lin_update, self.norm)
            if update is not None:
                self.conv = copy.copy(conv)  # Another Grapher may share the layer.
                self.conv._modules = {**conv._modules, "lin_update": update}
                self.norm = nn.Identity().eval()
                self.act = in_place(self.act)
        self.ffn = activated_in_place(fold_norms(self.ffn))
        return self


def _gelu(dropout: float) -> nn.Module:
    return nn.Sequential(nn.GELU(), nn.Dropout(dropout)) if dropout else nn.GELU()


class GraphDropPath(nn.Module):
    """Stochastic depth: drop a residual branch for a whole graph at a time.

    `"Deep Networks with Stochastic Depth" <https://arxiv.org/abs/1603.09382>`_, for node
    features.

    Args:
        p: Probability of dropping, in [0, 1).
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise InputError(f"drop_path must lie in [0, 1) (got {p})")
        self.p = p

    def forward(self, x: Tensor, graphs: int | Tensor) -> Tensor:
        """Drop whole graphs of node features (N, C), and scale up the others.

        Args:
            x: The node features.
            graphs: Number of equally large graphs, or the graph of each node, (N,).
        """
        if self.p == 0 or not self.training:
            return x
        if isinstance(graphs, Tensor):
            number = int(graphs.max()) + 1 if len(graphs) else 0
            keep = x.new_empty(number, 1).bernoulli_(1 - self.p) / (1 - self.p)
            return x * keep[graphs]
        keep = x.new_empty(graphs, 1, 1).bernoulli_(1 - self.p) / (1 - self.p)
        return (x.view(graphs, -1, x.size(-1)) * keep).view_as(x)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"
