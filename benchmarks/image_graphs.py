"""Graphs to put side by side in the same AttentionViG."""

from __future__ import annotations

from typing import Any

CONFIG = "configs/fashion_mnist/ablations/exponential.yaml"

RIVALS: dict[str, Any] = {
    "axial, the paper's": "axial",
    "dynamic_axial": "dynamic_axial",
    "mobile_graph": "mobile_graph",
    "neighborhood_attention": "neighborhood_attention",
    "axial, then knn among features": ["axial", "axial", "knn", "knn"],
}
"""The graph of all stages, or of each."""


def change(rival: str) -> dict[str, Any]:
    """What a rival changes in the config."""
    return {"model": {"model_args": {"graph": RIVALS[rival]}}}
