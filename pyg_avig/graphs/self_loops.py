"""One self-loop a node, in place of those that a graph has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from pyg_avig.errors import InputError

FILLS = ("add", "sum", "mean", "min", "max", "mul")


def with_self_loops(
    edge_index: Tensor,
    num_sources: int,
    num_targets: int,
    edge_attr: Tensor | None = None,
    fill_value: float | Tensor | str = "mean",
    target_row: int = 1,
    padded: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The edges, self-loops left out, and behind them one self-loop a node.

    As PyG's layers do it: ``remove_self_loops``, then ``add_self_loops``. In a bipartite graph
    source i and target i are one node, as far as there are both.

    Args:
        edge_index: The edges, (2, E).
        num_sources: Number of sources.
        num_targets: Number of targets.
        edge_attr: Features of the edges, (E, D).
        fill_value: Those of the self-loops: a number, a tensor (D,), or one of :data:`FILLS`, taken
            over the other edges that lead to the node.
        target_row: The row of ``edge_index`` that names targets.
        padded: Let the number of edges follow from the shapes alone, as a recorded program needs
            it: self-loops are not left out, but lead to a target too many, ``num_targets``.

    Returns:
        The edges (2, E'), and their features (E', D) if there were any.
    """
    own = edge_index[0] == edge_index[1]
    if padded:
        rows = list(edge_index)
        rows[target_row] = rows[target_row].masked_fill(own, num_targets)
        edge_index = torch.stack(rows)
    else:
        edge_index = edge_index[:, ~own]
        edge_attr = None if edge_attr is None else edge_attr[~own]
    number = num_targets if num_sources is num_targets else _least(num_sources, num_targets)
    loops = torch.arange(number, device=edge_index.device)
    if edge_attr is not None:
        targets = edge_index[target_row]
        filled = _filled(edge_attr, targets, num_targets + padded, fill_value)
        edge_attr = torch.cat([edge_attr, filled[:number]])
    return torch.cat([edge_index, loops.expand(2, -1)], 1), edge_attr


def _least(a: Any, b: Any) -> Any:
    """The smaller of two sizes, symbolic ones too, which a compiler asks not to be compared."""
    return torch.sym_min(a, b) if torch.compiler.is_compiling() else min(a, b)


def check_fill_value(fill_value: float | Tensor | str) -> None:
    """Refuse a name that stands for no reduction."""
    if isinstance(fill_value, str) and fill_value not in FILLS:
        raise InputError(
            f"fill_value must be a number, a tensor or one of {', '.join(FILLS)} (got "
            f"{fill_value!r})"
        )


def _filled(
    edge_attr: Tensor, targets: Tensor, number: int, fill_value: float | Tensor | str
) -> Tensor:
    """The features of a self-loop of each target, (``number``, D)."""
    if isinstance(fill_value, str):
        return scatter(edge_attr, targets, 0, number, fill_value)
    if not isinstance(fill_value, Tensor):
        return edge_attr.new_full((number, edge_attr.size(1)), fill_value)
    return fill_value.to(edge_attr).expand(number, edge_attr.size(1))
