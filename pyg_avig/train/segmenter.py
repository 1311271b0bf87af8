"""The Lightning module that trains a semantic segmenter."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from pyg_avig.data.loading.scenes import IGNORE
from pyg_avig.errors import InputError
from pyg_avig.models.segmentation import SemanticFPN
from pyg_avig.train.backbone import initial_backbone
from pyg_avig.train.recipe import Recipe

Batch = tuple[list[Tensor], list[Tensor]]


class Segmenter(Recipe):
    """Semantic FPN on a backbone of timm.

    Logged for each split are the mean over the classes of intersection over union (``miou``), and
    the share of pixels that are right (``acc``), both in the images' own pixels. Its checkpoints
    carry the classes, so that a prediction needs nothing else.

    Args:
        annotation: What the data say of themselves, such as
            :attr:`pyg_avig.data.datasets.segmentation_folder.SegmentationFolder.annotation`.
        name: Name of the backbone in timm's registry; it needs features at strides 4 to 32.
        model_args: Further arguments of ``timm.create_model``.
        segmenter_args: Further arguments of :class:`~pyg_avig.models.segmentation.SemanticFPN`,
            such as ``min_size`` or ``image_mean``.
        initial_weights: See :class:`~pyg_avig.train.detector.Detector`.
        freeze_beta: See :class:`~pyg_avig.train.detector.Detector`.
        freeze_norm: See :class:`~pyg_avig.train.detector.Detector`.
        grad_checkpointing: See :class:`~pyg_avig.train.detector.Detector`.
        **recipe: Arguments of :class:`Recipe`.
    """

    same_in_checkpoints = ("annotation", "name", "model_args", "segmenter_args")
    same_to_resume = (*Recipe.same_to_resume, "freeze_beta", "freeze_norm")

    def __init__(
        self,
        annotation: dict[str, Any],
        name: str = "attentionvig_s",
        model_args: dict[str, Any] | None = None,
        segmenter_args: dict[str, Any] | None = None,
        initial_weights: str | None = None,
        freeze_beta: bool | None = None,
        freeze_norm: bool | None = None,
        grad_checkpointing: bool = False,
        **recipe: Any,
    ) -> None:
        super().__init__(**recipe)
        if annotation is None or annotation["of"] != "pixels":
            raise InputError(
                "expected images with a class for each pixel for a Segmenter, such as "
                "SegmentationFolder (got others)"
            )
        args = {
            "image_mean": IMAGENET_DEFAULT_MEAN,
            "image_std": IMAGENET_DEFAULT_STD,
            **(segmenter_args or {}),
        }
        backbone = initial_backbone(
            name,
            model_args,
            initial_weights,
            freeze_beta,
            freeze_norm,
            args["image_mean"],
            args["image_std"],
            grad_checkpointing,
        )
        classes = len(annotation["classes"])
        try:
            self.model = SemanticFPN(backbone, classes, **args)
        except TypeError as error:
            raise InputError(f"expected segmenter_args of SemanticFPN ({error})") from None
        metrics = MetricCollection(
            {
                "miou": MulticlassJaccardIndex(classes, ignore_index=IGNORE),
                "acc": MulticlassAccuracy(classes, average="micro", ignore_index=IGNORE),
            }
        )
        self.val_metrics = metrics.clone(prefix="val_")
        self.test_metrics = metrics.clone(prefix="test_")

    def forward(self, images: list[Tensor]) -> list[Tensor]:
        """Logits (number of classes, H, W) of each image (3, H, W) in [0, 1]."""
        return self.model(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch: the mean over its pixels that have a class."""
        images, labels = batch
        logits = self.model(images)
        loss = pixel_loss(logits, _padded(labels, logits.shape[2:]))
        self.log("train_loss", loss, batch_size=len(images), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss, mean IoU and pixel accuracy on the validation split."""
        self._evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on the test split."""
        self._evaluate(batch, "test", self.test_metrics)

    def _evaluate(self, batch: Batch, split: str, metrics: MetricCollection) -> None:
        for logits, labels in zip(self(batch[0]), batch[1], strict=True):
            metrics.update(logits[None], labels[None].long())
            self.log_loss(split, pixel_loss(logits[None], labels[None]), 1)
        self.log_dict(cast(Any, metrics), batch_size=len(batch[0]), prog_bar=True)


def pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, the mean over the pixels that have a class; 0 if none has.

    Args:
        logits: (B, number of classes, H, W).
        labels: (B, H, W), of bytes.
    """
    loss = F.cross_entropy(logits, labels.long(), ignore_index=IGNORE, reduction="sum")
    return loss / (labels != IGNORE).sum().clamp(min=1)


def _padded(labels: list[Tensor], size: torch.Size) -> Tensor:
    """The labels of a padded batch, (B, H, W)."""
    return torch.stack(
        [
            F.pad(one, (0, size[1] - one.shape[1], 0, size[0] - one.shape[0]), value=IGNORE)
            for one in labels
        ]
    )
