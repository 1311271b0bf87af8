"""The nearest neighbours of each node, in space or among features."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data

from pyg_avig.graphs.constructors import (
    GraphConstructor,
    node_ranges,
    points_of,
    positive,
    register_graph,
)
from pyg_avig.graphs.distances import nearest, to_double, use_tree


@register_graph("knn")
class KNNEdges(GraphConstructor):
    """Join each node with its nearest neighbours, which it receives from.

    A node of a graph that is too small gets those that there are. In up to three dimensions on the
    CPU SciPy's k-d tree finds them, where it is installed; elsewhere all distances are computed, a
    bounded number at a time. Either way they are right to the rounding of the points' dtype,
    wherever the points lie; of points equally far away any may be taken. Dilated neighbours, of
    features and rebuilt in each block, are those of `"Vision GNN: An Image is Worth Graph of Nodes"
    <https://arxiv.org/abs/2206.00272>`_ (section 3.1).

    Args:
        k: Number of neighbours.
        of: Field of the points: ``pos``, or ``x`` for distances between features.
        dilation: Take every such neighbour among the ``k * dilation`` nearest.
        cosine: Compare directions alone, as Vision GNN does with features.

    Example:
        >>> import torch
        >>> from torch_geometric.data import Data
        >>> from pyg_avig.graphs import KNNEdges
        >>> KNNEdges(k=4)(Data(pos=torch.rand(50, 3))).edge_index.shape
        torch.Size([2, 200])
    """

    def __init__(
        self, k: int = 9, of: str = "pos", dilation: int = 1, cosine: bool = False
    ) -> None:
        self.k = positive("k", k)
        self.of = of
        self.dilation = positive("dilation", dilation)
        self.cosine = cosine

    def graph(self, data: Data) -> Tensor:
        """The edges, (2, N * k), each node's nearest neighbour first."""
        points = points_of(data, self.of)
        tolerance = max(torch.finfo(points.dtype).eps, 1e-10)
        if self.cosine:
            points = F.normalize(to_double(points), dim=-1)
        ends = node_ranges(data)
        sizes = {b - a for a, b in pairwise(ends)}
        far = self.k * self.dilation
        if use_tree(points):
            neighbors = [_by_tree(points[a:b], far) + a for a, b in pairwise(ends)]
        elif len(sizes) == 1:
            (size,) = sizes
            copies = len(ends) - 1
            found = nearest(points.view(copies, size, points.size(1)), far, tolerance)
            first = torch.tensor(ends[:-1], device=points.device)
            neighbors = [(found + first.view(-1, 1, 1)).flatten(0, 1)]
        else:
            neighbors = [
                nearest(points[None, a:b], far, tolerance)[0] + a for a, b in pairwise(ends)
            ]
        sources = [nodes[:, :: self.dilation] for nodes in neighbors]
        counts = [nodes.size(1) for nodes in sources for _ in range(nodes.size(0))]
        degrees = torch.tensor(counts, dtype=torch.long, device=points.device)
        targets = torch.arange(ends[-1], device=points.device).repeat_interleave(degrees)
        none = targets.new_empty(0)
        return torch.stack([torch.cat([none, *(nodes.flatten() for nodes in sources)]), targets])


def _by_tree(points: Tensor, k: int) -> Tensor:
    """The nearest others of each point, (N, min(k, N - 1))."""
    from scipy.spatial import KDTree

    size = len(points)
    k = min(k, size - 1)
    if k < 1:
        return torch.empty(size, 0, dtype=torch.long)
    _, found = KDTree(points.numpy()).query(points.numpy(), k + 1)
    nodes = torch.from_numpy(found)
    # The point itself comes first, but not always where others lie upon it.
    others = nodes != torch.arange(size).view(-1, 1)
    others[others.all(1), -1] = False
    return nodes[others].view(size, k)
