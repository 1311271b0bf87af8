"""Writing trained models as safetensors files; they are read without Lightning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from pyg_avig.errors import InputError
from pyg_avig.files import written_whole
from pyg_avig.models.exported import NEEDED, NEEDED_OF_GRAPHS, read_description, read_export

__all__ = [
    "NEEDED",
    "NEEDED_OF_GRAPHS",
    "check_alike",
    "read_description",
    "read_export",
    "round_weights",
    "write_export",
]

TOLERANCE = 1e-4
"""How far outputs may differ where all is of single precision."""
HALF_TOLERANCE = 0.1
"""The same where weights, or all, are of bfloat16, which has three digits."""


def write_export(
    path: str | Path,
    tensors: dict[str, Tensor],
    description: dict[str, Any],
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model's tensors and what is needed to build and feed it.

    Args:
        path: The file, here or at an address that fsspec knows; an older one is replaced when the
            new one is whole.
        tensors: The model's state dict.
        description: ``name``, ``model_args``, ``swap_attention``, ``classes`` and ``data_config``
            of :class:`~pyg_avig.train.ImageClassifier`, or ``facts`` and ``model_args`` of
            :class:`~pyg_avig.train.GraphTask`.
        dtype: That of numbers in the file; by default their own.

    Raises:
        OSError: If it cannot be written.
    """
    contiguous = {
        name: (x.to(dtype) if dtype and x.is_floating_point() else x).contiguous()
        for name, x in tensors.items()
    }
    with written_whole(path) as partial:
        try:
            save_file(contiguous, partial, {"pyg_avig": json.dumps(description)})
        except SafetensorError as error:  # Of a full disk, too.
            raise OSError(f"{path}: cannot be written ({error})") from error


@torch.no_grad()
def round_weights(model: nn.Module, *inputs: Tensor) -> None:
    """Round a model's weights to bfloat16, in place.

    Raises:
        InputError: If its outputs for the inputs differ by more than ``HALF_TOLERANCE``.
    """
    expected = model(*inputs)
    for x in model.state_dict().values():
        if x.is_floating_point():
            x.copy_(x.bfloat16())
    check_alike(model(*inputs), expected, "weights in bfloat16", HALF_TOLERANCE)


def check_alike(found: Tensor, expected: Tensor, by: str, tolerance: float = TOLERANCE) -> None:
    """Refuse an export that does not give what its model gives.

    Args:
        found: What the export gives.
        expected: What the model gives, of the same shape.
        by: What ran the export, for the message.
        tolerance: How far they may differ, absolutely or relatively.

    Raises:
        InputError: If they differ by more, or are not finite.
    """
    if not expected.isfinite().all():
        raise InputError("expected finite weights in the checkpoint (its outputs are NaN)")
    if found.shape != expected.shape:
        raise InputError(
            f"expected outputs of shape {tuple(expected.shape)} from {by}, as the model's (got "
            f"{tuple(found.shape)}); nothing was written"
        )
    gap = ((found - expected).abs() / expected.abs().clamp(min=1)).max()
    if not gap <= tolerance:  # NaN, too.
        raise InputError(
            f"expected the model's outputs from {by}, to {tolerance:g} (got some that differ by "
            f"{float(gap):.3g}); nothing was written"
        )
