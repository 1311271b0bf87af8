"""What a model attends to on one input, as the page's JavaScript reads it.

The format is written down where it is read: ``page/data.js``.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pyg_avig.errors import InputError
from pyg_avig.nn import CrossAttnConv, attention_weights

TOP = 5


class Attention(NamedTuple):
    """What was seen in one layer."""

    name: str
    conv: CrossAttnConv
    num_nodes: int
    edge_index: Tensor
    alpha: Tensor


class EdgeTable:
    """The edges of all layers of a page; equal ones are kept once."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self._numbers: dict[bytes, int] = {}

    def add(self, edge_index: Tensor, num_nodes: int) -> tuple[int, Tensor]:
        """Enter edges, sorted by target; their number in the table, and the order of sorting."""
        source, target = edge_index
        order = target.argsort(stable=True)
        start = torch.bincount(target, minlength=num_nodes).cumsum(0)
        key = _bytes(source[order], np.uint32) + _bytes(start, np.uint32)
        if key not in self._numbers:
            self._numbers[key] = len(self.records)
            self.records.append(
                {
                    "numNodes": num_nodes,
                    "source": _text(source[order], np.uint32),
                    "start": _text(torch.cat([start.new_zeros(1), start]), np.uint32),
                }
            )
        return self._numbers[key], order


def watch(model: nn.Module, *args: Any, **kwargs: Any) -> tuple[list[Attention], Any]:
    """What each :class:`CrossAttnConv` attends to in a call of a model, and what that returns.

    In evaluation mode, without gradients.

    Raises:
        InputError: If there are no such layers, one joins two sets of nodes, or a weight is not
            finite.
    """
    sizes: dict[str, tuple[int, int]] = {}
    outputs: list[Any] = []

    def size_of(name: str) -> Callable[..., None]:
        def record(conv: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["x"]
            source, target = (x, x) if isinstance(x, Tensor) else x
            sizes[name] = math.prod(source.shape[:-1]), math.prod(target.shape[:-1])

        return record

    convs = {name: m for name, m in model.named_modules() if isinstance(m, CrossAttnConv)}
    if not convs:
        raise InputError(
            f"expected a model with CrossAttnConv layers (got {type(model).__name__} without any)"
        )
    handles = [
        conv.register_forward_pre_hook(size_of(name), with_kwargs=True)
        for name, conv in convs.items()
    ]
    handles.append(model.register_forward_hook(lambda model, args, out: outputs.append(out)))
    try:
        with in_evaluation(model):
            weights = attention_weights(model, *args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for name, (edge_index, alpha) in weights.items():
        if sizes[name][0] != sizes[name][1]:
            raise InputError(
                f"expected layers on one set of nodes (got {name} from {sizes[name][0]} to "
                f"{sizes[name][1]})"
            )
        if not alpha.isfinite().all():
            raise InputError(f"expected finite attention weights (got NaN or infinity in {name})")
        found.append(Attention(name, convs[name], sizes[name][1], edge_index.cpu(), alpha.cpu()))
    return found, outputs[0]


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for a while; each module returns to the mode it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def layer_record(attention: Attention, table: EdgeTable) -> dict[str, Any]:
    """The weights of one layer, a byte each between a head's least and largest."""
    conv = attention.conv
    number, order = table.add(attention.edge_index, attention.num_nodes)
    alpha = attention.alpha[order].T.double()  # (heads, E)
    if alpha.size(1):
        low, high = alpha.amin(1), alpha.amax(1)
    else:
        low = high = alpha.new_zeros(len(alpha))
    share = (alpha - low.view(-1, 1)) / (high - low).clamp(min=1e-12).view(-1, 1)
    return {
        "name": attention.name,
        "edges": number,
        "beta": conv.beta.detach().float().cpu().tolist(),
        "affinity": conv.affinity,
        "averaged": conv.normalize,
        "low": low.tolist(),
        "high": high.tolist(),
        "weights": _text((255 * share).round(), np.uint8),
    }


def top_classes(logits: Tensor, classes: Sequence[str] | None) -> list[list[Any]]:
    """The likeliest classes of one row of logits, with their probabilities."""
    probability = logits.float().softmax(-1)
    best = probability.topk(min(TOP, len(probability)))
    return [
        [str(i) if classes is None else classes[i], round(float(p), 5)]
        for p, i in zip(best.values, best.indices.tolist(), strict=True)
    ]


def _bytes(values: Tensor, dtype: type) -> bytes:
    # As browsers read them, on whatever machine.
    return values.numpy().astype(np.dtype(dtype).newbyteorder("<")).tobytes()


def _text(values: Tensor, dtype: type) -> str:
    return base64.b64encode(_bytes(values, dtype)).decode()
