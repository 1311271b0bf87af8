"""Layers side by side in a plain model of two, on graphs with few labelled nodes.

The recipe is that of `GAT <https://arxiv.org/abs/1710.10903>`_ on citation graphs: 8 heads of 8
channels, then one head a class, ELU between, dropout of features and of attention, Adam.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.datasets import KarateClub, Planetoid
from torch_geometric.nn import GATConv, GATv2Conv, Linear, TransformerConv
from torch_geometric.seed import seed_everything
from torch_geometric.transforms import NormalizeFeatures

from benchmarks.timing import spread
from pyg_avig import CrossAttnConv

# As GATConv has it: each node among its own neighbours, and nowhere else.
AMONG_NEIGHBORS: dict[str, Any] = {"add_self_loops": True, "root_weight": False}


class TwoMaps(nn.Module):
    """A layer without root weight, and a second linear map behind it.

    Args:
        in_channels: Size of each node feature.
        out_channels: Size of each head's output.
        **kwargs: Further arguments of the layer.
    """

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        super().__init__()
        self.conv = CrossAttnConv(in_channels, out_channels, bias=False, **kwargs)
        width = out_channels * (self.conv.heads if self.conv.concat else 1)
        self.lin = Linear(width, width, weight_initializer="glorot", bias_initializer="zeros")

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Node features (N, C) to (N, ``heads * out_channels``), or without the heads."""
        return self.lin(self.conv(x, edge_index))


RIVALS: dict[str, Any] = {
    "GATConv": GATConv,
    "GATConv, no self-loops": partial(GATConv, add_self_loops=False),
    "GATv2Conv": GATv2Conv,
    "TransformerConv": TransformerConv,
    "CrossAttnConv": CrossAttnConv,
    "CrossAttnConv, normalize": partial(CrossAttnConv, normalize=True),
    "CrossAttnConv, softmax": partial(CrossAttnConv, affinity="softmax"),
    "CrossAttnConv, self-loops": partial(CrossAttnConv, add_self_loops=True),
    "CrossAttnConv, no root weight": partial(CrossAttnConv, root_weight=False),
    "CrossAttnConv, self-loops, no root weight": partial(CrossAttnConv, **AMONG_NEIGHBORS),
    "CrossAttnConv, normalize, self-loops": partial(
        CrossAttnConv, normalize=True, add_self_loops=True
    ),
    "CrossAttnConv, normalize, self-loops, no root weight": partial(
        CrossAttnConv, normalize=True, **AMONG_NEIGHBORS
    ),
    "the same, a second map": partial(TwoMaps, normalize=True, **AMONG_NEIGHBORS),
    "the same, equal weights": partial(CrossAttnConv, normalize=True, beta=1e-6, **AMONG_NEIGHBORS),
    "CrossAttnConv, softmax, self-loops, no root weight": partial(
        CrossAttnConv, affinity="softmax", **AMONG_NEIGHBORS
    ),
}
CITATIONS = ("Cora", "CiteSeer")
HEADS = 8


class TwoLayers(nn.Module):
    """Two layers of one kind.

    Args:
        make: Makes a layer, called as PyG's attention layers are.
        in_channels: Size of each node feature.
        out_channels: Number of classes.
        dropout: Of features and of attention.
    """

    def __init__(self, make: Any, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.first = make(in_channels, 8, heads=HEADS, dropout=dropout)
        self.second = make(8 * HEADS, out_channels, heads=1, concat=False, dropout=dropout)
        self.dropout = dropout

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Sparse node features (N, C) to logits (N, ``out_channels``)."""
        values = F.dropout(x.values(), self.dropout, self.training)
        x = torch.sparse_coo_tensor(
            x.indices(), values, x.shape, is_coalesced=True, check_invariants=False
        )
        hidden = F.elu(self.first(x, edge_index))
        return self.second(F.dropout(hidden, self.dropout, self.training), edge_index)


def small_graphs(
    root: str | Path | None, number: int, rivals: list[str], epochs: int = 200
) -> list[dict[str, Any]]:
    """Train and test each rival with each seed.

    Tested is the model of the epoch that is best on the validation nodes, where there are any, and
    else the last.

    Args:
        root: Folder of PyG's ``Planetoid``, for Cora and CiteSeer; ``None`` for KarateClub.
        number: Number of seeds.
        rivals: Keys of ``RIVALS``.
        epochs: Updates, each on the whole graph.
    """
    graphs = {name: _graph(name, root) for name in (CITATIONS if root else ("KarateClub",))}
    rows = []
    for rival in rivals:
        row: dict[str, Any] = {"rival": rival, "accuracy": {}, "seconds": []}
        for name, graph in graphs.items():
            start = time.perf_counter()
            row["accuracy"][name] = [
                _accuracy(graph, RIVALS[rival], seed, epochs) for seed in range(number)
            ]
            row["seconds"].append((time.perf_counter() - start) / number)
        rows.append(row)
        print(row, flush=True)
    return rows


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table: means, with the standard deviation over the seeds."""
    names = list(rows[0]["accuracy"])
    lines = [f"| layer | {' | '.join(names)} | seconds a run |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        cells = [spread(row["accuracy"][name], 3) for name in names]
        lines.append(f"| {row['rival']} | {' | '.join(cells)} | {mean(row['seconds']):.1f} |")
    return lines


def _graph(name: str, root: str | Path | None) -> Data:
    if name == "KarateClub":
        graph = KarateClub()[0]
        graph.test_mask = ~graph.train_mask
    else:
        graph = Planetoid(str(root), name, transform=NormalizeFeatures())[0]
    graph.num_classes = int(graph.y.max()) + 1
    graph.x = graph.x.to_sparse().coalesce()
    return graph


def _accuracy(graph: Data, make: Any, seed: int, epochs: int) -> float:
    """The accuracy on the test nodes of one training."""
    seed_everything(seed)
    small = "val_mask" not in graph
    dropout, lr = (0.5, 0.01) if small else (0.6, 0.005)
    model = TwoLayers(make, graph.x.size(1), graph.num_classes, dropout)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=5e-4)
    best = tested = -1.0
    for _ in range(epochs):
        model.train()
        optimizer.zero_grad()
        logits = model(graph.x, graph.edge_index)
        F.cross_entropy(logits[graph.train_mask], graph.y[graph.train_mask]).backward()
        optimizer.step()
        if not small:
            validated = _right(model, graph, graph.val_mask)
            if validated > best:
                best, tested = validated, _right(model, graph, graph.test_mask)
    return _right(model, graph, graph.test_mask) if small else tested


@torch.no_grad()
def _right(model: nn.Module, graph: Data, mask: Tensor) -> float:
    """The share of nodes whose class is found."""
    classes = model.eval()(graph.x, graph.edge_index)[mask].argmax(-1)
    return float((classes == graph.y[mask]).double().mean())
