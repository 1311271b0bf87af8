"""How the cost of the operator grows, and where one backend becomes cheaper than another."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.timing import peak_bytes, seconds
from pyg_avig import AxialGraph
from pyg_avig.ops import backends, cross_attention, refusal


def growth(
    device: torch.device,
    dtype: torch.dtype,
    repeats: int,
    sides: tuple[int, ...] = (14, 28, 56, 112),
    numbers_of_edges: tuple[int, ...] = (100_000, 200_000, 400_000, 800_000),
    widths: tuple[int, ...] = (32, 64, 128, 256),
    few_edges: tuple[int, ...] = (64, 1024, 2048, 4096, 16384),
    strides: tuple[int, ...] = (16, 24, 18, 31),
) -> list[dict[str, Any]]:
    """Forward plus backward and its peak memory, one quantity grown at a time.

    Few edges, and lattices of side 48 whose classes grow sparser (2 to 24 members to an edge), by
    each backend: what the choice between them was made by.
    """
    rows = []
    for side in sides:
        stage = AxialGraph((side, side), max(side // 7, 1), batch_size=4, device=device)
        rows.append(_row("side of the lattice", side, stage, stage.num_nodes, 64, dtype, repeats))
    nodes = max(numbers_of_edges) // 16
    for edges in numbers_of_edges:
        index = torch.randint(nodes, (2, edges), device=device)
        rows.append(_row("random edges", edges, index, nodes, 64, dtype, repeats))
    lattice = AxialGraph((28, 28), 4, batch_size=4, device=device)
    index = torch.randint(nodes, (2, min(numbers_of_edges)), device=device)
    for width in widths:
        for of, graph, size in (
            ("channels on a lattice", lattice, lattice.num_nodes),
            ("channels on random edges", index, nodes),
        ):
            rows.append(_row(of, width, graph, size, width, dtype, repeats))
    for edges in few_edges:
        index = torch.randint(max(edges // 8, 1), (2, edges), device=device)
        for width in (16, 64):
            of = f"few edges, {width} channels"
            rows += _by_backend(of, edges, index, max(edges // 8, 1), width, dtype, repeats)
    for stride in strides:
        lattice = AxialGraph((48, 48), stride, batch_size=4, device=device)
        of = "stride on a lattice"
        rows += _by_backend(of, stride, lattice, lattice.num_nodes, 64, dtype, repeats)
    return sorted(rows, key=lambda row: row["of"])


def _by_backend(
    of: str, value: int, graph: Any, nodes: int, channels: int, dtype: torch.dtype, repeats: int
) -> list[dict[str, Any]]:
    return [
        _row(f"{of}, {name}", value, graph, nodes, channels, dtype, repeats, name)
        for name in backends()
        if refusal(name, graph, graph.device) is None
    ]


def _row(
    of: str,
    value: int,
    graph: Any,
    nodes: int,
    channels: int,
    dtype: torch.dtype,
    repeats: int,
    backend: str | None = None,
) -> dict[str, Any]:
    device = graph.device
    query, key, values = (
        torch.randn(nodes, 1, channels, device=device, dtype=dtype).requires_grad_()
        for _ in range(3)
    )
    beta = torch.ones(1, device=device)

    def call() -> None:
        out = cross_attention(query, key, values, graph, beta, backend=backend)
        torch.autograd.grad(out.sum(), (query, key, values))

    return {
        "of": of,
        "value": value,
        "seconds": seconds({"ours": call}, device, repeats)["ours"],
        "bytes": peak_bytes(call, device),
        "edges": graph.num_edges if isinstance(graph, AxialGraph) else graph.size(1),
        "nodes": nodes,
    }


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table."""
    lines = ["| growing | value | nodes | edges | ms | MiB |", "|---" * 6 + "|"]
    lines += [
        f"| {row['of']} | {row['value']} | {row['nodes']} | {row['edges']} | "
        f"{1e3 * row['seconds']:.1f} | {row['bytes'] / 2**20:.1f} |"
        for row in rows
    ]
    return lines
