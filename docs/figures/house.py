"""Which part of the package imports which, as its files say."""

from __future__ import annotations

import ast
from pathlib import Path

from matplotlib.figure import Figure

from docs.figures.boxes import PALE, WARM, arrow, box, canvas

PACKAGE = Path(__file__).parents[2] / "pyg_avig"
PLACES = {
    "graphs": (4.0, 0.6),
    "ops": (2.4, 1.6),
    "transforms": (6.4, 1.6),
    "nn": (2.4, 2.6),
    "models": (1.1, 3.6),
    "explore": (3.4, 3.6),
    "data": (6.4, 3.6),
    "viz": (1.8, 4.7),
    "train": (4.6, 5.8),
    "commands": (4.6, 6.9),
}
"""Where each part stands: above all that it may import."""
TOLD = ("timm", "torchvision", "pytorch_lightning", "torchmetrics", "matplotlib", "networkx")
"""Of what is imported from elsewhere, what not every part may take."""


def imports() -> dict[str, tuple[set[str], set[str]]]:
    """Of each part the other parts that it imports, and whole packages, wherever in its files."""
    found: dict[str, tuple[set[str], set[str]]] = {name: (set(), set()) for name in PLACES}
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part not in PLACES:
            continue
        for name in _imported(path):
            first, *rest = name.split(".")
            if first != "pyg_avig":
                found[part][1].add(first)
            elif rest and rest[0] in PLACES and rest[0] != part:
                found[part][0].add(rest[0])
    return found


def draw() -> Figure:
    """The two wings, and what stands on both."""
    figure, axes = canvas(7.8, 7.4)
    found = imports()
    boxes = {}
    for name, (x, y) in PLACES.items():
        others = [package for package in TOLD if package in found[name][1]]
        lines = "\n".join(", ".join(others[n : n + 2]) for n in range(0, len(others), 2))
        color = WARM if name in ("transforms", "data") else PALE
        boxes[name] = box(axes, x, y, name, lines, color if y < 4 else "#e8e8e8", width=1.9)
    for name, (parts, _) in found.items():
        for other in sorted(parts):
            arrow(axes, boxes[name], boxes[other])
    return figure


def _imported(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names
