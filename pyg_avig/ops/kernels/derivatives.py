"""Derivatives of the lattices' operators, for compilers.

:mod:`pyg_avig.ops.products` has the rules otherwise, for layouts of every kind; a compiler takes
an autograd function for one that is differentiated once, and an operator for what it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_avig.ops.kernels import schemas


def _keep_pairs(ctx: Any, inputs: tuple, output: list[Tensor]) -> None:
    a, b, scales, *ctx.shape = inputs
    ctx.number = len(scales)
    ctx.save_for_backward(a, b)


def _pairs_backward(ctx: Any, grads: list[Tensor]) -> tuple:
    if ctx.number:
        raise NotImplementedError("axial_pairs: expected no scales, to be differentiated")
    a, b = ctx.saved_tensors
    spread = torch.ops.pyg_avig.axial_spread
    grads = [grad.contiguous() for grad in grads]
    return spread(b, grads, False, *ctx.shape), spread(a, grads, True, *ctx.shape), [], None, None


def _keep_spread(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weights, ctx.transpose, *ctx.shape = inputs
    ctx.save_for_backward(x, *weights)


def _spread_backward(ctx: Any, grad: Tensor) -> tuple:
    x, *weights = ctx.saved_tensors
    grad = grad.contiguous()
    ends = (x, grad) if ctx.transpose else (grad, x)
    back = torch.ops.pyg_avig.axial_spread(grad, weights, not ctx.transpose, *ctx.shape)
    return back, torch.ops.pyg_avig.axial_pairs(*ends, [], *ctx.shape), None, None, None


for _name, _backward, _keep in (
    ("axial_pairs", _pairs_backward, _keep_pairs),
    ("axial_spread", _spread_backward, _keep_spread),
):
    torch.library.register_autograd(
        f"pyg_avig::{_name}", _backward, setup_context=_keep, lib=schemas.OPERATORS
    )
