"""The Lightning module that trains a detector."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision

from pyg_avig.errors import InputError, of_extra
from pyg_avig.models.detection import faster_rcnn, mask_rcnn
from pyg_avig.train.dense_task import DenseTask

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]

_THRESHOLD = 0.5  # From which probability on a pixel belongs to a mask.


class Detector(DenseTask):
    """torchvision's Mask R-CNN or Faster R-CNN on a backbone of timm.

    Logged for each split are COCO's metrics: average precision over IoUs from 0.50 to 0.95
    (``box_ap``, ``mask_ap``) and at 0.50 and 0.75 (``box_ap50``, ``box_ap75`` and so on).

    Args:
        annotation: What the data say of themselves, such as
            :attr:`pyg_avig.data.datasets.coco.CocoInstances.annotation`.
        name: See :class:`DenseTask`.
        model_args: See :class:`DenseTask`.
        masks: Mask R-CNN rather than Faster R-CNN.
        detector_args: Further arguments of :func:`~pyg_avig.models.detection.mask_rcnn`, such as
            ``min_size``, ``anchor_sizes`` or ``image_mean``.
        **dense: Further arguments of :class:`DenseTask`.

    Raises:
        InputError: If the data are of another task or without the masks that are asked for, or
            faster-coco-eval is not installed.
    """

    annotated = "instances"
    example = "CocoInstances"
    same_in_checkpoints = ("annotation", "name", "model_args", "masks", "detector_args")

    def __init__(
        self,
        annotation: dict[str, Any],
        name: str = "attentionvig_s",
        model_args: dict[str, Any] | None = None,
        masks: bool = True,
        detector_args: dict[str, Any] | None = None,
        **dense: Any,
    ) -> None:
        super().__init__(annotation, name, model_args, **dense)
        if masks and not annotation["masks"]:
            raise InputError(
                "expected objects with masks for a Mask R-CNN (got boxes alone); set model.masks "
                "to false for a Faster R-CNN"
            )
        of_extra("faster_coco_eval", "dense")  # Which the metric would miss after an epoch.
        self.model = self.on_backbone(mask_rcnn if masks else faster_rcnn, detector_args)
        self.kinds: dict[str, Any] = {"box": "bbox", "mask": "segm"} if masks else {"box": "bbox"}
        most = self.model.roi_heads.detections_per_img
        self.average_precision = nn.ModuleDict(
            {
                split: MeanAveragePrecision(
                    iou_type=tuple(self.kinds.values()),
                    max_detection_thresholds=[1, 10, most],
                    backend="faster_coco_eval",
                )
                for split in ("val", "test")
            }
        )

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """The objects found on images (3, H, W) in [0, 1], in their own pixels.

        Each dictionary has ``boxes`` (n, 4) as XYXY, ``labels`` (n,) from 1 on, ``scores`` (n,)
        and, of a Mask R-CNN, ``masks`` (n, H, W) as booleans.
        """
        found = self.model(images)
        for objects in found:
            if "masks" in objects:
                objects["masks"] = objects["masks"].squeeze(1) >= _THRESHOLD
        return found

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of the detector's losses on a batch."""
        images, targets = batch
        losses = self.model(images, targets)
        loss = sum(losses.values())
        self.log("train_loss", loss, batch_size=len(images), prog_bar=True)
        self.log_dict(
            {f"train_{key}": value for key, value in losses.items()}, batch_size=len(images)
        )
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect what is found on the validation split."""
        self._collect(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on the test split."""
        self._collect(batch, "test")

    def on_validation_epoch_end(self) -> None:
        """Log average precision on the validation split."""
        self._log_average_precision("val")

    def on_test_epoch_end(self) -> None:
        """The same on the test split."""
        self._log_average_precision("test")

    def _collect(self, batch: Batch, split: str) -> None:
        images, targets = batch
        cast(Any, self.average_precision[split]).update(self(images), targets)

    def _log_average_precision(self, split: str) -> None:
        metric = cast(Any, self.average_precision[split])
        found = metric.compute()
        metric.reset()
        for kind, theirs in self.kinds.items():
            prefix = f"{theirs}_" if len(self.kinds) > 1 else ""
            for ours, key in (("ap", "map"), ("ap50", "map_50"), ("ap75", "map_75")):
                self.log(
                    f"{split}_{kind}_{ours}", found[prefix + key], prog_bar=True, sync_dist=True
                )
