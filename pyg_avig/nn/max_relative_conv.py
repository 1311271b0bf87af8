"""MaxRelativeConv, the aggregation of Vision GNN."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense.linear import Linear


class MaxRelativeConv(MessagePassing):
    r"""The max-relative graph convolution of `"DeepGCNs" <https://arxiv.org/abs/1904.03751>`_
    (section 3.4), which `"Vision GNN" <https://arxiv.org/abs/2206.00272>`_ aggregates with.

    .. math::
        \mathbf{x}^{\prime}_i = \mathbf{W} \Bigl[ \mathbf{x}_i \,\Vert\,
        \max_{j \in \mathcal{N}(i)} (\mathbf{x}_j - \mathbf{x}_i) \Bigr]

    A node without neighbours has zeros for the maximum.

    Args:
        in_channels: Size of each node feature.
        out_channels: Size of each output feature.
        bias: Add a learned bias.

    Shapes:
        - **input:** node features :math:`(|\mathcal{V}|, F_{in})`, edges :math:`(2, |\mathcal{E}|)`
        - **output:** :math:`(|\mathcal{V}|, F_{out})`
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(aggr="max")
        self.lin = Linear(2 * in_channels, out_channels, bias=bias, weight_initializer="glorot")

    def reset_parameters(self) -> None:
        """Draw all parameters anew."""
        super().reset_parameters()
        self.lin.reset_parameters()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Run the layer."""
        largest = self.propagate(edge_index, x=x)
        # The node's own feature is the same for all neighbours, so it is taken off behind the max.
        joined = x.new_zeros(x.size(0), dtype=torch.bool)
        joined[edge_index[1]] = True
        return self.lin(torch.cat([x, (largest - x) * joined.unsqueeze(-1)], -1))
