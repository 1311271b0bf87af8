"""Boxes with words in them, and arrows between."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

PALE, WARM, GREY = "#dcebf7", "#fdebd0", "#eeeeee"


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure without axes, of so many inches; a unit is an inch, y points up."""
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_axis_off()
    return figure, axes


def box(
    axes: Axes,
    x: float,
    y: float,
    title: str,
    lines: str = "",
    color: str = PALE,
    width: float = 1.5,
) -> FancyBboxPatch:
    """A box around (x, y), a title in bold and smaller lines below."""
    height = 0.3 + 0.16 * len(lines.splitlines())
    patch = FancyBboxPatch(
        (x - width / 2, y - height / 2),
        width,
        height,
        boxstyle="round,pad=0.04",
        facecolor=color,
        edgecolor="#555555",
    )
    axes.add_patch(patch)
    top = y + height / 2 - 0.15
    axes.text(x, top, title, ha="center", va="center", fontsize=9, weight="bold")
    for n, line in enumerate(lines.splitlines()):
        axes.text(x, top - 0.19 - 0.16 * n, line, ha="center", va="center", fontsize=7.5)
    return patch


def arrow(axes: Axes, start: FancyBboxPatch, end: FancyBboxPatch, bend: float = 0.0) -> None:
    """An arrow from one box to another."""
    axes.add_patch(
        FancyArrowPatch(
            *(_middle(patch) for patch in (start, end)),
            patchA=start,
            patchB=end,
            arrowstyle="-|>",
            mutation_scale=9,
            color="#555555",
            linewidth=0.9,
            connectionstyle=f"arc3,rad={bend}",
            zorder=0,  # Behind the boxes that it passes.
        )
    )


def _middle(patch: FancyBboxPatch) -> tuple[float, float]:
    return (
        patch.get_x() + patch.get_width() / 2,
        patch.get_y() + patch.get_height() / 2,
    )
