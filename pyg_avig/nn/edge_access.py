"""Who looks at single edges, so that a layer takes the road on which there are any."""

from __future__ import annotations

from torch import nn
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.nn.dense.linear import Linear

_STAGES = ("edge_update", "message", "aggregate", "message_and_aggregate", "update")
_EDGE_HOOKS = {
    f"_{stage}_forward_{kind}"
    for stage in ("propagate", *_STAGES)
    for kind in ("pre_hooks", "hooks")
}


def looks_at_edges(conv: MessagePassing, defined: type[MessagePassing]) -> bool:
    """Whether somebody looks at, or changes, what passes along the edges of a layer.

    Args:
        conv: The layer.
        defined: The class whose methods are meant, if nobody has put others in their place.
    """
    return (
        bool(conv.explain)
        or conv.aggr not in ("add", "sum")
        or conv.flow != "source_to_target"
        or conv.decomposed_layers > 1
        or any(
            getattr(type(conv), name) is not getattr(defined, name) or name in vars(conv)
            for name in _STAGES
        )
        or any(hooks for name, hooks in vars(conv).items() if name in _EDGE_HOOKS)
    )


def projects_plainly(linear: nn.Module | None) -> bool:
    """Whether a projection is nothing but the product with its weight."""
    if linear is None:
        return True
    return type(linear) is Linear and not (linear._forward_hooks or linear._forward_pre_hooks)
