"""From an image to a label: what passes through attentionvig_s, in shapes that were seen there."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import timm
import torch
from matplotlib.figure import Figure

import pyg_avig.models  # noqa: F401  (registers the models in timm)
from docs.figures.boxes import GREY, WARM, arrow, box, canvas
from pyg_avig import AxialGraph, CrossAttnConv
from pyg_avig.transforms import ImageToGraph

NAME, SIDE = "attentionvig_s", 224


def draw() -> Figure:
    """A box a step."""
    model: Any = timm.create_model(NAME).eval()
    maps: dict[str, tuple[int, ...]] = {}
    graphs: dict[str, AxialGraph] = {}
    steps = {"stem": model.stem, **{f"stages.{n}": stage for n, stage in enumerate(model.stages)}}
    for name, module in steps.items():
        module.register_forward_hook(
            lambda _, i, out, name=name: maps.update({name: out.shape[1:]})
        )
        for child in module.modules():
            if isinstance(child, CrossAttnConv):
                child.register_forward_pre_hook(
                    lambda _, inputs, name=name: graphs.update({name: inputs[1]})
                )
    image = torch.rand(3, SIDE, SIDE)
    graph = ImageToGraph(patch_size=1, edges=False)(image)
    with torch.inference_mode():
        logits = model(graph)

    lines = [("image", _of(image.shape), GREY), ("ImageToGraph", f"x {_of(graph.x.shape)}", WARM)]
    lines += [("stem", _of(maps["stem"]), "#dcebf7")]
    for n, blocks in enumerate(model.stages):
        name = f"stages.{n}"
        number = sum(isinstance(child, CrossAttnConv) for child in blocks.modules())
        lattice = graphs[name]
        lines.append(
            (
                name,
                f"{_of(maps[name])}\n{lattice.num_nodes_per_graph} nodes\nSVGA, stride "
                f"{lattice.stride[0]}\n{lattice.degree} neighbours\n{number} Graphers",
                "#dcebf7",
            )
        )
    lines.append(("head", f"logits\n{_of(logits.shape[1:])}", GREY))
    figure, axes = canvas(1.5 * len(lines) + 0.1, 1.7)
    boxes = [
        box(axes, 0.8 + 1.5 * n, 0.85, title, text, color, width=1.15)
        for n, (title, text, color) in enumerate(lines)
    ]
    for a, b in pairwise(boxes):
        arrow(axes, a, b)
    return figure


def _of(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
