"""The operator on lattices and the layer on sparse graphs, against what peers do."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import (
    AuxRequest,
    BlockMask,
    create_block_mask,
    flex_attention,
)
from torch_geometric import EdgeIndex
from torch_geometric.nn import FusedGATConv, GATConv, GATv2Conv, TransformerConv

from benchmarks.timing import differs, peak_bytes, seconds
from pyg_avig import AxialGraph, CrossAttnConv
from pyg_avig.ops import cross_attention, reference
from pyg_avig.ops.kernels import gpu
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


def flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: BlockMask,
    beta: Tensor,
    attend: Callable[..., Any] = flex_attention,
) -> Tensor:
    """FlexAttention: the softmax of the same similarities, times the sum that it divided by."""

    def score(cosine: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return beta[head] * (cosine - 1)

    shape = (len(value) // mask.seq_lengths[0], 1, mask.seq_lengths[0], -1)
    query, key = (F.normalize(x.float(), dim=-1).to(x.dtype) for x in (query, key))
    out, more = attend(
        *(x.view(shape) for x in (query, key, value)),
        score_mod=score,
        block_mask=mask,
        scale=1.0,
        return_aux=AuxRequest(lse=True),
    )
    return (out * more.lse.exp().unsqueeze(-1).to(out.dtype)).view_as(value)


def flex_mask(graph: AxialGraph, device: torch.device) -> BlockMask:
    """Which nodes of a lattice of two axes attend to which."""
    (height, width), (down, across) = graph.size, graph.stride

    def neighbors(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        rows, columns = (i // width - j // width) % height, (i - j) % width
        vertical = (i % width == j % width) & (rows > 0) & (rows % down == 0)
        horizontal = (i // width == j // width) & (columns > 0) & (columns % across == 0)
        return vertical | horizontal

    nodes = height * width
    return create_block_mask(neighbors, None, None, nodes, nodes, device=device)


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
        if device.type == "cuda":
            attend = torch.compile(flex_attention)
            rivals["flex"] = partial(flex, mask=flex_mask(graph, device), beta=beta, attend=attend)
            rivals = _that_run(rivals, inputs)
        row = {"graph": f"{side}x{side}x{channels}, stride {stride}"}
        rows.append(
            row | _compare(ours, rivals, inputs, grad, device, dtype, repeats, {"bare products"})
        )
    return rows


def _that_run(
    rivals: dict[str, Callable[..., Tensor]], inputs: list[Tensor]
) -> dict[str, Callable[..., Tensor]]:
    """Without the rivals that do not run here, who are named with the reason."""
    running = {}
    for name, call in rivals.items():
        try:
            torch.autograd.grad(call(*inputs).sum(), inputs)
            running[name] = call
        except Exception as error:  # Of whatever kind, of whatever compiler.
            print(f"{name} does not run here: {str(error).splitlines()[0]}")
    return running


def on_each_instruction_set(
    call: Callable[..., Any], device: torch.device, dtype: torch.dtype
) -> dict[str, Callable[..., Any]]:
    """The call with the kernels for each instruction set, the best first, and without kernels.

    On a GPU with those in Triton, and without.
    """
    if device.type == "cuda":
        _forced(call, "")()  # A kernel that fails is known from then on.
        if gpu.refusal(device, dtype) is None:
            return {"Triton": _forced(call, ""), WITHOUT_KERNELS: _forced(call, "0")}
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
        peers = _peers(*sizes, edge_dim, on_gpu=device.type == "cuda")
        for peer in peers.values():
            peer.to(device, dtype)
        ours = on_each_instruction_set(_training_call(layer, x, graph, attr), device, dtype)
        rivals = {name: _training_call(peer, x, graph, attr) for name, peer in peers.items()}
        inferring = on_each_instruction_set(partial(_infer, layer, x, graph, attr), device, dtype)
        with torch.no_grad():
            expected = layer(x, graph.as_tensor(), attr, return_attention_weights=True)[0]
        row["difference"] = max(differs(call(), expected) for call in inferring.values())
        if row["difference"] < TOLERANCE[dtype]:
            best = next(iter(ours))
            measured = {best: ours[best], **rivals}
            others = {name: partial(_infer, peer, x, graph, attr) for name, peer in peers.items()}
            row["ours"] = [name for name in ours if name != WITHOUT_KERNELS]
            row["seconds"] = {
                "forward": seconds({**inferring, **others}, device, repeats, warm_up=1),
                "forward+backward": seconds({**ours, **rivals}, device, repeats, warm_up=1),
            }
            row["bytes"] = {name: peak_bytes(call, device) for name, call in measured.items()}
        rows.append(row)
    return rows


@torch.no_grad()
def _infer(layer: nn.Module, x: Tensor, graph: EdgeIndex, attr: Tensor | None) -> Tensor:
    return layer(x, graph, attr)


class _FusedGAT(nn.Module):
    """PyG's FusedGATConv, with the graph in its format."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.conv = FusedGATConv(*sizes, add_self_loops=False)
        self.formats: tuple = ()

    def forward(self, x: Tensor, graph: EdgeIndex, attr: None) -> Tensor:
        """As other layers; the format is made at the first call."""
        self.formats = self.formats or self.conv.to_graph_format(graph.as_tensor(), (len(x),) * 2)
        return self.conv(x, *self.formats)


def _peers(
    in_channels: int, out_channels: int, heads: int, edge_dim: int | None, on_gpu: bool
) -> dict[str, nn.Module]:
    """PyG's attention layers; on a GPU GATv2Conv too, and FusedGATConv where its package is."""
    sizes = in_channels, out_channels, heads
    peers: dict[str, nn.Module] = {
        "TransformerConv": TransformerConv(*sizes, edge_dim=edge_dim),
        "GATConv": GATConv(*sizes, edge_dim=edge_dim, add_self_loops=False),
    }
    if on_gpu:
        peers["GATv2Conv"] = GATv2Conv(*sizes, edge_dim=edge_dim, add_self_loops=False)
        if edge_dim is None and importlib.util.find_spec("dgNN") is not None:
            peers["FusedGATConv"] = _FusedGAT(*sizes)
    return peers


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
            **on_each_instruction_set(partial(one_pass, ours), device, dtype),
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
    # One that does not run at some shapes has no numbers there.
    names = list(dict.fromkeys(n for row in measured for n in row["seconds"][passes[0]]))
    names = [name for name in names if name not in ours]
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
    ratios: dict[tuple[str, str], list[float]] = {(p, name): [] for p in passes for name in names}
    for row in measured:
        times = row["seconds"]
        own = " + ".join(f"{1e3 * times[p][ours]:.1f}" for p in passes)
        cells = []
        for p, name in ratios:
            if name in times[p]:
                ratios[p, name].append(times[p][name] / times[p][ours])
            cells.append(f"{ratios[p, name][-1]:.2f}" if name in times[p] else "–")
        lines.append(f"| {row['graph']} | {ours} | {own} | {' | '.join(cells)} |")
    if len(measured) > 1:
        means = " | ".join(f"{prod(r) ** (1 / len(r)):.2f}" for r in ratios.values())
        lines.append(f"| geometric mean | {ours} | | {means} |")
    return lines
