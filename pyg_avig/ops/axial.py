r"""Cross-attention on a lattice, axis by axis, without edges.

The nodes along an axis of length :math:`S` with stride :math:`K` fall into :math:`\gcd(S, K)`
residue classes, and the sum over neighbours is a batch of dense products within them. Where
:math:`K` divides :math:`S` a class is a complete graph, else its edges are a circulant mask. A
:class:`MaskedAxialGraph` adds a mask of its own.

Both products (:mod:`pyg_avig.ops.products`) read and write node features where they lie: small
classes in kernels of ours (:mod:`pyg_avig.ops.kernels`), large ones on the CPU through strided
views in PyTorch's batched products. On a GPU those of large classes are composed.

Non-edges within a class weigh zero, and zero times NaN or infinity is NaN: values that are not
finite spread further than along the edges.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_avig.errors import InputError
from pyg_avig.graphs.adjacency import is_compiled, is_recorded
from pyg_avig.graphs.axial_graph import AxialGraph
from pyg_avig.graphs.masked_axial import MaskedAxialGraph
from pyg_avig.ops import kernels
from pyg_avig.ops.affinity import get_affinity
from pyg_avig.ops.products import cosine, matmul, spread
from pyg_avig.ops.reference import full_precision

# Members of a class up to which our kernels serve, by kind of device: on the CPU those up to which
# they are faster than a matrix library (measured).
SMALL = {"cpu": 16, "cuda": kernels.gpu.SMALL}


def axial_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    graph: AxialGraph,
    beta: Tensor,
    affinity: str = "exponential",
    dropout: float = 0.0,
) -> Tensor:
    """:func:`pyg_avig.ops.cross_attention` on an :class:`AxialGraph`."""
    axes = [
        _Axis(graph, axis, value.size(1), value.device, loops=graph.self_loops and n == 0)
        for n, axis in enumerate(_axes_with_edges(graph))
    ]
    if not axes or value.numel() == 0:
        # Zero, but a function of its inputs, as their gradients may be asked for.
        nothing = query[:0].sum() + key[:0].sum() + value[:0].sum() + beta[:0].sum()
        return torch.zeros_like(value) + nothing.to(value.dtype)
    layout = _AxialLayout(axes, graph.batch_size)
    with full_precision(value.device):
        similarity = cosine(layout, query, key)
        weights = _weights(similarity, axes, beta, affinity, graph)
        return spread(layout, value, [F.dropout(weight, dropout) for weight in weights])


def _weights(
    similarity: list[Tensor], axes: list[_Axis], beta: Tensor, affinity: str, graph: AxialGraph
) -> list[Tensor]:
    """The weights along each axis, in the shape of its similarities; 0 where no edge is."""
    function, competes = get_affinity(affinity)
    beta = beta.to(similarity[0].dtype).view(-1, 1, 1)
    if not competes:
        return [
            function(s, beta, _CountOnly(axis, graph)).masked_fill(~axis.mask, 0)
            for axis, s in zip(axes, similarity, strict=True)
        ]
    # All neighbours of a node side by side, whatever the axis: (B*N, heads, M1 + M2 + ...).
    together = torch.cat([axis.to_nodes(s) for axis, s in zip(axes, similarity, strict=True)], -1)
    mask = torch.cat([axis.node_mask() for axis in axes], -1)
    # A node without neighbours reduces over all, as over none there are no finite gradients.
    reduced = mask | ~mask.any(-1, keepdim=True)
    weight = function(
        together.masked_fill(~mask, -1), beta.view(-1, 1), _NodeNeighbors(reduced)
    ).masked_fill(~mask, 0)
    per_axis = weight.split([axis.members for axis in axes], -1)
    return [axis.to_classes(w) for axis, w in zip(axes, per_axis, strict=True)]


class _Axis:
    """One axis of a lattice: its classes of nodes and the edges within a class.

    Node features (B*N, heads, C) are, without a copy, (before, members, rest, heads, C): the
    members of a class lie ``rest`` nodes apart. Weights are (before, rest, heads, M, M).
    """

    def __init__(
        self, graph: AxialGraph, axis: int, heads: int, device: torch.device, loops: bool
    ) -> None:
        classes = num_classes(graph, axis)
        self.members = graph.size[axis] // classes
        self.before = graph.batch_size * math.prod(graph.size[:axis])
        self.rest = classes * math.prod(graph.size[axis + 1 :])
        self.heads = heads
        stride = graph.stride[axis] // classes
        self.mask = _class_mask(self.members, stride, loops, device)
        if isinstance(graph, MaskedAxialGraph) and graph.degrees[axis]:
            self.mask = self.mask & self._kept(graph.kept_along(axis), stride)

    def repeated(self, times: int) -> _Axis:
        """The same axis of ``times`` as many heads."""
        axis = copy.copy(self)
        axis.heads *= times
        return axis

    def to_classes(self, x: Tensor) -> Tensor:
        """Node features (B*N, heads, C) as (before, rest, heads, M, C)."""
        shape = (self.before, self.members, self.rest, self.heads, x.size(-1))
        return x.reshape(shape).permute(0, 2, 3, 1, 4)

    def to_nodes(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`to_classes`."""
        return x.permute(0, 3, 1, 2, 4).reshape(-1, self.heads, x.size(-1))

    def _kept(self, keep: Tensor, stride: int) -> Tensor:
        """Which edges (B*N, hops) there are, by target and source, (before, rest, 1, M, M)."""
        keep = self.at_targets(keep.unsqueeze(1))
        node = torch.arange(self.members, device=keep.device)
        hop = (node.view(-1, 1) - node) % self.members
        # The n-th of a node's edges leads n + 1 strides back; other places are no edges.
        edge = (hop // stride - 1).clamp(0, keep.size(-1) - 1).expand(*keep.shape[:3], -1, -1)
        return keep.gather(-1, edge) | (hop == 0)

    def at_targets(self, x: Tensor) -> Tensor:
        """What is said of nodes, (B*N, 1, K), as (before, rest, 1, M, K); a scalar as it is."""
        if x.dim() < 2:
            return x if x.dim() == 0 else self.at_targets(x.view(-1, 1, 1))
        x = x.view(self.before, self.members, self.rest, 1, -1)
        return x.permute(0, 2, 3, 1, 4)

    def node_mask(self) -> Tensor:
        """The mask for each node of the batch, (B*N, 1, M)."""
        mask = self.mask.expand(self.before, self.rest, 1, self.members, self.members)
        return mask.permute(0, 3, 1, 2, 4).reshape(-1, 1, self.members)

    def ends(self, targets: Tensor, sources: Tensor) -> tuple[Tensor, Tensor]:
        """Values (B*N, heads) of both ends of the edges, (..., M, 1) and (..., 1, M)."""
        rows, columns = (self.to_classes(x.unsqueeze(-1)) for x in (targets, sources))
        return rows, columns.transpose(-1, -2)

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """The products of rows of each class."""
        weight = self._new_weights(a)
        for rows, columns, out in zip(
            self._batches(a), self._batches(b), self._weight_batches(weight), strict=True
        ):
            torch.bmm(rows, columns.transpose(1, 2), out=out)
        return weight

    def spread(self, x: Tensor, weight: Tensor, transpose: bool, out: Tensor, add: bool) -> None:
        """Write, or add, the weighted sums of each class to ``out``."""
        for rows, w, total in zip(
            self._batches(x), self._weight_batches(weight), self._batches(out), strict=True
        ):
            part = torch.bmm(w.transpose(1, 2) if transpose else w, rows)
            total.add_(part) if add else total.copy_(part)

    @property
    def _split_before(self) -> bool:
        """Whether batches are taken apart along ``before``: there are fewer of them so."""
        return self.before < self.rest * self.heads

    def _new_weights(self, x: Tensor) -> Tensor:
        """Uninitialised weights whose batches are contiguous, as MKL wants its results."""
        inner, square = self.rest * self.heads, (self.members, self.members)
        if self._split_before:
            weight = x.new_empty(self.before, inner, *square)
        else:
            weight = x.new_empty(inner, self.before, *square).transpose(0, 1)
        return weight.unflatten(1, (self.rest, self.heads))

    def _batches(self, x: Tensor) -> Iterator[Tensor]:
        """Contiguous node features as batches of classes (many, M, C), each a view."""
        inner = self.rest * self.heads
        x = x.view(self.before, self.members, inner, x.size(-1))
        if self._split_before:
            for i in range(self.before):
                yield x[i].transpose(0, 1)
        else:
            for j in range(inner):
                yield x[:, :, j]

    def _weight_batches(self, weight: Tensor) -> Iterator[Tensor]:
        """Weights as the batches (many, M, M) that belong to :meth:`_batches`."""
        return iter(weight.flatten(1, 2).unbind(0 if self._split_before else 1))


class _AxialLayout:
    """The :class:`~pyg_avig.ops.products.Layout` of weights by axis and class."""

    head_axis = 2

    def __init__(self, axes: list[_Axis], graphs: int) -> None:
        self.axes = axes
        self.graphs = graphs
        self.sizes = [
            size
            for axis in axes
            for size in (axis.before // graphs, axis.members, axis.rest * axis.heads)
        ]

    def serves(self, x: Tensor) -> bool:
        """As views, products are for the CPU, where nobody compiles them."""
        return (x.device.type == "cpu" and not is_compiled()) or self._in_kernels(x)

    def _in_kernels(self, x: Tensor) -> bool:
        """Whether ours are the faster."""
        members = max(axis.members for axis in self.axes)
        return members <= SMALL.get(x.device.type, 0) and kernels.serves(x)

    def pairs(self, a: Tensor, b: Tensor) -> list[Tensor]:
        if self._in_kernels(a):
            return self._unflatten(kernels.axial_pairs(a, b, [], self.graphs, self.sizes))
        a, b = (x.to(kernels.weight_dtype(x)) for x in (a, b))
        return [axis.pairs(a, b) for axis in self.axes]

    def cosines(self, a: Tensor, b: Tensor, scales: tuple[Tensor, Tensor]) -> list[Tensor]:
        if self._in_kernels(a):
            return self._unflatten(kernels.axial_pairs(a, b, list(scales), self.graphs, self.sizes))
        return [
            products.mul_(target).mul_(source).clamp_(-1, 1)
            for products, (target, source) in zip(self.pairs(a, b), self.ends(*scales), strict=True)
        ]

    def spread(self, x: Tensor, weights: list[Tensor], transpose: bool) -> Tensor:
        if self._in_kernels(x):
            weights = [weight.flatten(1, 2).contiguous() for weight in weights]
            return kernels.axial_spread(x, weights, transpose, self.graphs, self.sizes)
        wide = x.to(kernels.weight_dtype(x))
        out = torch.empty_like(wide)
        for n, (axis, weight) in enumerate(zip(self.axes, weights, strict=True)):
            axis.spread(wide, weight, transpose, out, add=n > 0)
        return out.to(x.dtype)

    def composed_pairs(self, a: Tensor, b: Tensor) -> list[Tensor]:
        return [
            matmul(axis.to_classes(a), axis.to_classes(b).transpose(-1, -2)) for axis in self.axes
        ]

    def composed_spread(self, x: Tensor, weights: list[Tensor], transpose: bool) -> Tensor:
        weights = [weight.to(x.dtype) for weight in weights]  # As matrix units take them.
        sums = [
            axis.to_nodes(matmul(w.transpose(-1, -2) if transpose else w, axis.to_classes(x)))
            for axis, w in zip(self.axes, weights, strict=True)
        ]
        return sum(sums[1:], start=sums[0])

    def ends(self, targets: Tensor, sources: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [axis.ends(targets, sources) for axis in self.axes]

    def sums(self, weights: list[Tensor], transpose: bool) -> Tensor:
        sums = [
            axis.to_nodes(weight.sum(-2 if transpose else -1).unsqueeze(-1)).squeeze(-1)
            for axis, weight in zip(self.axes, weights, strict=True)
        ]
        return sum(sums[1:], start=sums[0])

    def repeated(self, times: int) -> _AxialLayout:
        return _AxialLayout([axis.repeated(times) for axis in self.axes], self.graphs)

    def _unflatten(self, weights: list[Tensor]) -> list[Tensor]:
        """(before, rest * heads, M, M) as (before, rest, heads, M, M)."""
        return [
            weight.unflatten(1, (axis.rest, axis.heads))
            for axis, weight in zip(self.axes, weights, strict=True)
        ]


class _NodeNeighbors:
    """Reductions over the last axis, where all neighbours of a node lie."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def sum(self, value: Tensor) -> Tensor:
        return value.masked_fill(~self.mask, 0).sum(-1, keepdim=True)

    def count(self, value: Tensor) -> Tensor:
        return self.mask.sum(-1, keepdim=True).to(value.dtype)

    def max(self, value: Tensor) -> Tensor:
        return value.detach().masked_fill(~self.mask, -torch.inf).amax(-1, keepdim=True)


class _CountOnly:
    """For affinities that take one axis at a time, and so know nothing of the other axes."""

    def __init__(self, axis: _Axis, graph: AxialGraph) -> None:
        self.axis = axis
        self.graph = graph

    def sum(self, value: Tensor) -> Tensor:
        raise InputError(
            "an affinity that sums or maximises over neighbours is to be registered with "
            "competes=True"
        )

    def count(self, value: Tensor) -> Tensor:
        return self.axis.at_targets(self.graph.neighbor_counts(value))

    max = sum


def num_classes(graph: AxialGraph, axis: int) -> int:
    """The number of classes that the nodes along an axis fall into."""
    length, stride = graph.size[axis], graph.stride[axis]
    if length % stride == 0:
        return stride
    return 1 if is_recorded() else math.gcd(length, stride)  # Symbolic sizes have no gcd.


def is_complete(graph: AxialGraph) -> bool:
    """Whether all classes are complete graphs."""
    return all(
        length % stride == 0 for length, stride in zip(graph.size, graph.stride, strict=True)
    )


def num_members(graph: AxialGraph) -> int:
    """The members of its classes that a node looks at, neighbours or not."""
    members = [
        length // num_classes(graph, axis)
        for axis, length in enumerate(graph.size)
        if axis in _axes_with_edges(graph)
    ]
    return sum(members)


def _axes_with_edges(graph: AxialGraph) -> list[int]:
    """The axes along which there are edges; self-loops are with those of the first."""
    axes = [axis for axis, degree in enumerate(graph.degrees) if degree > 0]
    return axes if axes or not graph.self_loops else [0]


def _class_mask(members: int, stride: int, loops: bool, device: torch.device) -> Tensor:
    """Which members of a class a member receives from, (M, M)."""
    node = torch.arange(members, device=device)
    hop = node.view(-1, 1) - node
    # Without the remainder where each leads to each: ONNX has none by a size that is dynamic.
    every = torch.ones_like(hop, dtype=torch.bool)
    edges = every if stride == 1 else hop % members % stride == 0
    return edges if loops else edges & (hop != 0)
