"""Mixup and CutMix on batches of image graphs."""

from __future__ import annotations

from timm.data import Mixup
from torch_geometric.data import Batch

from pyg_avig.errors import InputError
from pyg_avig.graphs import graph_images, image_nodes


def mix(batch: Batch, mixup: Mixup) -> Batch:
    """Mix the images and classes of a batch of graphs, in place.

    Args:
        batch: Graphs of images of one size, an even number of them, with classes ``y``.
        mixup: timm's.

    Returns:
        The batch, with ``y`` a distribution over the classes, (B, number of classes).

    Raises:
        InputError: If the number of graphs is odd.
    """
    if batch.num_graphs % 2:
        raise InputError(f"mixing needs an even number of images (got {batch.num_graphs})")
    images, batch.y = mixup(graph_images(batch), batch.y)
    batch.x = image_nodes(images, batch.patch_size[0])
    return batch
