"""Backbones to put side by side in the same detector or segmenter, from scratch."""

from __future__ import annotations

from typing import Any

_FROM_SCRATCH = {"layer_scale": 1.0}
_NANO = {**_FROM_SCRATCH, "stem_strides": [2, 2]}
RIVALS: dict[str, tuple[str, dict[str, Any]]] = {
    "attentionvig_nano": ("attentionvig_nano", _NANO),
    "attentionvig_nano, softmax": ("attentionvig_nano", {**_NANO, "affinity": "softmax"}),
    "attentionvig_s": ("attentionvig_s", _FROM_SCRATCH),
    "attentionvig_s, softmax": ("attentionvig_s", {**_FROM_SCRATCH, "affinity": "softmax"}),
}
"""Name and arguments of timm's model; any other rival is a name of timm, without arguments."""


def change(rival: str) -> dict[str, Any]:
    """What a rival changes in a config with a Detector or a Segmenter."""
    name, model_args = RIVALS.get(rival, (rival, None))
    return {"model": {"init_args": {"name": name, "model_args": model_args}}}
