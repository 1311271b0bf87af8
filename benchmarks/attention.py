"""Does attention say anything? Edges are taken away in the order of their weight, and others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch_geometric.data import Data

from benchmarks.timing import spread
from benchmarks.trainings import QUIET_TRAINER, made, merged
from pyg_avig import CrossAttnConv

SHARES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Of each layer's edges in a graph, those that are taken away first, or that alone are left."""

DOMAINS = {
    "digits": ("configs/digits/nano.yaml", "probability of the predicted class"),
    "freesolv": ("configs/freesolv/vig.yaml", "predicted energy in kcal/mol"),
}
"""A config, and what is measured of a graph's prediction."""

Weights = dict[str, Tensor]
"""A value of each edge and head, (E, heads), by layer."""


def attention(
    domain: str, number: int, max_epochs: int | None = None, limit: int = 200
) -> list[dict[str, Any]]:
    """Train with each seed, and follow the predictions of test graphs as edges go.

    Args:
        domain: One of ``DOMAINS``.
        number: Number of seeds; the n-th takes the n-th split too.
        max_epochs: In place of the config's.
        limit: Test graphs.

    Returns:
        A row for each order of the edges: the mean change of a prediction without the first of them
        (``deletion``) and with them alone (``insertion``), a curve over ``SHARES`` a seed.
    """
    config, _ = DOMAINS[domain]
    rows: dict[str, dict[str, Any]] = {}
    for seed in range(number):
        model, loader = _trained(config, seed, max_epochs)
        curves: dict[str, dict[str, list[Tensor]]] = {}
        seen = 0
        for batch in loader:
            if seen >= limit:
                break
            seen += int(batch.num_graphs)
            for name, changes in _curves(model, batch, seed).items():
                mine = curves.setdefault(name, {"deletion": [], "insertion": []})
                for kind, change in changes.items():
                    mine[kind].append(change)
        for name, of_batches in curves.items():
            row = rows.setdefault(name, {"order": name, "deletion": [], "insertion": []})
            for kind, several in of_batches.items():
                row[kind].append(torch.cat(several, 1).mean(1).tolist())
            print(domain, seed, name, row["deletion"][-1], row["insertion"][-1], flush=True)
    return [{"domain": domain, "shares": SHARES, **row} for row in rows.values()]


def report(rows: list[dict[str, Any]]) -> list[str]:
    """A Markdown table: areas under the curves, mean and standard deviation over the seeds."""
    lines = [
        "| edges in the order of | change without the first | with them alone | seeds |",
        "|---" * 4 + "|",
    ]
    for row in rows:
        areas = [
            spread([area(curve, row["shares"]) for curve in row[kind]], 4)
            for kind in ("deletion", "insertion")
        ]
        lines.append(f"| {row['order']} | {' | '.join(areas)} | {len(row['deletion'])} |")
    return lines


def area(curve: list[float], shares: tuple[float, ...] | list[float] = SHARES) -> float:
    """The mean height of a curve between its first share and its last."""
    heights, places = torch.tensor(curve), torch.tensor(shares)
    return float(torch.trapezoid(heights, places) / (places[-1] - places[0]))


def _trained(config: str, seed: int, max_epochs: int | None) -> tuple[Any, Any]:
    """A model after the last epoch, so that nothing is chosen by the test, and the test loader."""
    recipe = merged(yaml.safe_load(Path(config).read_text()), {"trainer": QUIET_TRAINER})
    if max_epochs is not None:
        recipe["trainer"]["max_epochs"] = max_epochs
    cli = made(recipe, seed)
    cli.trainer.fit(cli.model, cli.datamodule)
    cli.datamodule.setup("test")
    return cli.model.eval(), cli.datamodule.test_dataloader()


def _curves(model: Any, batch: Data, seed: int) -> dict[str, dict[str, Tensor]]:
    """How far each graph's prediction moves, (shares, B), by the order of the edges."""
    measured, weights, gradients, edges = _look(model, batch)
    graphs = _graph_of_nodes(batch, edges)
    torch.manual_seed(seed)
    orders: dict[str, Weights] = {
        "weight": weights,
        "weight times gradient": {n: (weights[n] * gradients[n]).abs() for n in weights},
        "gradient": {n: gradients[n].abs() for n in weights},
        "chance": {n: torch.rand_like(weights[n]) for n in weights},
        "weight, least first": {n: -weights[n] for n in weights},
    }
    found = {}
    for name, scores in orders.items():
        places = {n: _place(scores[n].mean(1), graphs[n][edges[n][1]]).view(-1, 1) for n in scores}
        changes: dict[str, list[Tensor]] = {"deletion": [], "insertion": []}
        for share in SHARES:
            for kind, kept in (
                ("deletion", {n: place >= share for n, place in places.items()}),
                ("insertion", {n: place < share for n, place in places.items()}),
            ):
                with _weighed(model, _only(kept)), torch.no_grad():
                    now = _measure(model(batch), measured[1])[0]
                changes[kind].append((now - measured[0]).abs())
        found[name] = {kind: torch.stack(values) for kind, values in changes.items()}
    return found


def _look(
    model: nn.Module, batch: Data
) -> tuple[tuple[Tensor, Tensor | None], Weights, Weights, dict[str, Tensor]]:
    """What the model predicts, the weight of each edge, its gradient, and the edges."""
    weights: Weights = {}
    edges: dict[str, Tensor] = {}

    def keep(name: str, alpha: Tensor) -> Tensor:
        weights[name] = alpha.detach().requires_grad_()
        return weights[name] + (alpha - alpha.detach())

    with _weighed(model, keep, edges):
        measured = _measure(model(batch), None)
        gradients = torch.autograd.grad(measured[0].sum(), list(weights.values()))
    return (
        (measured[0].detach(), measured[1]),
        {name: value.detach() for name, value in weights.items()},
        dict(zip(weights, gradients, strict=True)),
        edges,
    )


def _measure(out: Tensor, classes: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Of each graph the probability of a class (by default the likeliest), or its value."""
    if out.size(1) == 1:
        return out[:, 0], None
    classes = out.argmax(1) if classes is None else classes
    return out.softmax(1).gather(1, classes.view(-1, 1))[:, 0], classes


def _graph_of_nodes(batch: Data, edges: dict[str, Tensor]) -> dict[str, Tensor]:
    """The graph of each node of a layer; on lattices, all graphs have equally many."""
    if batch.get("lattice_size") is None:
        return dict.fromkeys(edges, batch.batch)
    numbers = {name: int(edge_index.max()) + 1 for name, edge_index in edges.items()}
    return {n: torch.arange(nodes) * batch.num_graphs // nodes for n, nodes in numbers.items()}


def _place(score: Tensor, graph: Tensor) -> Tensor:
    """Where each edge stands among those of its graph, the largest score first, in [0, 1)."""
    order = score.argsort(descending=True, stable=True)
    order = order[graph[order].argsort(stable=True)]
    counts = torch.bincount(graph)
    first = counts.cumsum(0) - counts
    place = torch.empty_like(score)
    place[order] = (torch.arange(len(score)) - first[graph[order]]) / counts[graph[order]].to(score)
    return place


def _only(kept: dict[str, Tensor]) -> Callable[[str, Tensor], Tensor]:
    """Leave weights where they are wanted, (E, 1), and no others."""
    return lambda name, alpha: alpha * kept[name]


@contextmanager
def _weighed(
    model: nn.Module,
    change: Callable[[str, Tensor], Tensor],
    edges: dict[str, Tensor] | None = None,
) -> Iterator[None]:
    """Change the weights of each :class:`CrossAttnConv` on their way to the messages."""

    def hook(name: str) -> Callable[..., Tensor]:
        def changed(module: nn.Module, inputs: tuple, alpha: Tensor) -> Tensor:
            if edges is not None:
                edges[name] = inputs[0]
            return change(name, alpha)

        return changed

    handles = [
        module.register_edge_update_forward_hook(hook(name))
        for name, module in model.named_modules()
        if isinstance(module, CrossAttnConv)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
