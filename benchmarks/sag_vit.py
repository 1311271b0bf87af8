"""What the graph of SAG-ViT costs: built once a size, or in Python for each image."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import networkx as nx
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.utils import add_self_loops, from_networkx

from benchmarks.timing import differs, seconds
from pyg_avig.graphs import image_nodes
from pyg_avig.models import SAGViT
from pyg_avig.models.sag_vit_layers import STEPS, PatchGraph


class GraphPerImage(nn.Module):
    """The layers of a :class:`PatchGraph` on NetworkX graphs, one composed for each image.

    As the public code of SAG-ViT goes about it: a small graph around each node, joined into one,
    turned into a ``Data``, collated into a ``Batch``.

    Args:
        layers: Whose layers are run.
    """

    def __init__(self, layers: PatchGraph) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, features: Tensor) -> Tensor:
        """The nodes, (B, D, rows, columns)."""
        side = self.layers.patch_size
        rows, columns = self.layers.grid(*features.shape[2:])
        features = features[:, :, : rows * side, : columns * side]
        graphs = [
            Data(image_nodes(image.unsqueeze(0), (side, side)), self.edges(rows, columns))
            for image in features
        ]
        batch = Batch.from_data_list(graphs).to(features.device)
        edge_index, _ = add_self_loops(batch.edge_index, num_nodes=batch.num_nodes)
        nodes = self.layers.conv1(batch.x, edge_index).relu()
        nodes = self.layers.conv2(nodes, edge_index)
        return nodes.view(len(graphs), rows, columns, -1).permute(0, 3, 1, 2)

    @staticmethod
    def edges(rows: int, columns: int) -> Tensor:
        """The edges of one image."""
        whole = nx.Graph()
        for node in range(rows * columns):
            row, column = divmod(node, columns)
            part = nx.Graph()
            part.add_node(node)
            for y, x in STEPS:
                if 0 <= row + y < rows and 0 <= column + x < columns:
                    part.add_edge(node, (row + y) * columns + column + x)
            whole = nx.compose(whole, part)
        return from_networkx(whole).edge_index


def sag_vit(
    device: torch.device, repeats: int, batch_size: int, sides: Sequence[int]
) -> list[dict[str, Any]]:
    """Inference of the public variant; its graph built once a size, given, or for each image."""
    return [_row(device, repeats, batch_size, side) for side in sides]


def _row(device: torch.device, repeats: int, batch_size: int, side: int) -> dict[str, Any]:
    torch.manual_seed(0)
    model = SAGViT(num_classes=10, variant="public", device=device).eval()
    images = torch.randn(batch_size, 3, side, side, device=device)
    layers: Any = model.patch_graph

    @torch.inference_mode()
    def infer(way: nn.Module) -> Tensor:
        model.patch_graph = way
        return model(images)

    with torch.inference_mode():
        size = model.backbone(images)[-1].shape[2:]
        edges = layers.edges(*layers.grid(*size), batch_size, device)
    given: Any = copy.copy(layers)
    given.edges = lambda *_: edges
    ways = {"once a size": layers, "given": given, "per image": GraphPerImage(layers)}
    expected = infer(layers)
    row: dict[str, Any] = {"side": side, "batch_size": batch_size}
    row["difference"] = max(differs(infer(way), expected) for way in ways.values())
    if row["difference"] < 1e-5:
        calls: dict[str, Callable[[], Any]] = {
            name: partial(infer, way) for name, way in ways.items()
        }
        row["seconds"] = seconds(calls, device, repeats)
    return row


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table; no speed where outputs differ."""
    lines = ["| image | graph | images/s | over that of a graph per image |", "|---|---|---|---|"]
    for row in rows:
        if "seconds" not in row:
            lines.append(
                f"| {row['side']} | outputs differ by {row['difference']:.1e}: no speed | | |"
            )
            continue
        slowest = row["seconds"]["per image"]
        lines += [
            f"| {row['side']} | {name} | {row['batch_size'] / time:.1f} | {slowest / time:.2f} |"
            for name, time in row["seconds"].items()
        ]
    return lines
