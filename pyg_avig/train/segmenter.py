"""The Lightning module that trains a semantic segmenter."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from pyg_avig.data.loading.scenes import IGNORE
from pyg_avig.models.segmentation import SemanticFPN
from pyg_avig.train.dense_task import DenseTask

Batch = tuple[list[Tensor], list[Tensor]]


class Segmenter(DenseTask):
    """Semantic FPN on a backbone of timm.

    Logged for each split are the mean over the classes of intersection over union (``miou``), and
    the share of pixels that are right (``acc``), both in the images' own pixels.

    Args:
        annotation: What the data say of themselves, such as
            :attr:`pyg_avig.data.datasets.segmentation_folder.SegmentationFolder.annotation`.
        name: See :class:`DenseTask`.
        model_args: See :class:`DenseTask`.
        segmenter_args: Further arguments of :class:`~pyg_avig.models.segmentation.SemanticFPN`,
            such as ``min_size`` or ``image_mean``.
        **dense: Further arguments of :class:`DenseTask`.
    """

    annotated = "pixels"
    example = "SegmentationFolder"
    same_in_checkpoints = ("annotation", "name", "model_args", "segmenter_args")

    def __init__(
        self,
        annotation: dict[str, Any],
        name: str = "attentionvig_s",
        model_args: dict[str, Any] | None = None,
        segmenter_args: dict[str, Any] | None = None,
        **dense: Any,
    ) -> None:
        super().__init__(annotation, name, model_args, **dense)
        self.model = self.on_backbone(SemanticFPN, segmenter_args)
        classes = len(annotation["classes"])
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
