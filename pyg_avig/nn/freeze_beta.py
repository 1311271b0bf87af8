"""Fine-tuning with the inverse temperatures as they are, or near to it."""

from __future__ import annotations

import math

import torch
from torch.nn import Parameter

from pyg_avig.errors import InputError
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

    Example:
        >>> from pyg_avig import CrossAttnConv, freeze_beta
        >>> freeze_beta(CrossAttnConv(8, 8)).log_beta.requires_grad
        False
    """
    for log_beta in log_betas(module):
        log_beta.requires_grad_(not frozen)
        if frozen:
            log_beta.grad = None
    return module


class BetaBounds:
    r"""Holds every :math:`\beta` in and below a module within a factor of what it is now.

    Between a frozen and a free one: call :meth:`hold` after each update, which brings back those
    that have left :math:`[\beta_0 / f, f \beta_0]`. Parameters and state dict stay as they are.

    Args:
        module: Any module with :class:`CrossAttnConv` or :class:`CosineAttention` layers.
        factor: The factor :math:`f`, at least 1.

    Raises:
        InputError: If the factor is below 1.
    """

    def __init__(self, module: torch.nn.Module, factor: float) -> None:
        if isinstance(factor, bool) or not factor >= 1:
            raise InputError(
                f"expected a factor of at least 1 for the bounds of beta (got {factor})"
            )
        self._reach = math.log(factor)
        self._held = log_betas(module)
        self.initial = [log_beta.detach().clone() for log_beta in self._held]
        """The logarithms that the bounds are around, a tensor (heads,) a layer."""

    @torch.no_grad()
    def hold(self) -> None:
        """Bring back every value that has left its bounds."""
        for log_beta, initial in zip(self._held, self.initial, strict=True):
            initial = initial.to(log_beta)
            log_beta.clamp_(initial - self._reach, initial + self._reach)


def log_betas(module: torch.nn.Module) -> list[Parameter]:
    r"""The parameters :math:`\log \beta` in and below a module, each once."""
    layers = [
        child for child in module.modules() if isinstance(child, (CrossAttnConv, CosineAttention))
    ]
    return list({id(layer.log_beta): layer.log_beta for layer in layers}.values())
