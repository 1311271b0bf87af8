"""From a point cloud to a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from pyg_avig.errors import InputError
from pyg_avig.graphs.constructors import positive
from pyg_avig.graphs.distances import distances, use_tree


@functional_transform("points_to_graph")
class PointsToGraph(BaseTransform):
    r"""Make a graph of a point cloud, one node a point.

    Takes a ``Data`` with ``pos`` (N, 3) and, if there are any, ``normal`` (N, 3) and ``color``
    (N, 3), or a tensor of positions (N, 3). All are floats, kept as they are; ``color`` may
    also be uint8, scaled to [0, 1].

    Gives a ``Data`` with

    - ``pos``, ``normal`` and ``color`` of the points that were drawn, (M, 3);
    - ``x``: those of the three that there are, side by side in this order, (M, 3 to 9);
    - ``edge_index``, (2, E), if ``graph`` is given;
    - all other fields: tensors whose first dimension is N belong to the points and are drawn
      with them, the rest is kept. (One lone point shares its fields with the cloud: they are
      kept.)

    Args:
        num_points: Draw this many points at random, from torch's global generator; without
            replacement, unless the cloud has fewer. ``None`` keeps all, in their order.
        normalize: Centre the drawn points at their mean, and scale them such that the farthest
            has distance 1. Points that coincide are only centred.
        graph: Sets ``edge_index``, as :class:`~pyg_avig.graphs.KNNEdges` does; called last.

    Raises:
        InputError: If a field is missing, has another shape or dtype, or holds NaN or infinity;
            if points with edges are to be drawn; if ``graph`` sets no edges.
    """

    def __init__(
        self,
        num_points: int | None = None,
        normalize: bool = True,
        graph: BaseTransform | None = None,
    ) -> None:
        if num_points is not None:
            num_points = positive("num_points", num_points)
        if graph is not None and not callable(graph):
            raise InputError(f"graph must be a transform or None (got {graph!r})")
        self.num_points = num_points
        self.normalize = normalize
        self.graph = graph

    def forward(self, data: Any) -> Data:
        """Transform one cloud."""
        data = Data(pos=data) if isinstance(data, Tensor) else data
        if not isinstance(data, Data) or isinstance(data, Batch):
            raise InputError(
                f"expected one cloud, a Data or a tensor (N, 3) (got {type(data).__name__})"
            )
        if data.get("pos") is None:
            raise InputError(f"expected a Data with the field `pos` (got {data})")
        data.pos = _checked("pos", data.pos)
        fields = ["pos"]
        for name in ("normal", "color"):
            if data.get(name) is not None:
                data[name] = _checked(name, data[name], like=data.pos)
                fields.append(name)

        if self.num_points is not None:
            _draw(data, fields, self.num_points)
        if self.normalize:
            data.pos = _unit_ball(data.pos)
        data.x = torch.cat([data[name] for name in fields], dim=1)
        if self.graph is not None:
            data = self.graph(data)
            if not isinstance(data, Data) or data.get("edge_index") is None:
                raise InputError(f"expected graph to set `edge_index` (got {data} from it)")
        return data

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(num_points={self.num_points}, "
            f"normalize={self.normalize}, graph={self.graph})"
        )


@functional_transform("point_patches")
class PointPatches(BaseTransform):
    """Gather the points of a cloud into patches, one node each, as images are cut into patches.

    The patches of `"Point-BERT" <https://arxiv.org/abs/2111.14819>`_ (section 3.1): the nearest
    points around centres that lie as far from one another as can be. Patches overlap.

    Takes a ``Data`` with ``pos`` (N, 3) and optional ``normal`` and ``color``, as
    :class:`PointsToGraph` gives it. Gives one with

    - ``pos``: the centres, (M, 3);
    - ``x``: for each patch its centre, then its points, nearest first: their positions against the
      centre, then their normals and colours, (M, 3 + S * (3 to 9));
    - all other fields as they were, but those of single points, which are dropped.

    Args:
        num_patches: M, fewer for a cloud of fewer points.
        size: Points S of a patch.

    Raises:
        InputError: If the cloud has fewer than S points, or edges.
    """

    def __init__(self, num_patches: int = 128, size: int = 16) -> None:
        self.num_patches = positive("num_patches", num_patches)
        self.size = positive("size", size)

    def forward(self, data: Data) -> Data:
        """Transform one cloud."""
        if data.get("edge_index") is not None:
            raise InputError("expected a cloud without edges, to gather its points (got some)")
        if data.pos is None or len(data.pos) < self.size:
            number = 0 if data.pos is None else len(data.pos)
            raise InputError(f"expected a cloud of at least {self.size} points (got {number})")
        given = _checked("pos", data.pos)
        # Half precision has too few digits for differences and moments, and NumPy no bfloat16.
        pos = given.to(torch.promote_types(given.dtype, torch.float32))
        centres = _far_apart(pos, min(self.num_patches, len(pos)))
        members = _nearest(pos, centres, self.size)
        offsets = pos[members] - pos[centres].unsqueeze(1)
        fields = [
            _checked(name, data[name], like=pos)[members]
            for name in ("normal", "color")
            if data.get(name) is not None
        ]
        x = torch.cat([pos[centres], self.describe(offsets, fields)], 1).to(given.dtype)
        rest = {
            name: value
            for name, value in data.to_dict().items()
            if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != len(pos)
        }
        return Data.from_dict({**rest, "pos": given[centres], "x": x})

    def describe(self, offsets: Tensor, fields: list[Tensor]) -> Tensor:
        """What ``x`` holds behind the centres, (M, D).

        Args:
            offsets: Positions against the centre, nearest first, (M, S, 3).
            fields: Normals and colours, if there are any, (M, S, 3) each.
        """
        return torch.cat([offsets, *fields], -1).flatten(1)

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(num_patches={self.num_patches}, size={self.size})"


def _nearest(pos: Tensor, centres: Tensor, number: int) -> Tensor:
    """The points that are nearest to each centre, (M, number), nearest first."""
    if not use_tree(pos):
        return distances(pos[centres], pos).topk(number, largest=False).indices
    from scipy.spatial import KDTree

    points = pos.detach().numpy()
    _, members = KDTree(points).query(points[centres], range(1, number + 1))
    return torch.from_numpy(members)


@functional_transform("patch_moments")
class PatchMoments(PointPatches):
    """Patches as :class:`PointPatches` gathers them, described by the moments of their points.

    Moments do not depend on the order of the points, and are of one size whatever their number, so
    they are learned from with few clouds. Ours.

    Gives for each patch, as ``x``, its centre, the logarithm of its radius R (the largest distance
    from the centre), and over its points, whose positions are taken against the centre and divided
    by R and followed by their normals and colours: the mean of each value, of its magnitude, and of
    the product of every two, (M, 4 + 2 D + D (D + 1) / 2) with D of 3 to 9.

    Args:
        num_patches: M, fewer for a cloud of fewer points.
        size: Points S of a patch.

    Raises:
        InputError: If the cloud has fewer than S points, or edges.
    """

    def describe(self, offsets: Tensor, fields: list[Tensor]) -> Tensor:
        """What ``x`` holds behind the centres, (M, 1 + 2 D + D (D + 1) / 2)."""
        radius = offsets[:, -1:].norm(dim=-1, keepdim=True)  # The farthest comes last.
        # Points that coincide are as small as rounding, not infinitely small.
        radius = radius.clamp(min=torch.finfo(offsets.dtype).eps * max(1, float(radius.max())))
        values = torch.cat([offsets / radius, *fields], -1)
        products = values.mT @ values / values.size(1)
        first, second = torch.triu_indices(*products.shape[1:], device=values.device)
        moments = [values.mean(1), values.abs().mean(1), products[:, first, second]]
        return torch.cat([radius.view(-1, 1).log(), *moments], 1)


def _far_apart(pos: Tensor, number: int) -> Tensor:
    """Points as far from one another as can be, greedily, from the outermost on."""
    # Many small steps, which cost less in NumPy, and on rows of coordinates.
    points = np.ascontiguousarray(pos.detach().cpu().numpy().T)
    offset = points - points.mean(1, keepdims=True)
    chosen = [int(np.square(offset).sum(0).argmax())]
    distance = np.full(len(pos), np.inf, points.dtype)
    while len(chosen) < number:
        np.subtract(points, points[:, chosen[-1], None], out=offset)
        np.square(offset, out=offset)
        np.minimum(distance, offset.sum(0), out=distance)
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen, device=pos.device)


@functional_transform("random_mirror")
class RandomMirror(BaseTransform):
    """Mirror a point cloud and its normals along an axis, in half of the cases.

    (PyG's ``RandomFlip`` leaves normals as they are.)

    Args:
        axis: The coordinate that changes its sign.
        p: Probability of mirroring, from torch's global generator.
    """

    def __init__(self, axis: int = 0, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise InputError(f"p must lie in [0, 1] (got {p})")
        self.axis = axis
        self.p = p

    def forward(self, data: Data) -> Data:
        """Transform one point cloud."""
        if torch.rand(()) < self.p:
            for name in ("pos", "normal"):
                if data.get(name) is not None:
                    sign = torch.ones_like(data[name][0])
                    sign[self.axis] = -1
                    data[name] = data[name] * sign
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(axis={self.axis}, p={self.p})"


@functional_transform("random_stretch")
class RandomStretch(BaseTransform):
    """Scale each axis of a point cloud by a random factor of its own, and turn normals accordingly.

    (PyG's ``RandomScale`` scales all axes alike.) Takes a ``Data`` with ``pos`` (N, 3) and optional
    ``normal``, before :class:`PointsToGraph` makes ``x`` of them.

    Args:
        low: The least factor.
        high: The largest; drawn uniformly between, from torch's global generator.
    """

    def __init__(self, low: float = 0.8, high: float = 1.25) -> None:
        if not 0 < low <= high < float("inf"):
            raise InputError(f"expected finite factors 0 < low <= high (got {low} and {high})")
        self.low = low
        self.high = high

    def forward(self, data: Data) -> Data:
        """Transform one point cloud."""
        pos = _checked("pos", data.pos)
        factors = torch.empty(3).uniform_(self.low, self.high).to(pos)
        data.pos = pos * factors
        if data.get("normal") is not None:
            # A normal stays upright on its surface if it is scaled by the inverse.
            data.normal = F.normalize(data.normal / factors, dim=1)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(low={self.low}, high={self.high})"


def _checked(name: str, value: Any, like: Tensor | None = None) -> Tensor:
    """A finite float tensor (N, 3), of the size and dtype of ``like``."""
    shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    size = "N" if like is None else like.size(0)
    if not isinstance(value, Tensor) or value.dim() != 2 or value.size(1) != 3 or not len(value):
        raise InputError(f"expected {name} of shape ({size}, 3), one point or more (got {shape})")
    if like is not None and len(value) != len(like):
        raise InputError(f"expected {name} of shape ({size}, 3), as pos has (got {shape})")
    if name == "color" and value.dtype == torch.uint8:
        value = value / 255
    if not value.is_floating_point():
        raise InputError(f"expected {name} of a float dtype (got {value.dtype})")
    if bad := int((~value.isfinite()).any(dim=1).sum()):
        raise InputError(f"expected finite {name} (got NaN or infinity in {bad} of the points)")
    return value if like is None else value.to(like.dtype)


def _draw(data: Data, fields: list[str], num_points: int) -> None:
    """Keep ``num_points`` random points and what belongs to them."""
    if data.get("edge_index") is not None:
        raise InputError(
            "expected points without edges, if some are to be drawn (got edge_index of shape "
            f"{tuple(data.edge_index.shape)}); let `graph` set the edges"
        )
    size, device = data.pos.size(0), data.pos.device
    if num_points <= size:
        index = torch.randperm(size, device=device)[:num_points]
    else:
        index = torch.randint(size, (num_points,), device=device)
    for name, value in list(data):
        own = isinstance(value, Tensor) and value.dim() > 0 and len(value) == size > 1
        if own or name in fields:
            data[name] = value[index]


def _unit_ball(pos: Tensor) -> Tensor:
    centred = pos - pos.mean(dim=0)
    radius = centred.norm(dim=1).max()
    # What the mean leaves of points that coincide is rounding, and not to be blown up.
    rounding = 8 * torch.finfo(pos.dtype).eps * pos.abs().max()
    return centred / radius if radius > rounding else torch.zeros_like(pos)
