"""CrossAttnConv as its modules make it, with the shapes that passed them."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from docs.figures.boxes import GREY, WARM, arrow, box, canvas
from pyg_avig import CrossAttnConv

NODES, IN, OUT, HEADS = 6, 16, 32, 2


def draw() -> Figure:
    """From node features to node features."""
    conv = CrossAttnConv(IN, OUT, heads=HEADS)
    shapes: dict[str, str] = {}
    for name, module in conv.named_children():
        module.register_forward_hook(
            lambda _, inputs, out, name=name: shapes.update(
                {name: f"{_of(inputs[0])} to {_of(out)}"}
            )
        )
    ring = torch.arange(NODES)
    edges = torch.stack([ring.roll(1), ring])
    x = torch.randn(NODES, IN)
    out, (_, alpha) = conv(x, edges, return_attention_weights=True)

    figure, axes = canvas(9.6, 3.5)
    start = box(axes, 0.9, 1.8, "x", _of(x), GREY, width=0.9)
    query = box(axes, 2.8, 3.0, "Q = lin_query", shapes["lin_query"])
    key = box(axes, 2.8, 2.15, "K = lin_key", shapes["lin_key"])
    value = box(axes, 2.8, 1.3, "V = lin_value", shapes["lin_value"])
    lines = f"exp(-β(1 - cos)), β of {tuple(conv.log_beta.shape)}\nα {_of(alpha)}"
    weight = box(axes, 5.1, 2.6, conv.affinity, lines, WARM, width=2.0)
    total = box(axes, 5.1, 1.3, "sum over neighbours", "of α V x", WARM, width=2.0)
    update = box(axes, 7.2, 0.9, "W = lin_update", shapes["lin_update"])
    end = box(axes, 8.9, 0.9, "x'", _of(out), GREY, width=0.9)
    for a, b in (
        *((start, part) for part in (query, key, value)),
        *((part, weight) for part in (query, key)),
        *((part, total) for part in (weight, value)),
        *((total, update), (update, end)),
    ):
        arrow(axes, a, b)
    arrow(axes, start, update, bend=0.3)  # The node's own feature, behind the sum.
    return figure


def _of(tensor: Tensor) -> str:
    """A shape, with N nodes or E edges first."""
    first = "E" if tensor.dim() == 2 and tensor.shape[1] == HEADS else "N"
    return f"({first}, {', '.join(map(str, tensor.shape[1:]))})"
