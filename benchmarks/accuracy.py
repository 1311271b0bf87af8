"""Aggregations to put side by side in the same ViG."""

from __future__ import annotations

from typing import Any

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


def change(rival: str) -> dict[str, Any]:
    """What a rival changes in a config with a ViG."""
    return {"model": {"init_args": {"model_args": RIVALS[rival]}}}
