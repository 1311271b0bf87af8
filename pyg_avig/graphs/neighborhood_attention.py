"""The neighbourhood of the Neighborhood Attention Transformer."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_avig.errors import InputError
from pyg_avig.graphs.constructors import positive, register_graph
from pyg_avig.graphs.lattice_edges import _LatticeEdges


@register_graph("neighborhood_attention")
class NeighborhoodAttentionEdges(_LatticeEdges):
    """Join each node of a lattice with k x ... x k nodes around it, moved inwards at the border.

    The neighbourhood of `"Neighborhood Attention Transformer" <https://arxiv.org/abs/2204.07143>`_
    (its window is the nearest that lies on the lattice, so nodes at a border have as many
    neighbours as others), and with dilation that of `"Dilated Neighborhood Attention Transformer"
    <https://arxiv.org/abs/2209.15001>`_ (the window moves among the nodes that lie a multiple of
    the dilation away). A convolution crops it instead: :class:`NeighborhoodEdges`.

    Where fewer than k such nodes are on an axis, all of them are in the window.

    Takes a ``Data`` or ``Batch`` with ``lattice_size``, of any number of axes.

    Args:
        kernel: Side k of the neighbourhood, odd.
        dilation: Distance between neighbours, in nodes.
    """

    def __init__(self, kernel: int = 7, dilation: int = 1) -> None:
        if positive("kernel", kernel) % 2 == 0:
            raise InputError(f"kernel must be odd (got {kernel})")
        self.kernel = kernel
        self.dilation = positive("dilation", dilation)

    def _joined(self, nodes: Tensor, size: tuple[int, ...]) -> Tensor:
        steps = torch.cartesian_prod(*[torch.arange(self.kernel)] * len(size)).view(-1, len(size))
        sources = torch.zeros(len(nodes), len(steps), dtype=torch.long)
        inside = torch.ones_like(sources, dtype=torch.bool)
        for axis, length in enumerate(size):
            window = self._windows(length)[nodes[:, axis]][:, steps[:, axis]]
            inside &= window < length
            sources = sources * length + window
        targets = torch.arange(len(nodes)).view(-1, 1).expand_as(sources)
        inside &= sources != targets
        return torch.stack([sources[inside], targets[inside]])

    def _windows(self, length: int) -> Tensor:
        """The window of each place on an axis, (length, kernel); places behind its end are none."""
        places = torch.arange(length).view(-1, 1)
        first, index = places % self.dilation, places // self.dilation
        members = (length - first - 1) // self.dilation + 1
        start = (index - self.kernel // 2).minimum(members - self.kernel).clamp(min=0)
        return first + (start + torch.arange(self.kernel)) * self.dilation
