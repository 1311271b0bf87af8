"""The operator on lattices and the layer on sparse graphs, against what peers do."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.nn import GATConv, TransformerConv

from benchmarks.timing import differs, peak_bytes, seconds
from pyg_avig import AxialGraph, CrossAttnConv
from pyg_avig.ops import cross_attention, reference
from pyg_avig.ops.kernels.build import instruction_sets, library

# The four stages of AttentionViG-S at 224: side, stride, channels.
STAGES = [(56, 8, 48), (28, 4, 96), (14, 2, 192), (7, 1, 384)]
WITHOUT_KERNELS = "without kernels"
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 3e-3}


def roll_loop(query: Tensor, key: Tensor, value: Tensor, graph: AxialGraph, beta: Tensor) -> Tensor:
    """The peers' way: roll the channels-last feature map once for each neighbour."""
    shape = (graph.batch_size, *graph.size, -1)
    query, key, value = (x.view(shape) for x in (query, key, value))
    query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
    out = torch.zeros_like(value)
    for axis, (length, stride) in enumerate(zip(graph.size, graph.stride, strict=True), start=1):
        for hop in range(stride, length, stride):
            similarity = (query * key.roll(hop, axis)).sum(-1, keepdim=True)
            out = out + torch.exp(beta * (similarity - 1)) * value.roll(hop, axis)
    return out.view(graph.num_nodes, 1, -1)


def lattice(
    device: torch.device, dtype: torch.dtype, repeats: int, batch_size: int = 16
) -> list[dict[str, Any]]:
    """Forward, and forward plus backward, at the four stage shapes of S."""
    rows: list[dict[str, Any]] = []
    for side, stride, channels in STAGES:
        graph = AxialGraph((side, side), stride, batch_size, device)
        inputs = [
            torch.randn(graph.num_nodes, 1, channels, device=device, dtype=dtype).requires_grad_()
            for _ in range(3)
        ]
        beta = torch.ones(1, device=device, requires_grad=True)
        edges, grad = graph.edge_index, torch.randn_like(inputs[2])
        ours = partial(cross_attention, graph=graph, beta=beta)
        rivals: dict[str, Callable[..., Tensor]] = {
            "roll": partial(roll_loop, graph=graph, beta=beta),
            "edges": partial(reference.edge_list_attention, edge_index=edges, beta=beta),
            "bare products": partial(_bare_products, graph=graph),
        }
        row = {"graph": f"{side}x{side}x{channels}, stride {stride}"}
        rows.append(
            row | _compare(ours, rivals, inputs, grad, device, dtype, repeats, {"bare products"})
        )
    return rows


def on_each_instruction_set(
    call: Callable[..., Any], device: torch.device
) -> dict[str, Callable[..., Any]]:
    """The call with the kernels for each instruction set, the best first, and without kernels."""
    if device.type != "cpu" or library() is None:
        return {"ours": call}
    forced = {name: _forced(call, name) for name in reversed(instruction_sets())}
    return {**forced, WITHOUT_KERNELS: _forced(call, "0")}


def _forced(call: Callable[..., Any], kernels: str) -> Callable[..., Any]:
    """The whole of a call, so with its backward pass if it is to count."""

    def run(*args: Any) -> Any:
        before = os.environ.get("PYG_AVIG_KERNELS", "")
        os.environ["PYG_AVIG_KERNELS"] = kernels
        try:
            return call(*args)
        finally:
            os.environ["PYG_AVIG_KERNELS"] = before

    return run


def _bare_products(query: Tensor, key: Tensor, value: Tensor, graph: AxialGraph) -> Tensor:
    """The matrix products that two axes need, on contiguous data: the limit."""
    (side, _), (stride, _) = graph.size, graph.stride
    members = side // stride
    q, k, v = (x.view(-1, members, x.size(-1)) for x in (query, key, value))
    rows, columns = (torch.bmm(torch.bmm(q, k.transpose(1, 2)), v) for _ in range(2))
    return (rows + columns).view_as(value)


def sparse(
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
    nodes: int = 50_000,
    edges: int = 800_000,
    channels: int = 128,
) -> list[dict[str, Any]]:
    """The whole layer on a random graph, beside PyG's attention layers of the same width."""
    index = torch.randint(nodes, (2, edges), device=device)
    graph = EdgeIndex(index, sparse_size=(nodes, nodes)).sort_by("col")[0]
    x = torch.randn(nodes, channels, device=device, dtype=dtype)
    rows: list[dict[str, Any]] = []
    for heads, edge_dim in ((1, None), (4, None), (8, None), (1, 16)):
        sizes = (channels, channels // heads, heads)
        attr = None
        row: dict[str, Any] = {"graph": f"{nodes} nodes, {edges} edges, {heads} heads"}
        if edge_dim is not None:
            attr = torch.randn(edges, edge_dim, device=device, dtype=dtype)
            row["graph"] += f", {edge_dim} features an edge"
        layer = CrossAttnConv(*sizes, edge_dim=edge_dim).to(device, dtype)
        ours = on_each_instruction_set(_training_call(layer, x, graph, attr), device)
        rivals = {
            name: _training_call(peer.to(device, dtype), x, graph, attr)
            for name, peer in (
                ("TransformerConv", TransformerConv(*sizes, edge_dim=edge_dim)),
                ("GATConv", GATConv(*sizes, edge_dim=edge_dim, add_self_loops=False)),
            )
        }
        with torch.no_grad():
            expected = layer(x, graph.as_tensor(), attr, return_attention_weights=True)[0]
            found = on_each_instruction_set(partial(layer, x, graph, attr), device)
            row["difference"] = max(differs(call(), expected) for call in found.values())
        if row["difference"] < TOLERANCE[dtype]:
            best, calls = next(iter(ours)), {**ours, **rivals}
            measured = {best: ours[best], **rivals}
            row["ours"] = [name for name in ours if name != WITHOUT_KERNELS]
            row["seconds"] = {"forward+backward": seconds(calls, device, repeats, warm_up=1)}
            row["bytes"] = {name: peak_bytes(call, device) for name, call in measured.items()}
        rows.append(row)
    return rows


def _training_call(
    layer: torch.nn.Module, x: Tensor, graph: Any, attr: Tensor | None
) -> Callable[[], None]:
    def call() -> None:
        layer.zero_grad()
        layer(x.requires_grad_(), graph, attr).sum().backward()
        x.grad = None

    return call


def _compare(
    ours: Callable[..., Tensor],
    rivals: dict[str, Callable[..., Tensor]],
    inputs: list[Tensor],
    grad: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
    uncompared: set[str],
) -> dict[str, Any]:
    """Compare outputs and gradients with ours, then time; no times where they differ."""

    def forward(call: Callable[..., Tensor]) -> Tensor:
        with torch.no_grad():
            return call(*inputs)

    def both(call: Callable[..., Tensor]) -> list[Tensor]:
        out = call(*inputs)
        return [out, *torch.autograd.grad(out, inputs, grad)]

    def calls(one_pass: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
        return {
            **on_each_instruction_set(partial(one_pass, ours), device),
            **{name: partial(one_pass, call) for name, call in rivals.items()},
        }

    expected = both(ours)
    worst = max(
        differs(a, b)
        for name, call in calls(both).items()
        if name not in uncompared
        for a, b in zip(call(), expected, strict=True)
    )
    row: dict[str, Any] = {"difference": worst}
    if worst > TOLERANCE[dtype]:
        return row
    passes = {"forward": calls(forward), "forward+backward": calls(both)}
    row["ours"] = [n for n in passes["forward"] if n not in {*rivals, WITHOUT_KERNELS}]
    row["seconds"] = {name: seconds(rival, device, repeats) for name, rival in passes.items()}
    row["bytes"] = {
        name: peak_bytes(passes["forward+backward"][name], device)
        for name in (row["ours"][0], *rivals)
    }
    return row


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table, each rival as a multiple of our time, and their memory."""
    measured = [row for row in rows if "seconds" in row]
    lines = [
        f"{row['graph']}: outputs differ by {row['difference']:.1e}; no speed"
        for row in rows
        if "seconds" not in row
    ]
    if not measured:
        return lines
    ours, passes = measured[0]["ours"], list(measured[0]["seconds"])
    names = [name for name in measured[0]["seconds"][passes[0]] if name not in ours]
    head = [f"{name} / ours, {p}" for p in passes for name in names]
    lines += [
        "| graph | instructions | ours, ms | " + " | ".join(head) + " |",
        "|---" * (len(head) + 3) + "|",
    ]
    for name in ours:
        lines += _rows_of(name, measured, passes, names)
    lines += ["", "Peak memory:", ""]
    for row in measured:
        memory = [f"{name} {value / 2**20:.0f} MiB" for name, value in row["bytes"].items()]
        lines.append(f"- {row['graph']}: {', '.join(memory)}")
    return lines


def _rows_of(
    ours: str, measured: list[dict[str, Any]], passes: list[str], names: list[str]
) -> list[str]:
    lines: list[str] = []
    ratios: list[list[float]] = []
    for row in measured:
        own = " + ".join(f"{1e3 * row['seconds'][p][ours]:.1f}" for p in passes)
        ratios.append(
            [row["seconds"][p][name] / row["seconds"][p][ours] for p in passes for name in names]
        )
        cells = " | ".join(f"{ratio:.2f}" for ratio in ratios[-1])
        lines.append(f"| {row['graph']} | {ours} | {own} | {cells} |")
    if len(measured) > 1:
        means = " | ".join(f"{prod(r) ** (1 / len(r)):.2f}" for r in zip(*ratios, strict=True))
        lines.append(f"| geometric mean | {ours} | | {means} |")
    return lines
