"""From a clip of video to a graph on an SVGA lattice of three axes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from pyg_avig.errors import InputError
from pyg_avig.graphs.constructors import positive
from pyg_avig.transforms.patches import PatchesToGraph, checked_pixels, sides


@functional_transform("video_to_graph")
class VideoToGraph(PatchesToGraph):
    r"""Cut a clip into tubelets, one node each, joined as SVGA joins them, in time too.

    A tubelet is a box of a few frames by a patch of pixels, as in `"ViViT: A Video Vision
    Transformer" <https://arxiv.org/abs/2103.15691>`_. The graph is that of
    :class:`~pyg_avig.graphs.AxialGraph` with the axes (time, row, column); see there for its
    source. SVGA on three axes is ours.

    Takes a clip, a pair (clip, y), or a ``Data`` with the clip in ``data.clip`` (all its other
    fields are kept). A clip is a tensor (T, C, H, W), or (1, T, C, H, W) as a data set keeps
    it, of dtype uint8 (scaled to [0, 1]) or float (kept as it is).

    Gives a ``Data`` with

    - ``x``: the tubelets, (N, C * P_t * P_h * P_w), each flattened channel by channel, and
      each channel frame by frame;
    - ``pos``: their centres (time, row, column), (N, 3), in frames and pixels, and
      ``edge_index``, (2, E), unless ``edges=False``; shared by all clips of a size, so do not
      write into them;
    - ``lattice_size`` and ``tubelet_size``: tuples (times, rows, columns); a ``Batch`` holds a
      list of them, one a graph;
    - ``y``, if it was given.

    Nodes are numbered row-major: by time, then row, then column.

    Args:
        tubelet_size: Side of a tubelet in frames and pixels alike, or (frames, height, width).
        stride: The K of SVGA on the lattice of tubelets, or one per axis.
        edges: ``False`` leaves edges and positions implicit, for models that read the lattice;
            batches are then smaller and collated faster.
        difference: Take from each frame the one before it, and make the first one zeros, so
            that ``x`` shows what moves.

    Raises:
        InputError: If the clip has another shape or dtype, holds NaN or infinity, or is
            not a whole number of tubelets.
    """

    field, noun, patch_field = "clip", "a clip", "tubelet_size"
    tubelet_size: tuple[int, int, int]

    def __init__(
        self,
        tubelet_size: int | tuple[int, int, int] = (2, 8, 8),
        stride: int | tuple[int, int, int] = 2,
        edges: bool = True,
        difference: bool = False,
    ) -> None:
        super().__init__(sides("tubelet_size", tubelet_size, 3), sides("stride", stride, 3), edges)
        self.difference = difference

    def _pixels(self, given: Any) -> Tensor:
        if not isinstance(given, Tensor):
            raise InputError(
                f"expected a clip as a tensor (T, C, H, W) (got {type(given).__name__})"
            )
        clip = given[0] if given.dim() == 5 and len(given) == 1 else given
        clip = checked_pixels(clip, self.noun, "(T, C, H, W)")
        if self.difference:
            clip = torch.cat([torch.zeros_like(clip[:1]), clip.diff(dim=0)])
        return clip

    def _nodes(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        frames, channels, height, width = pixels.shape
        p_t, p_h, p_w = self.tubelet_size
        if frames % p_t or height % p_h or width % p_w or 0 in pixels.shape:
            raise InputError(
                f"expected a clip of a whole number of {p_t} x {p_h} x {p_w} tubelets (got "
                f"{frames} frames of {height} x {width} pixels); crop or resize it first"
            )
        size = times, rows, columns = frames // p_t, height // p_h, width // p_w
        boxes = pixels.reshape(times, p_t, channels, rows, p_h, columns, p_w)
        boxes = boxes.permute(0, 3, 5, 2, 1, 4, 6)
        # A clone, as a reshape may be a view, and the nodes are not the clip's.
        nodes = boxes.clone(memory_format=torch.contiguous_format)
        return nodes.view(times * rows * columns, -1), size


@functional_transform("random_clip_flip")
class RandomClipFlip(BaseTransform):
    """Mirror a clip from left to right, and play it backwards, each in half of the cases.

    Takes a ``Data`` with the clip in ``data.clip``, (..., T, C, H, W).

    Args:
        mirror: Probability of mirroring, from torch's global generator.
        reverse: Probability of playing backwards.
    """

    def __init__(self, mirror: float = 0.5, reverse: float = 0.5) -> None:
        for name, p in (("mirror", mirror), ("reverse", reverse)):
            if not 0 <= p <= 1:
                raise InputError(f"{name} must lie in [0, 1] (got {p})")
        self.mirror = mirror
        self.reverse = reverse

    def forward(self, data: Data) -> Data:
        """Transform one clip."""
        drawn = torch.rand(2).tolist()
        dims = [
            d for d, n, p in zip((-1, -4), drawn, (self.mirror, self.reverse), strict=True) if n < p
        ]
        data.clip = data.clip.flip(dims)
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(mirror={self.mirror}, reverse={self.reverse})"


@functional_transform("random_clip_crop")
class RandomClipCrop(BaseTransform):
    """Cut a square out of a clip, at the same random place in all of its frames.

    A model of graphs can train on crops and be tested on whole frames.

    Takes a ``Data`` with the clip in ``data.clip``, (..., T, C, H, W).

    Args:
        size: Side of the square in pixels.

    Raises:
        InputError: If a frame is smaller.
    """

    def __init__(self, size: int) -> None:
        self.size = positive("size", size)

    def forward(self, data: Data) -> Data:
        """Transform one clip."""
        if data.get("clip") is None or data.clip.dim() < 4:
            raise InputError(f"expected a clip (..., T, C, H, W) in the field `clip` (got {data})")
        height, width = data.clip.shape[-2:]
        if min(height, width) < self.size:
            raise InputError(
                f"expected frames of at least {self.size} x {self.size} pixels (got {height} x "
                f"{width})"
            )
        top = int(torch.randint(height - self.size + 1, ()))
        left = int(torch.randint(width - self.size + 1, ()))
        data.clip = data.clip[..., top : top + self.size, left : left + self.size]
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(size={self.size})"
