"""Who is near: exact at any place, in any number of dimensions and in bounded memory.

For many features distances come from a matrix product, ``|a|^2 - 2 a b + |b|^2``, which is ten
times faster than differences but loses the digits of points that lie together far from the
centre. So it is taken in double precision with a bound of its error, and what that leaves in doubt
is taken from differences.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch
from torch import Tensor

_NUMBERS = 2**23  # Held at a time: 64 MiB in double precision.
_FEW = 16  # Dimensions up to which differences are as fast as the product.


def use_tree(points: Tensor) -> bool:
    """Whether SciPy's k-d tree should look for neighbours: in few dimensions, on the CPU."""
    few = 1 <= points.size(1) <= 3
    return points.device.type == "cpu" and few and find_spec("scipy") is not None


def to_double(points: Tensor) -> Tensor:
    """The points in double precision, where the device has it."""
    return points if points.device.type == "mps" else points.double()


def distances(a: Tensor, b: Tensor) -> Tensor:
    """The distances between two sets of points, (..., N, D) and (..., M, D): (..., N, M)."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def nearest(points: Tensor, k: int, tolerance: float = 1e-10) -> Tensor:
    """The nearest others of each point of equally large sets, nearest first.

    Args:
        points: (B, N, D), finite.
        k: How many are wanted.
        tolerance: Squared distances that differ by less, relatively, count as equal.

    Returns:
        Indices into the N, (B, N, min(k, N - 1)).
    """
    batch, size, _ = points.shape
    k = min(k, size - 1)
    if batch * size == 0 or k < 1:
        return torch.empty(batch, size, max(k, 0), dtype=torch.long, device=points.device)
    points = to_double(points)
    rows = max(_NUMBERS // (batch * size), 1)
    parts = []
    for start in range(0, size, rows):
        squares, error = _squares(points[:, start : start + rows], points)
        squares.diagonal(start, 1, 2).fill_(torch.inf)
        near, nodes = squares.topk(k, largest=False)
        doubtful = ~(error <= tolerance * near[..., 0])  # So written, NaN is in doubt.
        if doubtful.any():
            graph, row = doubtful.nonzero().T
            nodes[graph, row] = _ranked(
                points, graph, row + start, nodes[graph, row], error[graph, row] / tolerance
            )
        parts.append(nodes)
    return torch.cat(parts, 1)


def within(points: Tensor, r: float) -> Tensor:
    """The pairs (2, E) of different points (N, D) that lie at most ``r`` from one another."""
    if use_tree(points):
        from scipy.spatial import KDTree

        pairs = torch.from_numpy(KDTree(points.numpy()).query_pairs(r, output_type="ndarray"))
        return torch.cat([pairs.T, pairs.T.flip(0)], 1)
    points = to_double(points)
    rows = max(_NUMBERS // max(len(points), 1), 1)
    parts = [torch.empty(2, 0, dtype=torch.long, device=points.device)]
    for start in range(0, len(points), rows):
        squares, error = _squares(points[None, start : start + rows], points[None])
        squares, error = squares[0], error[0] + 4 * torch.finfo(points.dtype).eps * r * r
        squares.diagonal(start).fill_(torch.inf)
        pairs = (~(squares > r * r + error.unsqueeze(1))).nonzero().T  # So written, with NaN.
        keep = squares[pairs[0], pairs[1]] <= r * r - error[pairs[0]]
        pairs[0] += start
        keep[~keep] = pair_distances(points, pairs[:, ~keep]) <= r
        parts.append(pairs[:, keep])
    return torch.cat(parts, 1)


def pair_distances(points: Tensor, pairs: Tensor) -> Tensor:
    """The distance (E,) between the two points (N, D) of each pair (2, E)."""
    points = to_double(points)
    parts = pairs.split(max(_NUMBERS // max(points.size(1), 1), 1), dim=1)
    return torch.cat([(points[a] - points[b]).norm(dim=-1) for a, b in parts])


def _squares(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances (B, M, N), and for each query the most that they are wrong by, (B, M).

    Args:
        queries: (B, M, D).
        points: (B, N, D).
    """
    if points.size(-1) <= _FEW or points.dtype != torch.double:
        squares = distances(queries, points).square_()
        return squares, squares.new_zeros(squares.shape[:2])
    centre = points.mean(1, keepdim=True)
    a, b = queries - centre, points - centre
    a_norm, b_norm = a.square().sum(-1), b.square().sum(-1)
    sums = a_norm.unsqueeze(2) + b_norm.unsqueeze(1)
    squares = sums.baddbmm_(a, b.mT, alpha=-2)
    # A sum of D products is wrong by D roundings of the sum of their magnitudes at most (Higham,
    # "Accuracy and Stability of Numerical Algorithms", section 3.1), and there are three such sums.
    worst = 2 * (points.size(-1) + 4) * torch.finfo(torch.double).eps
    return squares, worst * (a_norm + b_norm.amax(1, keepdim=True))


def _ranked(points: Tensor, graph: Tensor, row: Tensor, nodes: Tensor, least: Tensor) -> Tensor:
    """The nearest others of some points, from differences.

    Args:
        points: All points, (B, N, D).
        graph: The sets of those that are asked for, (R,).
        row: Their places in them, (R,).
        nodes: What the product takes for their neighbours, (R, k).
        least: The squared distance from which the product's choice, not its order, is right, (R,).
    """
    nodes, right = nodes.clone(), torch.empty_like(row, dtype=torch.bool)
    rows = max(_NUMBERS // max(nodes.size(1) * points.size(2), 1), 1)
    for some in torch.arange(len(row), device=row.device).split(rows):
        g = graph[some]
        near = distances(points[g, row[some]].unsqueeze(1), points[g.unsqueeze(1), nodes[some]])
        near, order = near.squeeze(1).sort()
        nodes[some] = nodes[some].gather(1, order)
        farthest = near[:, -1]
        # None can be nearer than where it is, and NaN is right in neither case.
        right[some] = (farthest.square() >= least[some]) | (farthest == 0) & least[some].isfinite()
    nodes[~right] = _differing(points, graph[~right], row[~right], nodes.size(1))
    return nodes


def _differing(points: Tensor, graph: Tensor, row: Tensor, k: int) -> Tensor:
    """The k nearest others of some points, (R, k), from the differences to all points."""
    nodes = torch.empty(len(row), k, dtype=torch.long, device=points.device)
    rows = max(_NUMBERS // points.size(1), 1)
    for g in graph.unique().tolist():
        for mine in (graph == g).nonzero().view(-1).split(rows):
            far = distances(points[g, row[mine]], points[g])
            far[torch.arange(len(mine)), row[mine]] = torch.inf
            nodes[mine] = far.topk(k, largest=False).indices
    return nodes
