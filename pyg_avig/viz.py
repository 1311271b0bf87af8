"""Pictures: graphs over images, a page to explore them, and how a training went."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
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

__all__ = [
    "confusion_matrix",
    "explore",
    "labelled_images",
    "learning_curve",
    "neighbor_weights",
]


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


def confusion_matrix(
    label: Tensor, predicted: Tensor, classes: Sequence[str], path: str | Path | None = None
) -> Figure:
    """Draw how many items of each class were taken for each.

    Args:
        label: The classes of the items, (M,), as indices.
        predicted: What they were taken for, (M,).
        classes: The names of the K classes.
        path: Where to write the figure as PNG, if anywhere.

    Returns:
        The figure: a row a class, a column what it was taken for; numbers where 20 classes or fewer
        leave room for them.

    Raises:
        InputError: If labels and predictions differ in number, or an index has no name.
    """
    number = len(classes)
    indices = torch.cat([label, predicted])
    if label.shape != predicted.shape or label.dim() != 1:
        raise InputError(
            f"expected as many predictions as labels (got {tuple(predicted.shape)} and "
            f"{tuple(label.shape)})"
        )
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < number:
        raise InputError(
            f"expected indices in 0 to {number - 1} (got {int(indices.min())} to "
            f"{int(indices.max())})"
        )
    counts = (label * number + predicted).bincount(minlength=number**2).view(number, number)
    side = min(2.5 + 0.4 * number, 14)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    panel = figure.subplots()
    # By the row, as classes may differ in size.
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    panel.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    names = [str(name) for name in classes]
    small = 9 if number <= 20 else 5
    panel.set_xticks(range(number), names, rotation=90, fontsize=small)
    panel.set_yticks(range(number), names, fontsize=small)
    panel.set_xlabel("taken for")
    panel.set_ylabel("class")
    for row in range(number) if number <= 20 else ():
        for column in range(number):
            if counts[row, column]:
                panel.text(
                    *(column, row, str(int(counts[row, column]))),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if shares[row, column] > 0.6 else "black",
                )
    if path is not None:
        figure.savefig(path, format="png", dpi=120)
    return figure


def labelled_images(
    images: Sequence[Tensor],
    titles: Sequence[str],
    path: str | Path | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> Figure:
    """Draw images, four a row, each under a title.

    Args:
        images: Each (C, H, W), as a model takes it.
        titles: A title for each.
        path: Where to write the figure as PNG, if anywhere.
        mean: What was subtracted from each channel of pixels in [0, 1].
        std: What that was divided by.

    Returns:
        The figure.

    Raises:
        InputError: If there are no images, or other numbers of images and titles.
    """
    if not images or len(images) != len(titles):
        raise InputError(
            f"expected images and a title for each (got {len(images)} and {len(titles)})"
        )
    rows = math.ceil(len(images) / 4)
    figure = Figure(figsize=(9, 2.6 * rows), layout="constrained")
    panels = list(figure.subplots(rows, 4, squeeze=False).flat)
    for panel in panels:
        panel.set_axis_off()
    for panel, image, title in zip(panels, images, titles, strict=False):
        scale, shift = torch.tensor(std).view(-1, 1, 1), torch.tensor(mean).view(-1, 1, 1)
        pixels = (image.detach().float().cpu() * scale + shift).clamp(0, 1).numpy()
        if len(pixels) == 3:
            panel.imshow(pixels.transpose(1, 2, 0))
        else:
            panel.imshow(pixels.mean(0), cmap="gray", vmin=0, vmax=1)
        panel.set_title(title, fontsize=8)
    if path is not None:
        figure.savefig(path, format="png", dpi=120)
    return figure
