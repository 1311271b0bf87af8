"""The backbone of a detector or segmenter, as its training starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import timm

import pyg_avig.nn
from pyg_avig.errors import InputError
from pyg_avig.models.dense_backbone import DenseBackbone
from pyg_avig.train.export import read_export

TIMM = "timm"
"""Initial weights by this name are timm's pretrained ones."""


def initial_backbone(
    name: str,
    model_args: dict[str, Any] | None,
    initial_weights: str | None,
    freeze_beta: bool | None,
    freeze_norm: bool | None,
    mean: Sequence[float],
    std: Sequence[float],
    grad_checkpointing: bool = False,
) -> DenseBackbone:
    """A backbone with its initial weights.

    Args:
        name: Name of the model in timm's registry.
        model_args: Further arguments of ``timm.create_model``.
        initial_weights: An exported file, :data:`TIMM` for timm's own weights, or ``None``.
        freeze_beta: Whether every beta stays as it is; by default if there are initial weights.
        freeze_norm: The same for BatchNorm's statistics.
        mean: What is subtracted from each channel of its images.
        std: What that is divided by.
        grad_checkpointing: Hold no activations within blocks: less memory, more time.

    Raises:
        InputError: If the weights are another model's, or of images normalised otherwise.
    """
    args = dict(model_args or {})
    started = initial_weights is not None
    args["freeze_norm"] = started if freeze_norm is None else freeze_norm
    trained_on: dict[str, Any] = {"mean": mean, "std": std}
    if initial_weights == TIMM:
        backbone = DenseBackbone(name, pretrained=True, **args)
        trained_on = cast(Any, timm.get_pretrained_cfg(name)).to_dict()
    elif initial_weights is not None:
        tensors, description = read_export(initial_weights)
        try:
            backbone = DenseBackbone(name, weights=tensors, **args)
        except InputError as error:
            raise InputError(f"{initial_weights}, of {description['name']}: {error}") from None
        trained_on = description["data_config"]
    else:
        backbone = DenseBackbone(name, **args)
    for key, value in (("mean", mean), ("std", std)):
        if list(trained_on[key]) != list(value):
            raise InputError(
                f"expected image_{key} {list(trained_on[key])}, as {initial_weights} was trained "
                f"with (got {list(value)})"
            )
    if started if freeze_beta is None else freeze_beta:
        pyg_avig.nn.freeze_beta(backbone)
    if grad_checkpointing:
        backbone.set_grad_checkpointing()
    return backbone
