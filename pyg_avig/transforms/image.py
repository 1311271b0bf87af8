"""From an image to a graph on an SVGA lattice, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from pyg_avig.errors import InputError
from pyg_avig.graphs.axial_graph import AxialGraph
from pyg_avig.graphs.lattice import graph_images, image_nodes, patch_centres


@functional_transform("image_to_graph")
class ImageToGraph(BaseTransform):
    r"""Cut an image into patches, one node each, joined as SVGA joins them.

    The graph is that of :class:`~pyg_avig.graphs.AxialGraph`; see there for its source.

    Takes an image, a pair (image, y), or a ``Data`` with the image in ``data.image`` (all
    its other fields are kept). An image is a tensor (C, H, W), of dtype uint8 (scaled to
    [0, 1]) or float (kept as it is), or a PIL image of 8 or 16 bits (scaled likewise; palettes
    and other colour spaces become RGB).

    Gives a ``Data`` with

    - ``x``: the patches, (N, C * P_h * P_w), each flattened channel by channel;
    - ``pos``: their centres (row, column), (N, 2), in pixels, and ``edge_index``, (2, E),
      unless ``edges=False``; shared by all images of a size, so do not write into them;
    - ``lattice_size`` and ``patch_size``: tuples (rows, columns); a ``Batch`` holds a
      list of them, one a graph;
    - ``y``, if it was given.

    Args:
        patch_size: Side of a patch in pixels, or (height, width).
        stride: The K of SVGA on the patch lattice, or one per axis.
        edges: ``False`` leaves edges and positions implicit, for models that read the lattice;
            batches are then smaller and collated faster.

    Raises:
        InputError: If the image has another shape or dtype, holds NaN or infinity, or is
            not a whole number of patches.
    """

    def __init__(
        self,
        patch_size: int | tuple[int, int] = 16,
        stride: int | tuple[int, int] = 2,
        edges: bool = True,
    ) -> None:
        self.patch_size = _pair("patch_size", patch_size)
        self.stride = _pair("stride", stride)
        self.edges = edges
        self._lattices: dict[tuple[int, int], tuple[AxialGraph, Tensor]] = {}

    def forward(self, data: Any) -> Data:
        """Transform one image."""
        if isinstance(data, Data):
            if data.get("image") is None:
                raise InputError(f"expected a Data with the field `image` (got {data})")
            out, image = data, data.image
            del out.image
        elif isinstance(data, (tuple, list)):
            if len(data) != 2:
                raise InputError(f"expected an image or a pair (image, y) (got {len(data)} items)")
            image, y = data
            out = Data() if y is None else Data(y=label_tensor(y))
        else:
            out, image = Data(), data

        image = _to_tensor(image)
        x, size = self._patches(image)
        out.x = x
        if self.edges:
            graph, out.pos = self._lattice(size)
            out.edge_index = graph.edge_index
        out.lattice_size, out.patch_size = size, self.patch_size
        return out

    def _patches(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        _, height, width = image.shape
        p_h, p_w = self.patch_size
        if height % p_h or width % p_w or 0 in image.shape:
            raise InputError(
                f"expected an image of a whole number of {p_h} x {p_w} patches "
                f"(got {height} x {width} pixels); crop or resize it first"
            )
        rows, columns = height // p_h, width // p_w
        return image_nodes(image.unsqueeze(0), self.patch_size), (rows, columns)

    def _lattice(self, size: tuple[int, int]) -> tuple[AxialGraph, Tensor]:
        if size not in self._lattices:
            with torch.inference_mode(False):  # It outlives this call.
                pos = patch_centres(size, self.patch_size)
            self._lattices[size] = AxialGraph(size, self.stride), pos
        return self._lattices[size]

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(patch_size={self.patch_size}, "
            f"stride={self.stride}, edges={self.edges})"
        )


@functional_transform("graph_to_image")
class GraphToImage(BaseTransform):
    """The inverse of :class:`ImageToGraph`.

    Takes a graph, or a batch of graphs of one lattice, with the fields ``x``,
    ``lattice_size`` and ``patch_size``; gives the image (C, H, W), or the images
    (B, C, H, W).

    Raises:
        InputError: If a field is missing, or the graphs of a batch differ in size.
    """

    def forward(self, data: Data) -> Tensor:
        """Transform one graph or batch."""
        images = graph_images(data)
        return images if isinstance(data, Batch) else images[0]


def _to_tensor(image: Any) -> Tensor:
    """A float tensor (C, H, W), finite."""
    if not isinstance(image, Tensor):
        image = _from_pil(image)
    if image.dim() != 3:
        raise InputError(f"expected an image of shape (C, H, W) (got {tuple(image.shape)})")
    if image.dtype == torch.uint8:
        return image.float() / 255
    if not image.is_floating_point():
        raise InputError(f"expected an image of dtype uint8 or float (got {image.dtype})")
    # NaN and infinity show in the sum too, and are found there much faster.
    if not image.sum().isfinite() and (bad := int((~image.isfinite()).sum())):
        raise InputError(f"expected finite pixels (got NaN or infinity in {bad} of them)")
    return image


def _from_pil(image: Any) -> Tensor:
    if not hasattr(image, "getbands"):
        raise InputError(
            f"expected an image as a tensor (C, H, W) or a PIL image (got {type(image).__name__})"
        )
    if image.mode.startswith("I;16"):
        array = np.asarray(image).astype(np.float32) / 65535
    elif image.mode in ("L", "LA", "RGB", "RGBA"):
        array = np.array(image)
    elif image.mode in ("1", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        array = np.array(image.convert("L" if image.mode == "1" else "RGB"))
    else:
        raise InputError(f"expected a PIL image of 8 or 16 bits (got mode {image.mode!r})")
    return torch.from_numpy(array if array.ndim == 3 else array[..., None]).permute(2, 0, 1)


def label_tensor(y: Any) -> Tensor:
    """A label as a field of a graph: tensors as they are, a number as (1,)."""
    try:
        return y if isinstance(y, Tensor) else torch.tensor([y])
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"expected y as a number or a tensor (got {y!r})") from None


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else value
    if (
        not isinstance(pair, (tuple, list))
        or len(pair) != 2
        or not all(isinstance(v, int) and v > 0 for v in pair)
    ):
        raise InputError(f"{name} must be a positive int or two of them (got {value!r})")
    return pair[0], pair[1]
