"""What to put side by side in the same model of images: graphs, spoilt graphs, attentions."""

from __future__ import annotations

from typing import Any

from benchmarks import degraded, trainings

CONFIGS = {
    "graphs": "configs/fashion_mnist/ablations/exponential.yaml",
    "degraded": "configs/fashion_mnist/ablations/exponential.yaml",
    "attention": "configs/fashion_mnist/vit.yaml",
}
"""What each study trains."""

TITLES = {"graphs": "graph", "degraded": "affinity", "attention": "attention"}
"""What its rivals are."""

GRAPHS: dict[str, Any] = {
    "axial, the paper's": "axial",
    "dynamic_axial": "dynamic_axial",
    "mobile_graph": "mobile_graph",
    "neighborhood_attention": "neighborhood_attention",
    "axial, then knn among features": ["axial", "axial", "knn", "knn"],
}
"""The graph of all stages, or of each."""

ATTENTIONS: dict[str, dict[str, Any] | None] = {
    "dot products, softmax (timm's)": None,
    "cosine, softmax": {"affinity": "softmax"},
    "cosine, exponential": {"affinity": "exponential"},
    "cosine, exponential, normalize": {"affinity": "exponential", "normalize": True},
}
"""Arguments of ``swap_attention``."""

STRIDES = (4, 2, 1, 1)  # Of attentionvig_nano.


def rivals(study: str) -> dict[str, dict[str, Any]]:
    """What each rival of a study changes in the config."""
    if study == "graphs":
        return {name: _model(model_args={"graph": graph}) for name, graph in GRAPHS.items()}
    if study == "attention":
        return {name: _model(swap_attention=args) for name, args in ATTENTIONS.items()}
    return {
        degraded.named(affinity, share): _model(
            model_args={
                "affinity": affinity,
                "graph": "degraded",
                "graph_args": [_spoilt(stride, share) for stride in STRIDES],
            }
        )
        for share in degraded.SHARES
        for affinity in ("exponential", "softmax")
    }


def report(rows: list[dict[str, Any]], study: str) -> list[str]:
    """The rows of a study as a Markdown table."""
    if study == "degraded":
        return degraded.report(rows, TITLES[study], "acc")
    return trainings.report(rows, TITLES[study], ["acc"])


def _model(**args: Any) -> dict[str, Any]:
    return {"model": args}


def _spoilt(stride: int, share: float) -> dict[str, Any]:
    return degraded.graph_args(share, graph="axial", graph_args={"stride": stride})
