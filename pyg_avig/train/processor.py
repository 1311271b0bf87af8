"""What the processor can do, where a training asks it for more."""

from __future__ import annotations

import logging

import pytorch_lightning as pl
import torch

_log = logging.getLogger(__name__)


def has_bfloat16() -> bool:
    """Whether the processor computes in bfloat16; true where PyTorch cannot tell."""
    asked = getattr(torch.cpu, "get_capabilities", None)  # Not in every version that serves.
    known = asked() if asked else {"bf16": True}
    return any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def say_if_slow(trainer: pl.Trainer) -> None:
    """Log a warning if a training asks for bfloat16 and the processor has to emulate it."""
    on_cpu = trainer.strategy.root_device.type == "cpu"
    if on_cpu and str(trainer.precision).startswith("bf16") and not has_bfloat16():
        _log.warning(
            "precision %s: this processor has no bfloat16, and PyTorch emulates it slowly; "
            "--trainer.precision=32-true is faster",
            trainer.precision,
        )
