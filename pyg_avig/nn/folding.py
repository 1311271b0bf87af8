"""Merging norms into the linear maps before them, for evaluation."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import fusion
from torch_geometric.nn.dense.linear import Linear

_MAPS = (nn.Linear, Linear, nn.Conv2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


def is_plain(module: nn.Module, *types: type[nn.Module]) -> bool:
    """Whether a module computes what its type says: one of these, no hook, no other forward.

    (A parametrised module is of another type.)
    """
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooked = any(getattr(module, name) for name in hooks) or "forward" in vars(module)
    return type(module) in types and not hooked


@torch.no_grad()
def fold_norm(before: nn.Module, norm: nn.Module) -> nn.Module | None:
    """One map that gives in evaluation what two modules give one after the other.

    Args:
        before: A linear map or convolution.
        norm: A BatchNorm that follows it.

    Returns:
        A new module, or ``None`` if these are others, have hooks, are in training mode, or if the
        norm keeps no statistics.
    """
    first: Any = before
    second: Any = norm
    if not is_plain(before, *_MAPS) or not is_plain(norm, *_NORMS):
        return None
    if first.training or second.training or second.running_mean is None:
        return None
    if second.num_features != first.weight.size(0):
        return None
    scale = torch.ones_like(second.running_var) if second.weight is None else second.weight
    shift = torch.zeros_like(second.running_mean) if second.bias is None else second.bias
    convolves = isinstance(before, nn.Conv2d)
    merge = fusion.fuse_conv_bn_weights if convolves else fusion.fuse_linear_bn_weights
    folded: Any = copy.deepcopy(before)
    folded.weight, folded.bias = merge(
        first.weight,
        first.bias,
        second.running_mean,
        second.running_var,
        second.eps,
        scale,
        shift,
    )
    return folded


def fold_norms(sequence: nn.Module) -> nn.Module:
    """A sequence with each norm in the map before it, where that changes no output.

    Args:
        sequence: Returned as it is, if it is no plain ``nn.Sequential``.
    """
    if not is_plain(sequence, nn.Sequential):
        return sequence
    modules: list[nn.Module] = []
    for module in sequence.children():
        folded = fold_norm(modules[-1], module) if modules else None
        if folded is None:
            modules.append(module)
        else:
            modules[-1] = folded
    if len(modules) == len(list(sequence.children())):
        return sequence
    merged = nn.Sequential(*modules)
    merged.training = sequence.training  # Of itself alone: a norm that stays keeps its mode.
    return merged
