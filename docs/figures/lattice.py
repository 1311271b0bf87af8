"""Whom one node of a lattice receives from, by each graph that a lattice's size decides."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure
from torch_geometric.data import Data

from pyg_avig.graphs import lattice_size, make_graph

SIDE = 8
NODE = (3, 6)  # Near the border, where the graphs differ most.
GRAPHS: dict[str, dict[str, Any]] = {
    "axial": {"stride": 2},
    "mobile_graph": {"hop": 2},
    "neighborhood": {"kernel": 5},
    "neighborhood_attention": {"kernel": 5},
    "window": {"side": 4},
    "expander": {"degree": 6, "seed": 0},
}


def draw() -> Figure:
    """A panel a graph."""
    figure = Figure(figsize=(9, 6.6), layout="constrained", facecolor="white")
    panels = figure.subplots(2, 3).flat
    node = NODE[0] * SIDE + NODE[1]
    for panel, (name, args) in zip(panels, GRAPHS.items(), strict=True):
        data = Data(x=torch.zeros(SIDE * SIDE, 1), lattice_size=(SIDE, SIDE))
        source, target = make_graph(name, **args)(data).edge_index
        neighbors = source[target == node]
        rows, columns = lattice_size(data)
        for other in range(rows * columns):
            y, x = divmod(other, columns)
            near = bool((neighbors == other).any())
            color = "#c0392b" if other == node else "#2980b9" if near else "#d5d8dc"
            large = near or other == node
            panel.plot(x, y, "o", color=color, markersize=9 if large else 5, zorder=2 + large)
            if near and other != node:
                end = {"xy": (NODE[1], NODE[0]), "xytext": (x, y)}
                line = {"arrowstyle": "-|>", "color": "#2980b9", "alpha": 0.35}
                line |= {"connectionstyle": "arc3,rad=0.25"}
                panel.annotate("", **end, arrowprops=line, zorder=2)
        said = ", ".join(f"{key} {value}" for key, value in args.items())
        panel.set_title(f"{name}, {said}\n{len(neighbors)} neighbours", fontsize=9)
        panel.set_xlim(-0.6, columns - 0.4)
        panel.set_ylim(rows - 0.4, -0.6)
        panel.set_aspect("equal")
        panel.set_axis_off()
    return figure
