"""What models lose as edges of their graph are replaced by random ones."""

from __future__ import annotations

from typing import Any

from benchmarks.timing import spread

SHARES = (0, 10, 30, 50)
"""Edges that are replaced, in per cent."""


def graph_args(share: float, **true: Any) -> dict[str, Any]:
    """Arguments of the graph ``degraded`` that replace so many per cent.

    Args:
        share: Per cent of the edges.
        **true: What makes the true graph; by default the edges at hand.
    """
    return {**true, "remove": share / 100, "add": share / 100}


def named(rival: str, share: float) -> str:
    """A rival on a spoilt graph, for :func:`report`."""
    return f"{rival}, {share} %"


def report(rows: list[dict[str, Any]], title: str, metric: str) -> list[str]:
    """The rows as a Markdown table: a line for each rival, a column for each share.

    Args:
        rows: As :func:`benchmarks.trainings.trainings` returns them, of rivals that are ``named``.
        title: What the rivals are.
        metric: What is shown, such as acc.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        rival, _, share = row["rival"].rpartition(", ")
        found.setdefault(rival, {}).setdefault(share, []).append(row["metrics"][f"test_{metric}"])
    shares = sorted({share for of in found.values() for share in of}, key=lambda s: int(s[:-2]))
    lines = [f"| {' | '.join([title, *shares, 'runs'])} |", "|---" * (len(shares) + 2) + "|"]
    for rival, of in found.items():
        cells = [spread(of[share], 3) if share in of else "-" for share in shares]
        runs = min(len(values) for values in of.values())
        lines.append(f"| {' | '.join([rival, *cells, str(runs)])} |")
    return lines
