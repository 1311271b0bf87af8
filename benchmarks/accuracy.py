"""Aggregations to put side by side in the same ViG."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks import degraded
from benchmarks.trainings import merged

RIVALS: dict[str, dict[str, Any]] = {
    "CrossAttnConv": {"aggregation": "cross_attention"},
    "CrossAttnConv, normalize": {
        "aggregation": "cross_attention",
        "aggregation_args": {"normalize": True},
    },
    "CrossAttnConv, softmax": {
        "aggregation": "cross_attention",
        "aggregation_args": {"affinity": "softmax"},
    },
    "CrossAttnConv, normalize, self-loops, no root weight": {
        "aggregation": "cross_attention",
        "aggregation_args": {"normalize": True, "add_self_loops": True, "root_weight": False},
    },
    "CrossAttnConv, softmax, self-loops, no root weight": {
        "aggregation": "cross_attention",
        "aggregation_args": {"affinity": "softmax", "add_self_loops": True, "root_weight": False},
    },
    "GATConv": {"aggregation": "gat"},
    "GATv2Conv": {"aggregation": "gatv2"},
    "TransformerConv": {"aggregation": "transformer"},
    "EdgeConv": {"aggregation": "edge_conv"},
    "GraphSAGE": {"aggregation": "sage"},
    "Max-Relative": {"aggregation": "max_relative"},
    "no edges": {"aggregation": "none"},
}
"""Arguments of the ViG."""


def changes(rivals: Iterable[str], on_degraded: bool) -> dict[str, dict[str, Any]]:
    """What rivals change in a config with a ViG, by their names.

    Args:
        rivals: Keys of :data:`RIVALS`.
        on_degraded: Whether each runs on spoilt graphs too, by :data:`benchmarks.degraded.SHARES`.
    """
    own = {rival: _model(RIVALS[rival]) for rival in rivals}
    if not on_degraded:
        return own
    return {
        degraded.named(rival, share): merged(
            change, _model({"graph": "degraded", "graph_args": degraded.graph_args(share)})
        )
        for share in degraded.SHARES
        for rival, change in own.items()
    }


def _model(args: dict[str, Any]) -> dict[str, Any]:
    return {"model": {"init_args": {"model_args": args}}}
