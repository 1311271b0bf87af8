"""The nearest neighbours of each node, in space or among features."""

from __future__ import annotations

from importlib.util import find_spec
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

_DISTANCES = 2**24  # At a time: 64 MiB in single precision.


@register_graph("knn")
class KNNEdges(GraphConstructor):
    """Join each node with its nearest neighbours, which it receives from.

    A node of a graph that is too small gets those that there are. In up to three dimensions on the
    CPU SciPy's k-d tree finds them, where it is installed; elsewhere all distances are computed, a
    bounded number at a time. Dilated neighbours, of features and rebuilt in each block, are those
    of `"Vision GNN: An Image is Worth Graph of Nodes" <https://arxiv.org/abs/2206.00272>`_
    (section 3.1).

    Args:
        k: Number of neighbours.
        of: Field of the points: ``pos``, or ``x`` for distances between features.
        dilation: Take every such neighbour among the ``k * dilation`` nearest.
        cosine: Compare directions alone, as Vision GNN does with features.
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
        if self.cosine:
            points = F.normalize(points, dim=-1)
        ends = node_ranges(data)
        sizes = {b - a for a, b in pairwise(ends)}
        far = self.k * self.dilation
        if use_tree(points):
            neighbors = [_by_tree(points[a:b], far) + a for a, b in pairwise(ends)]
        elif len(sizes) == 1:
            (size,) = sizes
            neighbors = [_by_distance(points.view(-1, size, points.size(1)), far).flatten(0, 1)]
            first = torch.arange(0, ends[-1], max(size, 1), device=points.device)
            neighbors[0] += first.repeat_interleave(size).view(-1, 1)
        else:
            neighbors = [_by_distance(points[None, a:b], far)[0] + a for a, b in pairwise(ends)]
        sources = [nodes[:, :: self.dilation] for nodes in neighbors]
        counts = [nodes.size(1) for nodes in sources for _ in range(nodes.size(0))]
        degrees = torch.tensor(counts, dtype=torch.long, device=points.device)
        targets = torch.arange(ends[-1], device=points.device).repeat_interleave(degrees)
        none = targets.new_empty(0)
        return torch.stack([torch.cat([none, *(nodes.flatten() for nodes in sources)]), targets])


def use_tree(points: Tensor) -> bool:
    """Whether SciPy's k-d tree should look for neighbours: in few dimensions, on the CPU."""
    return points.device.type == "cpu" and points.size(1) <= 3 and find_spec("scipy") is not None


def distances(a: Tensor, b: Tensor) -> Tensor:
    """The distances between two sets of points, (..., N, D) and (..., M, D): (..., N, M)."""
    if a.size(-1) <= 16:  # The product that is faster for many features loses digits.
        return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    centre = b.mean(-2, keepdim=True)
    return torch.cdist(a - centre, b - centre)


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


def _by_distance(points: Tensor, k: int) -> Tensor:
    """The nearest others of each point of equally large sets (B, N, D), (B, N, min(k, N - 1))."""
    batch, size, _ = points.shape
    k = min(k, size - 1)
    if k < 1:
        return torch.empty(batch, size, 0, dtype=torch.long, device=points.device)
    rows = max(_DISTANCES // (batch * size), 1)
    nodes = []
    for start in range(0, size, rows):
        queries = points[:, start : start + rows]
        distance = distances(queries, points)
        distance.diagonal(start, 1, 2).fill_(torch.inf)
        nodes.append(distance.topk(k, largest=False).indices)
    return torch.cat(nodes, 1)
