"""The figures of the pages, each drawn from the code that it shows."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from docs.figures import data_flow, house, lattice, layer

HERE = Path(__file__).parent

DRAWINGS: dict[Path, Callable[[], Figure]] = {
    HERE / "data_flow.svg": data_flow.draw,
    HERE / "house.svg": house.draw,
    HERE / "lattice.svg": lattice.draw,
    HERE / "layer.svg": layer.draw,
}


def svg(figure: Figure) -> str:
    """The figure as SVG: text stays text, and the same figure gives the same file."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pyg_avig"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"
