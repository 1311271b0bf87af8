"""Fine-tuning with the inverse temperatures as they are."""

from __future__ import annotations

import torch

from pyg_avig.nn.cross_attn_conv import CrossAttnConv
from pyg_avig.nn.swap_attention import CosineAttention


def freeze_beta(module: torch.nn.Module, frozen: bool = True) -> torch.nn.Module:
    r"""Freeze (or thaw) every :math:`\beta` in and below a module.

    For fine-tuning: with a free :math:`\beta` AttentionViG loses 0.4 to 0.9 points of AP or
    mIoU on the new task (its supplementary table 9). A frozen one gets no gradient and loses the
    one it has, so that an optimiser leaves it as it is, weight decay and momenta included, even one
    that was made before and sets gradients to zero rather than to ``None``.

    Args:
        module: Any module with :class:`CrossAttnConv` or :class:`CosineAttention` layers.
        frozen: ``False`` thaws them.

    Returns:
        The module.
    """
    for child in module.modules():
        if isinstance(child, (CrossAttnConv, CosineAttention)):
            child.log_beta.requires_grad_(not frozen)
            if frozen:
                child.log_beta.grad = None
    return module
