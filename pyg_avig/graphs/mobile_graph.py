"""The graph of MobileViGv2."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_avig.graphs.constructors import positive, register_graph
from pyg_avig.graphs.lattice_edges import _LatticeEdges


@register_graph("mobile_graph")
class MobileGraphEdges(_LatticeEdges):
    """Join each node of a lattice with those one hop away, both ways along each axis.

    The graph of Mobile Graph Convolution (MGC) in `"Scaling Graph Convolutions for Mobile Vision"
    <https://arxiv.org/abs/2406.05850>`_ (MobileViGv2), as its public code has it: at any resolution
    a node of an image has four neighbours, where SVGA has as many as hops fit in. Hops lead around
    the ends of an axis. MobileViGv2's last three stages have hops of 8, 4 and 2.

    An axis of twice the hop adds one neighbour, one that is no longer than the hop none.

    Takes a ``Data`` or ``Batch`` with ``lattice_size``, of any number of axes.

    Args:
        hop: Distance of the neighbours along an axis, in nodes.
    """

    def __init__(self, hop: int = 2) -> None:
        self.hop = positive("hop", hop)

    def _joined(self, nodes: Tensor, size: tuple[int, ...]) -> Tensor:
        places = torch.arange(len(nodes)).view(size)
        sources = [
            places.roll(hop, axis).flatten()
            for axis, length in enumerate(size)
            if length > self.hop
            for hop in sorted({self.hop, length - self.hop})
        ]
        if not sources:
            return torch.empty(2, 0, dtype=torch.long)
        source = torch.stack(sources, 1)
        return torch.stack([source, places.view(-1, 1).expand_as(source)]).flatten(1)
