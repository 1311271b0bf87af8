"""torchvision's Faster R-CNN and Mask R-CNN on a backbone of timm."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from pyg_avig.errors import InputError
from pyg_avig.models.dense_backbone import DenseBackbone

LEVELS = 5  # Those of the backbone, and one that halves the last.
_POOLED = 7  # Side of a region's features in torchvision's box head.


class PyramidBackbone(nn.Module):
    """A backbone and torchvision's feature pyramid, as its detectors take them.

    Args:
        backbone: The features.
        out_channels: Channels of each level.
    """

    def __init__(self, backbone: DenseBackbone, out_channels: int) -> None:
        super().__init__()
        self.body = backbone
        self.fpn = FeaturePyramidNetwork(backbone.channels, out_channels, LastLevelMaxPool())
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Images (B, 3, H, W) to the levels '0' to '3' and 'pool'."""
        return self.fpn(OrderedDict((str(i), x) for i, x in enumerate(self.body(images))))


def faster_rcnn(
    backbone: DenseBackbone,
    num_classes: int,
    pyramid_channels: int = 256,
    anchor_sizes: Sequence[int] = (32, 64, 128, 256, 512),
    box_features: int = 1024,
    **kwargs: Any,
) -> FasterRCNN:
    """`Faster R-CNN <https://arxiv.org/abs/1506.01497>`_ with a feature pyramid.

    Images are lists of tensors (3, H, W) in [0, 1], of any sizes: the model normalises, resizes and
    pads them, to multiples of the backbone's ``size_divisible``.

    Args:
        backbone: See :class:`DenseBackbone`.
        num_classes: Number of classes, the background not among them.
        pyramid_channels: Channels of each level of the pyramid.
        anchor_sizes: Side of the anchors on each of the five levels, in pixels of the resized
            image.
        box_features: Width of the two hidden layers behind a region.
        **kwargs: Further arguments of torchvision's ``FasterRCNN``, such as ``min_size``,
            ``max_size`` and ``box_detections_per_img``.
    """
    return FasterRCNN(
        PyramidBackbone(backbone, pyramid_channels),
        **_boxes(backbone, num_classes, pyramid_channels, anchor_sizes, box_features, kwargs),
    )


def mask_rcnn(
    backbone: DenseBackbone,
    num_classes: int,
    pyramid_channels: int = 256,
    anchor_sizes: Sequence[int] = (32, 64, 128, 256, 512),
    box_features: int = 1024,
    mask_channels: Sequence[int] = (256, 256, 256, 256),
    **kwargs: Any,
) -> MaskRCNN:
    """`Mask R-CNN <https://arxiv.org/abs/1703.06870>`_ with a feature pyramid.

    Args:
        backbone: See :func:`faster_rcnn`.
        num_classes: See :func:`faster_rcnn`.
        pyramid_channels: See :func:`faster_rcnn`.
        anchor_sizes: See :func:`faster_rcnn`.
        box_features: See :func:`faster_rcnn`.
        mask_channels: Channels of each convolution of the mask head.
        **kwargs: Further arguments of torchvision's ``FasterRCNN``.
    """
    last = mask_channels[-1]
    return MaskRCNN(
        PyramidBackbone(backbone, pyramid_channels),
        mask_head=MaskRCNNHeads(pyramid_channels, tuple(mask_channels), dilation=1),
        mask_predictor=MaskRCNNPredictor(last, last, num_classes + 1),
        **_boxes(backbone, num_classes, pyramid_channels, anchor_sizes, box_features, kwargs),
    )


def _boxes(
    backbone: DenseBackbone,
    num_classes: int,
    pyramid_channels: int,
    anchor_sizes: Sequence[int],
    box_features: int,
    kwargs: dict[str, Any],
) -> dict[str, Any]:
    """The arguments of torchvision's detectors that concern boxes."""
    known = {*inspect.signature(FasterRCNN).parameters, "fixed_size"} - {"kwargs", "backbone"}
    unknown = sorted(kwargs.keys() - known)  # torchvision drops them without a word.
    if unknown:
        raise InputError(f"expected arguments of torchvision's FasterRCNN (got {unknown[0]!r})")
    if len(anchor_sizes) != LEVELS:
        raise InputError(f"anchor_sizes must have {LEVELS} values (got {list(anchor_sizes)})")
    return {
        "rpn_anchor_generator": AnchorGenerator(
            tuple((size,) for size in anchor_sizes), ((0.5, 1.0, 2.0),) * LEVELS
        ),
        "box_head": TwoMLPHead(pyramid_channels * _POOLED**2, box_features),
        "box_predictor": FastRCNNPredictor(box_features, num_classes + 1),
        "size_divisible": backbone.size_divisible,
        **kwargs,
    }
