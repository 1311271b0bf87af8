"""What CrossAttnConv takes, and what it says of anything else."""

from __future__ import annotations

from operator import index as as_int
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.utils import is_torch_sparse_tensor

from pyg_avig.errors import InputError


def checked_ints(name: str, value: Any) -> Any:
    """An integer of any kind, NumPy's too, or several, as Python's."""
    try:
        return tuple(map(as_int, value)) if isinstance(value, tuple | list) else as_int(value)
    except TypeError:
        raise InputError(f"{name} must be of integers (got {value!r})") from None


def checked_sizes(
    size: tuple[int | None, int | None] | None, num_sources: int, num_targets: int
) -> None:
    """Refuse other numbers of nodes than a caller's ``size`` says."""
    found = (num_sources, num_targets)
    for wanted, number in zip(size or found, found, strict=True):
        if wanted not in (None, number):
            raise InputError(f"expected {size} source and target nodes, as size says (got {found})")


def checked_features(
    source: Tensor, target: Tensor | None, maps: tuple[nn.Module, nn.Module], like: Tensor
) -> None:
    """Refuse node features that the maps of sources and targets do not take.

    Args:
        source: Features of the sources, (N, F) or (B, N, F).
        target: Features of the targets.
        maps: The linear maps that take the one and the other.
        like: A parameter of the layer, of its device and dtype.
    """
    if target is None:
        raise InputError(
            "expected x = (x_source, x_target): the query is the target's own "
            "feature (got None for x_target)"
        )
    for name, x, lin in (("source", source, maps[0]), ("target", target, maps[1])):
        width = in_channels(lin)
        # No `in`: torch up to 2.13 finds no size of a compiled graph in a tuple.
        other = width != -1 and width != x.size(-1)
        if x.dim() not in (2, 3) or other:
            raise InputError(
                f"expected {name} features of shape (N, {width}) or (B, N, {width}) (got "
                f"{tuple(x.shape)})"
            )
        if x.dim() == 3 and is_torch_sparse_tensor(x):
            raise InputError(
                f"expected sparse {name} features of shape (N, {width}) (got {tuple(x.shape)})"
            )
        _check_kind(f"{name} features", x, like)
    if source.shape[:-2] != target.shape[:-2]:
        raise InputError(
            "expected source and target features of as many sets "
            f"(got {tuple(source.shape)} and {tuple(target.shape)})"
        )


def checked_edge_features(
    given: Tensor | None, values: Tensor | None, num_edges: int, lin_edge: nn.Module, like: Tensor
) -> Tensor:
    """The edge features (E, D) that a layer's map takes.

    Args:
        given: Those that the caller gave.
        values: The values of a sparse matrix, of whatever type, which stand in for them.
        num_edges: E.
        lin_edge: The map.
        like: A parameter of the layer, of its device and dtype.
    """
    edge_attr = values if given is None else given
    if edge_attr is not None and edge_attr.dim() == 1:
        edge_attr = edge_attr.unsqueeze(-1)
    width = in_channels(lin_edge)
    fits = edge_attr is not None and edge_attr.dim() == 2 and edge_attr.size(0) == num_edges
    if edge_attr is None or not fits or width not in (-1, edge_attr.size(1)):
        shape = None if edge_attr is None else tuple(edge_attr.shape)
        raise InputError(
            f"expected edge_attr of shape {(num_edges, width)}, the edges and edge_dim (got "
            f"{shape})"
        )
    if given is None:
        edge_attr = edge_attr.to(like.dtype)
    _check_kind("edge_attr", edge_attr, like)
    return edge_attr


def in_channels(linear: nn.Module) -> int:
    """The width that a linear map takes, whosever module it is; -1 if it does not say."""
    for name in ("in_channels", "in_features"):
        if isinstance(width := getattr(linear, name, None), int):
            return width
    return -1


def _check_kind(name: str, x: Tensor, like: Tensor) -> None:
    if x.device != like.device:
        raise InputError(
            f"expected {name} and layer on one device (got {x.device} and {like.device})"
        )
    checked_floating(name, x)
    if x.dtype != like.dtype and not torch.is_autocast_enabled(x.device.type):
        raise InputError(f"expected {name} and layer of one dtype (got {x.dtype} and {like.dtype})")


def checked_floating(name: str, x: Tensor) -> None:
    """Refuse whole numbers, which no linear map takes; they may be categories."""
    if not x.is_floating_point():
        raise InputError(
            f"expected {name} of a floating dtype (got {x.dtype}); .float() makes it of numbers, "
            "torch.nn.functional.one_hot or an embedding of categories"
        )
