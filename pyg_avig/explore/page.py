"""The page: everything in one HTML file, which opens from the disk."""

from __future__ import annotations

import base64
import html
import inspect
import io
import json
import math
from collections.abc import Sequence
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pyg_avig.errors import InputError
from pyg_avig.explore.layout import MAX_EDGES, check_size, colourings, lay_out
from pyg_avig.explore.record import Attention, EdgeTable, layer_record, top_classes, watch
from pyg_avig.files import written_whole
from pyg_avig.graphs import graph_images

_SCRIPTS = (
    "data.js",
    "rollout.js",
    "lattice_view.js",
    "graph_view.js",
    "histogram.js",
    "panel.js",
    "page.js",
)
_SMALL = 64  # Pixels of a side: smaller images are kept exactly, and shown without smoothing.


def explore(
    model: nn.Module,
    inputs: Tensor | Data | Sequence[Tensor | Data],
    path: str | Path,
    *,
    classes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    node: int | None = None,
    hops: int = 2,
    title: str | None = None,
) -> None:
    r"""Write a page on which one sees what each node of images or graphs attends to.

    One HTML file, without a server or network: every stage, block and head of the model's
    :class:`~pyg_avig.CrossAttnConv` layers, histograms of their weights, predictions, and
    attention rollout (`Abnar and Zuidema 2020 <https://arxiv.org/abs/2005.00928>`_), for weights
    that need not sum to one as

    .. math::
        \hat{\mathbf{A}} = \frac{\mathbf{I} + \mathbf{A}}{1 + \sum_j \alpha_{ij}}.

    What is on it and how it is used: ``docs/explore.md``.

    Args:
        model: Any model with such layers; it is looked at in evaluation mode, on one input at a
            time. It is called with an image (1, C, H, W); with a graph as its only argument; or,
            where ``forward`` names fields of the graph (``x, edge_index``), with those.
        inputs: An image (C, H, W), images (B, C, H, W), a PyG ``Data`` or ``Batch``, or several of
            these. Graphs of images (:class:`~pyg_avig.transforms.ImageToGraph`) are drawn as
            images; molecules (``smiles``) by RDKit; those with positions ``pos`` there, in 3D too;
            others by networkx.
        path: The file to write, or an address that fsspec knows.
        classes: Names of the model's classes. Outputs of more than one column are taken as logits.
        names: What each input is called.
        mean: Mean by which images were normalised, a channel; without it an image is shown
            stretched from its least value to its largest.
        std: Standard deviation likewise.
        node: For graphs: draw the neighbourhood of this node alone.
        hops: Its size.
        title: Of the page; by default the model's class.

    Raises:
        InputError: If the model has no such layer, cannot take an input, or a graph is too large to
            be drawn.
        OSError: If the file cannot be written. What was there stays.
    """
    inputs = _listed(inputs)
    if names is not None and len(names) != len(inputs):
        raise InputError(f"expected a name for each input (got {len(names)} for {len(inputs)})")
    if not inputs:
        raise InputError("expected an image or graph to look at (got none)")
    table = EdgeTable()
    items = []
    for i, one in enumerate(inputs):
        name = f"{i + 1}" if names is None else names[i]
        try:
            if isinstance(one, Tensor):
                item = _image_item(model, one.unsqueeze(0), one, table, classes, mean, std)
            elif one.get("patch_size") is not None and one.get("lattice_size") is not None:
                item = _image_item(model, one, graph_images(one)[0], table, classes, mean, std)
            else:
                item = _graph_item(model, one, table, classes, node, hops)
        except (RuntimeError, TypeError, AttributeError, IndexError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"{name}: expected an image or graph that the model takes ({reason})"
            ) from error
        items.append({"name": name, **item})
    write_page(path, title or type(model).__name__, items, table)


def write_page(path: str | Path, title: str, items: list[dict[str, Any]], table: EdgeTable) -> None:
    """Put data, style and scripts into one file."""
    from pyg_avig import __version__

    content = {"title": title, "version": __version__, "edges": table.records, "items": items}
    data = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    licence = f"/*\n{_file('d3.LICENSE')}*/"  # It asks to go wherever d3 goes.
    scripts = [licence, _file("d3.min.js"), *(_file(name) for name in _SCRIPTS)]
    parts = {
        "title": html.escape(title),
        "style": _file("style.css"),
        "data": data.replace("<", "\\u003c"),  # Whatever names hold, no tag ends in them.
        "scripts": "\n".join(scripts),
    }
    page = _file("page.html")
    for name, part in parts.items():
        before, after = page.split(f"<!-- {name} -->")
        page = before + part + after
    with written_whole(path) as partial:
        partial.write_text(page, encoding="utf-8")


def _listed(inputs: Tensor | Data | Sequence[Tensor | Data]) -> list[Tensor | Data]:
    """Images (C, H, W) and single graphs."""
    if isinstance(inputs, Batch):
        return inputs.to_data_list()
    if isinstance(inputs, Data):
        return [inputs]
    if isinstance(inputs, Tensor):
        if inputs.dim() not in (3, 4):
            raise InputError(
                f"expected images (C, H, W) or (B, C, H, W) (got {tuple(inputs.shape)})"
            )
        return list(inputs) if inputs.dim() == 4 else [inputs]
    if not isinstance(inputs, Sequence) or isinstance(inputs, str):
        raise InputError(f"expected images or graphs (got {type(inputs).__name__})")
    return [one for several in inputs for one in _listed(several)]


def _image_item(
    model: nn.Module,
    given: Tensor | Data,
    image: Tensor,
    table: EdgeTable,
    classes: Sequence[str] | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> dict[str, Any]:
    attention, output = watch(model, given)
    _check_output(output, classes)
    height, width = image.shape[-2:]
    stages = []
    for number, layers in _by_nodes(attention):
        size, side = _lattice(number, height, width, layers[0].name)
        stages.append(_stage(layers, number, table) | {"size": size, "side": side})
    return {
        "picture": _picture(image, mean, std),
        "width": width,
        "height": height,
        "pixelated": max(height, width) < _SMALL,
        "nodes": None,
        "stages": stages,
        **_prediction(output, classes),
    }


def _graph_item(
    model: nn.Module,
    data: Data,
    table: EdgeTable,
    classes: Sequence[str] | None,
    node: int | None,
    hops: int,
) -> dict[str, Any]:
    check_size(data, node)
    fields = _fields(model, data)
    attention, output = watch(model, data) if fields is None else watch(model, **fields)
    _check_output(output, classes)
    number = int(data.num_nodes or 0)
    for layer in attention:
        if layer.num_nodes != number:
            raise InputError(
                f"expected layers on the {number} nodes of the graph (got {layer.name} on "
                f"{layer.num_nodes})"
            )
    layout = lay_out(data, _all_edges(attention, data), node, hops)
    attention = [_within(layer, layout.nodes, number) for layer in attention]
    of_nodes = isinstance(output, Tensor) and output.dim() == 2 and len(output) == number > 1
    ids = layout.nodes.tolist()
    labels = [f"node {i}" for i in ids]
    if layout.symbols is not None:
        labels = [f"{symbol} {i}" for symbol, i in zip(layout.symbols, ids, strict=True)]
    top = None
    if of_nodes and output.size(1) > 1:
        top = [top_classes(row, classes) for row in output[layout.nodes].cpu()]
    logits = output.detach().float().cpu() if of_nodes else None
    nodes = {
        "positions": [[float(f"{v:.4g}") for v in row] for row in layout.positions.tolist()],
        "labels": labels,
        "symbols": layout.symbols,
        "centre": layout.centre,
        "colourings": colourings(data, layout, logits, classes),
        "top": top,
    }
    stage = _stage(attention, len(ids), table) | {"size": None, "side": 1, "name": "graph"}
    prediction = {"top": None, "values": None} if of_nodes else _prediction(output, classes)
    return {
        "picture": None,
        "width": 0,
        "height": 0,
        "pixelated": False,
        "nodes": nodes,
        "stages": [stage],
        **prediction,
    }


def _fields(model: nn.Module, data: Data) -> dict[str, Any] | None:
    """The fields of a graph that a model's ``forward`` names; ``None`` if it takes the graph."""
    parameters = inspect.signature(model.forward).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = [p for p in parameters if p.kind in kinds]
    needed = [p.name for p in named if p.default is p.empty]
    if not needed or not all(name in data for name in needed):
        return None
    return {p.name: data[p.name] for p in named if p.name in data}


def _by_nodes(attention: list[Attention]) -> list[tuple[int, list[Attention]]]:
    """Layers that follow one another on equally many nodes: the blocks of a stage."""
    return [
        (number, list(layers)) for number, layers in groupby(attention, lambda one: one.num_nodes)
    ]


def _stage(layers: list[Attention], number: int, table: EdgeTable) -> dict[str, Any]:
    """A stage, named by what its layers' names begin with."""
    names = [layer.name.split(".") for layer in layers]
    common = [parts[0] for parts in zip(*names, strict=False) if len(set(parts)) == 1]
    if len(layers) == 1:
        common = common[:2]
    while common and not common[-1].isdigit() and len(common) > 1:
        common.pop()
    return {
        "name": ".".join(common) or "layers",
        "numNodes": number,
        "layers": [layer_record(layer, table) for layer in layers],
    }


def _lattice(number: int, height: int, width: int, name: str) -> tuple[list[int], int]:
    """Rows and columns of a lattice of so many square cells over an image, and their side."""
    for side in range(1, max(height, width) + 1):
        size = [math.ceil(height / side), math.ceil(width / side)]
        if math.prod(size) == number:
            return size, side
    raise InputError(
        f"expected layers whose nodes are cells of an image of {height} x {width} (got {name} on "
        f"{number} nodes)"
    )


def _picture(image: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> str:
    """An image as it can stand in a page: PNG if it is small, else JPEG."""
    pixels = image.detach().float().cpu()
    if mean is not None and std is not None:
        scale, shift = torch.tensor(std).view(-1, 1, 1), torch.tensor(mean).view(-1, 1, 1)
        pixels = pixels * scale + shift
    else:
        low, high = pixels.min(), pixels.max()
        pixels = (pixels - low) / (high - low).clamp(min=1e-12)
    if len(pixels) != 3:
        pixels = pixels.mean(0, keepdim=True)
    array = (255 * pixels.clamp(0, 1)).round().byte().movedim(0, -1).squeeze(-1).numpy()
    kind, options = ("PNG", {}) if max(array.shape[:2]) < _SMALL else ("JPEG", {"quality": 92})
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def _check_output(output: Any, classes: Sequence[str] | None) -> None:
    if not isinstance(output, Tensor) or output.dim() != 2:
        return  # Of something else, such as a detector's boxes: no prediction is shown.
    if not output.isfinite().all():
        raise InputError("expected finite outputs of the model (got NaN or infinity)")
    if classes is not None and 1 < output.size(1) != len(classes):
        raise InputError(
            f"expected a name for each of the {output.size(1)} classes (got {len(classes)})"
        )


def _prediction(output: Any, classes: Sequence[str] | None) -> dict[str, Any]:
    """The likeliest classes of one image or graph, or its value, if that is what the output is."""
    nothing: dict[str, Any] = {"top": None, "values": None}
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != 1:
        return nothing
    if output.size(1) == 1:
        return nothing | {"values": output[0].tolist()}
    return nothing | {"top": top_classes(output[0].cpu(), classes)}


def _all_edges(attention: list[Attention], data: Data) -> Tensor:
    """The edges that a neighbourhood is found along: those at hand, or else of the first layer."""
    edge_index = data.get("edge_index")
    return attention[0].edge_index if edge_index is None else edge_index.cpu()


def _within(layer: Attention, nodes: Tensor, number: int) -> Attention:
    """What of a layer lies between the nodes that are drawn, which are numbered anew."""
    position = torch.full((number,), -1)
    position[nodes] = torch.arange(len(nodes))
    edges = position[layer.edge_index]
    kept = (edges >= 0).all(0)
    if int(kept.sum()) > MAX_EDGES:
        raise InputError(
            f"expected at most {MAX_EDGES} edges to draw (got {int(kept.sum())}): name a node, as "
            "node=..., to see its neighbourhood, or take fewer hops"
        )
    return layer._replace(num_nodes=len(nodes), edge_index=edges[:, kept], alpha=layer.alpha[kept])


def _file(name: str) -> str:
    return (resources.files("pyg_avig.explore") / "page" / name).read_text(encoding="utf-8")
