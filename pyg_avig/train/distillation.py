"""A teacher for hard distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from pyg_avig.errors import InputError
from pyg_avig.train.export import read_description
from pyg_avig.train.recipe import raised


class Teacher:
    """A frozen model of timm whose decisions a student learns.

    Hard distillation is from `"Training data-efficient image transformers & distillation through
    attention" <https://arxiv.org/abs/2012.12877>`_: the student's second classifier learns the
    teacher's most likely class, as its first learns the label.

    Not a module, so that a student's checkpoints do not carry it.

    Args:
        data_config: How images are given: their ``input_size``, ``mean`` and ``std``. A pretrained
            teacher gets them as its own configuration says.
        classes: Names of the classes.
        name: Name of the model in timm's registry; AttentionViG's paper takes RegNetY-16GF.
        checkpoint: File of its weights, trained on these classes: an exported file, or weights
            alone (PyTorch or safetensors) for images normalised as here; ``None`` downloads timm's
            pretrained ones.
        alpha: The teacher's share of the loss.
        **kwargs: Further arguments of ``timm.create_model``.
    """

    def __init__(
        self,
        data_config: dict[str, Any],
        classes: Sequence[str],
        name: str = "regnety_160",
        checkpoint: str | None = None,
        alpha: float = 0.5,
        **kwargs: Any,
    ) -> None:
        if not timm.is_model(name):
            raise InputError(f"distillation.name must be a model that timm knows (got {name!r})")
        if not 0 <= alpha <= 1:
            raise InputError(f"distillation.alpha must lie in [0, 1] (got {alpha})")
        channels, num_classes = data_config["input_size"][0], len(classes)
        theirs = _trained_on(checkpoint, data_config, classes)
        try:
            self.model = timm.create_model(
                name,
                pretrained=checkpoint is None,
                checkpoint_path=checkpoint or "",
                num_classes=num_classes,
                in_chans=channels,
                **kwargs,
            )
        except Exception as error:  # Of downloading or reading, whatever the file is.
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"the teacher {name} cannot be made ({reason})") from None
        cfg: Any = self.model.pretrained_cfg
        if checkpoint is None and cfg["num_classes"] != num_classes:
            raise InputError(
                f"expected a teacher of {num_classes} classes (the pretrained {name} knows "
                f"{cfg['num_classes']}); name a checkpoint, or set distillation to null"
            )
        self.model.eval().requires_grad_(False)
        self.alpha = alpha
        (mean, std), (their_mean, their_std) = (
            [_per_channel(config[key], channels) for key in ("mean", "std")]
            for config in (data_config, theirs or cfg)
        )
        self.scale = std / their_std
        self.shift = (mean - their_mean) / their_std

    def __deepcopy__(self, memo: dict) -> Teacher:
        """Itself: it never changes, and averaging of weights copies all that trains."""
        return self

    @torch.no_grad()
    def decide(self, images: Tensor) -> Tensor:
        """The most likely class of each image, (B,)."""
        if next(self.model.parameters()).device != images.device:
            self.model.to(images.device)
        if not torch.is_autocast_enabled(images.device.type):
            images = images.to(next(self.model.parameters()).dtype)
        return self.model(images * self.scale.to(images) + self.shift.to(images)).argmax(-1)

    def loss(self, student: tuple[Tensor, Tensor], loss: Tensor, images: Tensor) -> Tensor:
        """A loss by the labels, joined with the loss of the second classifier."""
        return (1 - self.alpha) * loss + self.alpha * F.cross_entropy(
            raised(student[1]), self.decide(images)
        )


def _trained_on(
    checkpoint: str | None, data_config: dict[str, Any], classes: Sequence[str]
) -> dict[str, Any] | None:
    """The images that a teacher's file was trained on; those at hand if it does not say."""
    if checkpoint is None:
        return None
    try:
        description = read_description(checkpoint)
    except InputError:
        return data_config
    if description["classes"] != list(classes):
        raise InputError(
            f"{checkpoint}: expected a teacher of the student's classes (got {len(classes)} "
            f"classes and a teacher of {len(description['classes'])}, or others)"
        )
    return description["data_config"]


def _per_channel(values: Sequence[float], channels: int) -> Tensor:
    """One value a channel; the mean of all, where a colour teacher is shown grey images."""
    per_channel = torch.tensor(values)
    if len(values) != channels:
        per_channel = per_channel.mean().expand(channels)
    return per_channel.view(1, -1, 1, 1)
