"""Semantic FPN on a backbone of timm."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from pyg_avig.errors import InputError, of_extra
from pyg_avig.models.dense_backbone import STRIDES, DenseBackbone

_GROUPS = 32  # Of the decoder's GroupNorm.


class SemanticFPN(nn.Module):
    r"""A class for each pixel, from a feature pyramid.

    `"Panoptic Feature Pyramid Networks" <https://arxiv.org/abs/1901.02446>`_, the semantic branch:
    the decoder and head of segmentation-models-pytorch. Images of any sizes are normalised and, at
    the right and the bottom, padded to multiples of the backbone's ``size_divisible``.

    Args:
        backbone: See :class:`DenseBackbone`.
        num_classes: Number of classes.
        pyramid_channels: Channels of each level of the pyramid.
        segmentation_channels: Channels of each level's branch, a multiple of 32.
        dropout: Share of the merged channels that training drops.
        min_size: Shorter side that evaluation resizes images to, in pixels; ``None`` leaves them.
        max_size: Bound on the longer side then.
        image_mean: What is subtracted from each channel of pixels in [0, 1].
        image_std: What that is divided by.

    Shapes:
        - **input:** a list of images :math:`(3, H_i, W_i)` in [0, 1]
        - **output:** in training, logits :math:`(B, \text{num\_classes}, H, W)` of the padded
          images; in evaluation a list of logits :math:`(\text{num\_classes}, H_i, W_i)`

    Raises:
        InputError: If segmentation-models-pytorch is not installed, or ``segmentation_channels`` is
            no multiple of 32.
    """

    def __init__(
        self,
        backbone: DenseBackbone,
        num_classes: int,
        pyramid_channels: int = 256,
        segmentation_channels: int = 128,
        dropout: float = 0.2,
        min_size: int | None = None,
        max_size: int = 2048,
        image_mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
        image_std: Sequence[float] = IMAGENET_DEFAULT_STD,
    ) -> None:
        super().__init__()
        if segmentation_channels % _GROUPS:
            raise InputError(
                f"segmentation_channels must be a multiple of {_GROUPS} "
                f"(got {segmentation_channels})"
            )
        self.min_size = min_size
        self.transform = GeneralizedRCNNTransform(
            min_size or 0, max_size, list(image_mean), list(image_std), backbone.size_divisible
        )
        self.backbone = backbone
        base = of_extra("segmentation_models_pytorch.base", "dense")
        fpn = of_extra("segmentation_models_pytorch.decoders.fpn.decoder", "dense")
        self.decoder = fpn.FPNDecoder(
            backbone.channels,
            encoder_depth=len(STRIDES),
            pyramid_channels=pyramid_channels,
            segmentation_channels=segmentation_channels,
            dropout=dropout,
        )
        self.head = base.SegmentationHead(
            self.decoder.out_channels, num_classes, kernel_size=1, upsampling=STRIDES[0]
        )
        base.initialization.initialize_decoder(self.decoder)
        base.initialization.initialize_head(self.head)

    def forward(self, images: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Logits of the padded batch in training, of each image in evaluation."""
        prepared = [self.transform.normalize(image) for image in images]
        if not self.training and self.min_size is not None:
            prepared = [self.transform.resize(image)[0] for image in prepared]
        batch = self.transform.batch_images(prepared, self.transform.size_divisible)
        logits = self.head(self.decoder(self.backbone(batch)))
        if self.training:
            return logits
        cropped = [
            one[:, : small.shape[1], : small.shape[2]]
            for one, small in zip(logits, prepared, strict=True)
        ]
        return [
            one
            if one.shape[1:] == image.shape[1:]
            else F.interpolate(one[None], image.shape[1:], mode="bilinear")[0]
            for one, image in zip(cropped, images, strict=True)
        ]
