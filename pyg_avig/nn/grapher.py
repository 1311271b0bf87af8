"""Grapher: position code, cross-attention and feed-forward over node features."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval, fuse_linear_bn_weights

from pyg_avig.errors import InputError
from pyg_avig.graphs.axial import AxialGraph
from pyg_avig.graphs.lattice import grid_to_nodes, nodes_to_grid
from pyg_avig.nn.cross_attn_conv import CrossAttnConv


class Grapher(nn.Module):
    r"""The Grapher of `"AttentionViG" <https://arxiv.org/abs/2509.25570>`_ (section 3.2).

    .. math::
        \mathbf{x} &\leftarrow \mathbf{x} + \mathrm{DWConv}(\mathbf{x}) \\
        \mathbf{x} &\leftarrow \mathbf{x} + \gamma_1 \, \sigma \bigl( \mathrm{BN}(
        \mathrm{CrossAttnConv}(\mathbf{x}, \mathcal{G})) \bigr) \\
        \mathbf{x} &\leftarrow \mathbf{x} + \gamma_2 \, \mathrm{FFN}(\mathbf{x})

    The position code (conditional positional encoding, a depth-wise convolution) needs
    a lattice. Inferred from the paper's relatives (MobileViG, GreedyViG): its 7 x 7
    kernel, BatchNorm after each linear map, layer scale and drop path.

    Args:
        channels: Width of the node features.
        heads: Heads of the attention; must divide ``channels``.
        affinity: See :class:`CrossAttnConv`.
        beta: See :class:`CrossAttnConv`.
        normalize: See :class:`CrossAttnConv`.
        ffn_ratio: Hidden width of the feed-forward network over ``channels``.
        pos_kernel: Side of the position code's kernel, odd.
        drop_path: Probability of skipping a residual branch for a whole graph.
        layer_scale: Initial :math:`\gamma`.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, C)`, a lattice of two axes
        - **output:** :math:`(|\mathcal{V}|, C)`
    """

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        affinity: str = "exponential",
        beta: float = 1.0,
        normalize: bool = False,
        ffn_ratio: float = 4.0,
        pos_kernel: int = 7,
        drop_path: float = 0.0,
        layer_scale: float = 1e-5,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise InputError(f"heads must divide channels (got {heads} and {channels})")
        hidden = int(channels * ffn_ratio)
        self.pos = nn.Conv2d(
            channels, channels, pos_kernel, padding=pos_kernel // 2, groups=channels
        )
        self.conv = CrossAttnConv(
            channels,
            channels // heads,
            heads,
            affinity=affinity,
            beta=beta,
            normalize=normalize,
            bias=False,
        )
        self.norm: nn.Module = nn.BatchNorm1d(channels)
        self.act = nn.GELU()
        self.gamma1 = nn.Parameter(torch.full((channels,), layer_scale))
        self.ffn = nn.Sequential(
            nn.Linear(channels, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.GELU(),
            nn.Linear(hidden, channels, bias=False),
            nn.BatchNorm1d(channels),
        )
        self.gamma2 = nn.Parameter(torch.full((channels,), layer_scale))
        self.drop_path = GraphDropPath(drop_path)

    def forward(self, x: Tensor, graph: AxialGraph) -> Tensor:
        """Run the block on node features (B * N, C) of a lattice."""
        x = x + grid_to_nodes(self.pos(nodes_to_grid(x, graph.size)))
        message = self.act(self.norm(self.conv(x, graph)))
        x = x + self.drop_path(self.gamma1 * message, graph.batch_size)
        return x + self.drop_path(self.gamma2 * self.ffn(x), graph.batch_size)

    @torch.no_grad()
    def fuse(self) -> Grapher:
        """Merge each BatchNorm into the linear map before it, in place, for evaluation."""
        if self.training:
            raise InputError("expected a Grapher in evaluation mode, to fuse it (call eval())")
        if isinstance(self.norm, nn.Identity):
            return self
        update, norm = self.conv.lin_update, self.norm
        norm = cast(nn.BatchNorm1d, norm)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        update.weight, update.bias = fuse_linear_bn_weights(
            update.weight,
            update.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        self.norm = nn.Identity()
        expand, norm_1, act, project, norm_2 = cast(Any, self.ffn)
        self.ffn = nn.Sequential(
            fuse_linear_bn_eval(expand, norm_1), act, fuse_linear_bn_eval(project, norm_2)
        )
        return self


class GraphDropPath(nn.Module):
    """Stochastic depth: drop a residual branch for a whole graph at a time.

    `"Deep Networks with Stochastic Depth" <https://arxiv.org/abs/1603.09382>`_, for node
    features of equally large graphs.

    Args:
        p: Probability of dropping, in [0, 1).
    """

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise InputError(f"drop_path must lie in [0, 1) (got {p})")
        self.p = p

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Drop whole graphs of node features (B * N, C), and scale up the others."""
        if self.p == 0 or not self.training:
            return x
        keep = x.new_empty(batch_size, 1, 1).bernoulli_(1 - self.p) / (1 - self.p)
        return (x.view(batch_size, -1, x.size(-1)) * keep).view_as(x)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"
