"""What makes a model faster in evaluation: merged norms, activations in place."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import fusion
from torch_geometric.nn.dense.linear import Linear

torch.fx.wrap("gelu_in_place")  # A traced model keeps the call.
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


class InPlaceGELU(nn.Module):
    """GELU that writes over its input; see :func:`gelu_in_place`."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same."""
        return gelu_in_place(x)


def gelu_in_place(x: Tensor) -> Tensor:
    """GELU of ``x``, written over it unless a gradient is asked for: new memory would take longer
    to be had than to be filled.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return F.gelu(x)
    return torch.ops.aten.gelu_(x)


def activated_in_place(sequence: nn.Module) -> nn.Module:
    """A sequence whose GELUs write over what a linear map or convolution just before them gave.

    Args:
        sequence: Returned as it is, if it is no plain ``nn.Sequential`` or has nothing of this.
    """
    if not is_plain(sequence, nn.Sequential):
        return sequence
    modules = list(sequence.children())
    for n in range(1, len(modules)):
        if is_plain(modules[n - 1], *_MAPS):
            modules[n] = in_place(modules[n])
    if all(a is b for a, b in zip(modules, sequence.children(), strict=True)):
        return sequence
    changed = nn.Sequential(*modules)
    changed.training = sequence.training
    return changed


def in_place(activation: nn.Module) -> nn.Module:
    """An activation that writes over its input, if this is an exact GELU; else the same."""
    exact = is_plain(activation, nn.GELU) and getattr(activation, "approximate", "") == "none"
    return InPlaceGELU().train(activation.training) if exact else activation
