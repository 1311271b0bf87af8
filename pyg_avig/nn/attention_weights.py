"""Reading the attention of a model that contains CrossAttnConv layers."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyg_avig.errors import InputError
from pyg_avig.nn.cross_attn_conv import CrossAttnConv


class AttentionWeights(NamedTuple):
    """The attention of one layer."""

    edge_index: Tensor
    """The edges, (2, E), source to target."""
    alpha: Tensor
    """The weight of each edge and head, (E, heads), in at least fp32."""


def attention_weights(model: nn.Module, *args: Any, **kwargs: Any) -> dict[str, AttentionWeights]:
    """Each :class:`CrossAttnConv`'s edges and weights in ``model(*args, **kwargs)``.

    The model's code need not know of it. Runs without gradient, in the mode (training
    or evaluation) that the model is in.

    Of features (B, N, F) on one graph, the edges are those of B disjoint copies of it.

    Args:
        model: Any module with :class:`CrossAttnConv` layers somewhere below it.
        *args: What the model is called with.
        **kwargs: What the model is called with.

    Returns:
        For each layer by its name in the model, in the order of the calls. Of a layer
        called several times, the last call's.

    Raises:
        InputError: If the model has such layers and calls none.

    Example:
        >>> import torch
        >>> from torch_geometric.nn import Sequential
        >>> from pyg_avig import CrossAttnConv, attention_weights
        >>> edge_index = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
        >>> model = Sequential("x, edge_index", [(CrossAttnConv(8, 8), "x, edge_index -> x")])
        >>> found = attention_weights(model, torch.randn(4, 8), edge_index)
        >>> {name: tuple(weights.alpha.shape) for name, weights in found.items()}
        {'module_0': (4, 1)}
    """
    found: dict[str, AttentionWeights] = {}

    def recorder(name: str):
        def record(module, inputs, alpha):
            found.pop(name, None)
            found[name] = AttentionWeights(inputs[0], alpha.detach())

        return record

    handles = [
        module.register_edge_update_forward_hook(recorder(name))
        for name, module in model.named_modules()
        if isinstance(module, CrossAttnConv)
    ]
    try:
        # A compiled model would not call the hooks.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    if handles and not found:
        raise InputError("expected a model that calls its CrossAttnConv layers (it called none)")
    return found
