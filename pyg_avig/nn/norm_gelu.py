"""GELU behind BatchNorm in one operator, where both train on the CPU."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pyg_avig.nn.folding import is_plain
from pyg_avig.ops.norm_gelu import norm_gelu, serves

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def norm_act(norm: nn.Module, act: nn.Module, x: Tensor) -> Tensor:
    """``act(norm(x))``, by :func:`~pyg_avig.ops.norm_gelu.norm_gelu` where it gives the same.

    It does for a BatchNorm that trains and the exact GELU, perhaps with modules behind it in a
    sequence; not if either has hooks, or in programs and transforms.

    Args:
        norm: A norm.
        act: What follows it.
        x: Node features (N, C), or images (B, C, H, W) stored channels-last.
    """
    if is_plain(act, nn.Sequential) and len(list(act.children())) > 1:
        first, *others = act.children()
        x = norm_act(norm, first, x)
        for module in others:
            x = module(x)
        return x
    rows = _rows(x) if isinstance(x, Tensor) else None
    if rows is None or not _is_trained(norm) or not is_plain(act, nn.GELU):
        return act(norm(x))
    batch_norm: Any = norm
    gelu: Any = act
    if gelu.approximate != "none" or not serves(rows, batch_norm.weight):
        return act(norm(x))
    out, mean, var = norm_gelu(rows, batch_norm.weight, batch_norm.bias, batch_norm.eps)
    _remember(batch_norm, mean, var, len(rows))
    return out if x.dim() == 2 else out.view(len(x), *x.shape[2:], -1).movedim(-1, 1)


def in_sequence(layers: nn.Module, x: Tensor) -> Tensor:
    """``layers(x)``; in an ``nn.Sequential`` each norm with what follows it by :func:`norm_act`.

    A layer that ends in a norm may have a method ``activated(x, act)``, which does that.
    """
    if not is_plain(layers, nn.Sequential) or not isinstance(x, Tensor):
        return layers(x)
    modules = list(layers.children())
    while modules:
        layer = modules.pop(0)  # By a starred target it would be a tuple in compiled code.
        if modules and is_plain(layer, *_NORMS):
            x = norm_act(layer, modules.pop(0), x)
        elif modules and hasattr(layer, "activated"):
            x = layer.activated(x, modules.pop(0))  # type: ignore[operator]
        else:
            x = layer(x)
    return x


def _is_trained(norm: Any) -> bool:
    """Whether a norm takes its batch's statistics and keeps running ones, as is usual."""
    return (
        is_plain(norm, *_NORMS)
        and norm.training
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
    )


def _rows(x: Tensor) -> Tensor | None:
    """Features as rows (N, C) of the same storage, if they lie so."""
    rows = x.movedim(1, -1) if x.dim() == 4 else x
    return rows.reshape(-1, rows.size(-1)) if x.dim() in (2, 4) and rows.is_contiguous() else None


def _remember(norm: Any, mean: Tensor, var: Tensor, rows: int) -> None:
    """Move the running statistics towards a batch's, as BatchNorm does."""
    norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    unbiased = var.to(norm.running_var.dtype) * (rows / (rows - 1))
    norm.running_var.lerp_(unbiased, norm.momentum)
