"""What the Lightning modules of a detector and of a segmenter share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from pyg_avig.errors import InputError
from pyg_avig.train.backbone import initial_backbone
from pyg_avig.train.recipe import Recipe


class DenseTask(Recipe):
    """A model for scenes on a backbone of timm. Its checkpoints carry the classes.

    Args:
        annotation: What the data say of themselves, such as
            :attr:`pyg_avig.data.datasets.coco.CocoInstances.annotation`.
        name: Name of the backbone in timm's registry; it needs features at strides 4 to 32.
        model_args: Further arguments of ``timm.create_model``.
        initial_weights: An exported file (`pyg-avig export`) that the backbone starts from, or
            ``timm`` for timm's pretrained weights.
        freeze_beta: Whether every beta stays as it is; by default if there are initial weights.
        freeze_norm: Whether the backbone's BatchNorms keep their statistics; by default if there
            are initial weights. To share statistics among devices: ``trainer.sync_batchnorm``.
        grad_checkpointing: Hold no activations within the backbone's blocks.
        **recipe: Arguments of :class:`Recipe`.

    Raises:
        InputError: If the data are of another task.
    """

    annotated = ""
    """What must be annotated: ``instances`` or ``pixels``."""
    example = ""
    """Data of which that is so, for errors."""
    same_to_resume = (*Recipe.same_to_resume, "freeze_beta", "freeze_norm")

    def __init__(
        self,
        annotation: dict[str, Any],
        name: str = "attentionvig_s",
        model_args: dict[str, Any] | None = None,
        initial_weights: str | None = None,
        freeze_beta: bool | None = None,
        freeze_norm: bool | None = None,
        grad_checkpointing: bool = False,
        **recipe: Any,
    ) -> None:
        super().__init__(**recipe)
        if annotation is None or annotation["of"] != self.annotated:
            raise InputError(
                f"expected images with annotated {self.annotated} for a {type(self).__name__}, "
                f"such as {self.example} (got others)"
            )

    def on_backbone(self, make: Callable[..., nn.Module], args: dict[str, Any] | None) -> Any:
        """What ``make`` makes of the backbone, the number of classes and further arguments."""
        args = {
            "image_mean": IMAGENET_DEFAULT_MEAN,
            "image_std": IMAGENET_DEFAULT_STD,
            **(args or {}),
        }
        hparams: Any = self.hparams
        backbone = initial_backbone(
            hparams["name"],
            hparams["model_args"],
            hparams["initial_weights"],
            hparams["freeze_beta"],
            hparams["freeze_norm"],
            args["image_mean"],
            args["image_std"],
            hparams["grad_checkpointing"],
        )
        try:
            model = make(backbone, len(hparams["annotation"]["classes"]), **args)
        except TypeError as error:
            raise InputError(f"expected arguments of {make.__name__} ({error})") from None
        model.register_forward_pre_hook(_check_shapes)
        return model


def _check_shapes(model: Any, args: tuple) -> None:
    """Raise an InputError for an image of which resizing would leave nothing on one side."""
    least, most = max(model.transform.min_size), model.transform.max_size
    for image in args[0]:
        short, long = sorted(image.shape[1:])
        if least and short * min(least / short, most / long) < 1:
            raise InputError(
                f"expected images that are less than {most} times as long as wide, for max_size "
                f"{most} (got {image.shape[2]} x {image.shape[1]} pixels)"
            )
