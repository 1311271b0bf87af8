"""Pictures: graphs over images, a page to explore them, and how a training went."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from pyg_avig.errors import InputError
from pyg_avig.explore import explore
from pyg_avig.explore.record import in_evaluation
from pyg_avig.models import AttentionViG
from pyg_avig.nn import attention_weights

__all__ = ["explore", "learning_curve", "neighbor_weights"]


def neighbor_weights(
    model: AttentionViG,
    image: Tensor,
    node: tuple[int, int],
    path: str | Path | None = None,
) -> Figure:
    r"""Draw the SVGA neighbours of a node over the image, coloured by learned weight.

    One panel a stage: the weights :math:`\alpha_{ij}` of the stage's last Grapher, the
    mean over its heads. The node is outlined in red.

    Args:
        model: The model; drawn in evaluation mode.
        image: What the model takes: one image (C, H, W), or several (B, C, H, W), a row
            of panels each.
        node: A pixel (row, column); the node of each stage is the one that covers it.
        path: Where to write the figure as PNG, if anywhere.

    Returns:
        The figure.

    Raises:
        InputError: If the pixel lies outside the image, or model or image are of another kind.
    """
    if not isinstance(model, AttentionViG):
        raise InputError(f"expected an AttentionViG (got {type(model).__name__})")
    if not isinstance(image, Tensor) or image.dim() not in (3, 4):
        raise InputError("expected image as a tensor (C, H, W) or (B, C, H, W)")
    images = image if image.dim() == 4 else image.unsqueeze(0)
    height, width = images.shape[-2:]
    row, column = node
    if not (0 <= row < height and 0 <= column < width):
        raise InputError(
            f"expected node as a pixel (row, column) of an image of {height} x {width} (got {node})"
        )

    with in_evaluation(model):
        weights = attention_weights(model, images)

    stages = [
        s for s in model.feature_info if any(n.startswith(s["module"] + ".") for n in weights)
    ]
    if not stages:
        raise InputError("expected a model with a Grapher in one of its stages")
    figure = Figure(figsize=(2.6 * len(stages) + 1, 2.8 * len(images)), layout="constrained")
    panels = figure.subplots(len(images), len(stages), squeeze=False)
    for s, stage in enumerate(stages):
        # Names sort by block within a stage, and the last call comes last.
        names = [name for name in weights if name.startswith(stage["module"] + ".")]
        edge_index, alpha = weights[names[-1]]
        side = stage["reduction"]
        size = math.ceil(height / side), math.ceil(width / side)
        here = row // side, column // side
        for b, panel in enumerate(panels[:, s]):
            first = b * size[0] * size[1]
            target = first + here[0] * size[1] + here[1]
            edges = edge_index[1] == target
            neighbors = (edge_index[0][edges] - first).tolist()
            _draw_image(panel, images[b])
            for neighbor, weight in zip(neighbors, alpha[edges].mean(1).tolist(), strict=True):
                _draw_node(panel, divmod(neighbor, size[1]), side, facecolor=_COLORS(weight))
            _draw_node(panel, here, side, facecolor="none", edgecolor="red", linewidth=2)
            panel.set_title(
                f"{stage['module']}: {size[0]} x {size[1]} nodes\n{len(neighbors)} neighbours",
                fontsize=9,
            )
    figure.colorbar(ScalarMappable(cmap=_COLORS), ax=panels, label="weight", shrink=0.8)
    if path is not None:
        figure.savefig(path, format="png", dpi=120)
    return figure


_COLORS = colormaps["viridis"]


def _draw_image(panel: Axes, image: Tensor) -> None:
    pixels = image.detach().float().cpu().numpy()
    low, high = pixels.min(), pixels.max()
    pixels = (pixels - low) / max(high - low, 1e-12)
    if len(pixels) == 3:
        panel.imshow(pixels.transpose(1, 2, 0))
    else:
        panel.imshow(pixels.mean(0), cmap="gray")
    # Room for the outline of a node at the border.
    panel.set_xlim(-1, image.shape[2])
    panel.set_ylim(image.shape[1], -1)
    panel.set_xticks([])
    panel.set_yticks([])


def _draw_node(panel: Axes, node: tuple[int, int], side: int, **style: Any) -> None:
    # A pixel's square begins half a pixel before its centre.
    corner = node[1] * side - 0.5, node[0] * side - 0.5
    style = {"linewidth": 0.5, "edgecolor": "white", **style}
    panel.add_patch(Rectangle(corner, side, side, **style))


def learning_curve(metrics: str | Path, path: str | Path | None = None) -> Figure:
    """Draw the losses and scores of a run over its updates.

    Args:
        metrics: The file ``metrics.csv`` of a run of `pyg-avig fit`.
        path: Where to write the figure as PNG, if anywhere.

    Returns:
        The figure: losses on the left, all other metrics on the right.

    Raises:
        InputError: If the file is missing, or no such table.
    """
    if not Path(metrics).is_file():
        raise InputError(f"{metrics}: expected the metrics.csv of a run (there is no such file)")
    with Path(metrics).open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or "step" not in rows[0]:
        raise InputError(f"{metrics}: expected the metrics.csv of a run (got another table)")
    figure = Figure(figsize=(8, 3), layout="constrained")
    panels = figure.subplots(1, 2)
    for name in sorted(rows[0].keys() - {"step", "epoch"}):
        points = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        is_loss = name.endswith("loss")
        dots = "o" if len(points) < 30 else ""
        panels[0 if is_loss else 1].plot(*zip(*points, strict=True), marker=dots, label=name)
    for panel in panels:
        panel.set_xlabel("updates")
        panel.grid(alpha=0.3)
        if panel.lines:
            panel.legend()
    if path is not None:
        figure.savefig(path, dpi=100)
    return figure
