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
from pyg_avig.graphs.lattice import graph_images, image_nodes
from pyg_avig.transforms.patches import PatchesToGraph, checked_pixels, sides


@functional_transform("image_to_graph")
class ImageToGraph(PatchesToGraph):
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

    Example:
        >>> import torch
        >>> from pyg_avig.transforms import ImageToGraph
        >>> graph = ImageToGraph(patch_size=16, stride=2)(torch.rand(3, 224, 224))
        >>> graph.x.shape, graph.lattice_size
        (torch.Size([196, 768]), (14, 14))
    """

    field, noun, patch_field = "image", "an image", "patch_size"
    patch_size: tuple[int, int]

    def __init__(
        self,
        patch_size: int | tuple[int, int] = 16,
        stride: int | tuple[int, int] = 2,
        edges: bool = True,
    ) -> None:
        super().__init__(sides("patch_size", patch_size, 2), sides("stride", stride, 2), edges)

    def _pixels(self, given: Any) -> Tensor:
        image = given if isinstance(given, Tensor) else _from_pil(given)
        return checked_pixels(image, self.noun, "(C, H, W)")

    def _nodes(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        _, height, width = pixels.shape
        p_h, p_w = self.patch_size
        if height % p_h or width % p_w or 0 in pixels.shape:
            raise InputError(
                f"expected an image of a whole number of {p_h} x {p_w} patches "
                f"(got {height} x {width} pixels); crop or resize it first"
            )
        return image_nodes(pixels.unsqueeze(0), self.patch_size), (height // p_h, width // p_w)


@functional_transform("graph_to_image")
class GraphToImage(BaseTransform):
    """The inverse of :class:`ImageToGraph`.

    Takes a graph, or a batch of graphs of one lattice, with the fields ``x``,
    ``lattice_size`` and ``patch_size``; gives the image (C, H, W), or the images
    (B, C, H, W).

    Raises:
        InputError: If a field is missing, or the graphs of a batch differ in size.

    Example:
        >>> import torch
        >>> from pyg_avig.transforms import GraphToImage, ImageToGraph
        >>> image = torch.rand(3, 32, 32)
        >>> torch.equal(GraphToImage()(ImageToGraph(patch_size=4)(image)), image)
        True
    """

    def forward(self, data: Data) -> Tensor:
        """Transform one graph or batch."""
        images = graph_images(data)
        return images if isinstance(data, Batch) else images[0]


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
