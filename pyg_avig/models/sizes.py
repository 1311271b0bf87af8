"""How large models are, and what they cost."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode


def size_of(name: str, side: int | None = None, **model_args: Any) -> tuple[int, float, list[int]]:
    """Parameters and cost of a model of timm; no weights are made.

    Args:
        name: Its name.
        side: Side of the images in pixels; by default that of the model's configuration.
        **model_args: Further arguments of ``timm.create_model``.

    Returns:
        The number of parameters, the multiply-accumulates of one image, and its shape (C, H, W).
    """
    model: Any = timm.create_model(name, device="meta", **model_args).eval()
    channels, *sides = model.pretrained_cfg["input_size"]
    shape = [channels, *(sides if side is None else [side, side])]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *shape))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return parameters, counter.get_total_flops() / 2, shape
