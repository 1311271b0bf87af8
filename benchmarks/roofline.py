"""The bytes that the operator's products must move, and the time that memory alone would take.

Both products are bound by memory, not by arithmetic: what a kernel must move, over the bandwidth of
a plain copy in the same run, is the least time that it can take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.timing import seconds
from pyg_avig.ops import kernels

INDEX = 8  # Bytes of an index.


class Moved(NamedTuple):
    """Bytes that move between memory and processor."""

    least: int
    """If the cache holds all rows of features that are needed again."""
    most: int
    """If it holds none, so that every edge fetches its row."""


class Csr(NamedTuple):
    """Random edges from as many nodes as to, and the features of these."""

    nodes: int
    edges: int
    heads: int
    channels: int
    """Of each head."""

    def __str__(self) -> str:
        return f"{self.nodes} nodes, {self.edges} edges, {self.heads} x {self.channels}"

    def moved(self, dtype: torch.dtype) -> dict[str, Moved]:
        """By the kernel of each product, with the weights and the scales in fp32 or wider."""
        wide = kernels.weight_dtype(torch.empty(0, dtype=dtype)).itemsize
        row = self.heads * self.channels * dtype.itemsize
        scale, weights = self.heads * wide, self.edges * self.heads * wide
        index, order = (self.nodes + 1 + self.edges) * INDEX, self.edges * INDEX

        def with_rows(rest: int, row: int) -> Moved:
            """Beside the rows of the nodes that receive, those of the nodes that send."""
            return Moved(rest + 2 * self.nodes * row, rest + (self.nodes + self.edges) * row)

        return {
            "cosines": with_rows(index + weights, row + scale),
            "pairs": with_rows(index + weights, row),
            "spread": with_rows(index + weights, row),
            "spread, transposed": with_rows(index + weights + order, row),
        }

    def calls(self, device: torch.device, dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
        """The same kernels on random data."""
        a, b, scale_a, scale_b = _features(device, dtype, self.nodes, self.heads, self.channels)
        pointer = torch.randint(self.nodes, (self.edges,), device=device).bincount(
            minlength=self.nodes
        )
        pointer = torch.cat([pointer.new_zeros(1), pointer.cumsum(0)])
        columns = torch.randint(self.nodes, (self.edges,), device=device)
        order = torch.randperm(self.edges, device=device)
        weight = torch.rand(self.edges, self.heads, device=device, dtype=scale_a.dtype)
        return {
            "cosines": lambda: kernels.csr_pairs(pointer, columns, a, b, [scale_a, scale_b]),
            "pairs": lambda: kernels.csr_pairs(pointer, columns, a, b, []),
            "spread": lambda: kernels.csr_spread(pointer, columns, None, a, weight),
            "spread, transposed": lambda: kernels.csr_spread(pointer, columns, order, a, weight),
        }


class Lattice(NamedTuple):
    """Square lattices whose side is a multiple of the stride, of one head."""

    batch: int
    side: int
    stride: int
    channels: int

    def __str__(self) -> str:
        return f"{self.batch} of {self.side}x{self.side}x{self.channels}, stride {self.stride}"

    def moved(self, dtype: torch.dtype) -> dict[str, Moved]:
        """By the kernels of each product, one an axis; the cache holds a class."""
        wide = kernels.weight_dtype(torch.empty(0, dtype=dtype)).itemsize
        nodes = self.batch * self.side**2
        features = nodes * self.channels * dtype.itemsize
        weights = nodes * self.side // self.stride * wide
        # What the first axis has summed up is written, then read, in fp32 or wider.
        between = 2 * nodes * self.channels * wide
        cosines = 2 * (2 * (features + nodes * wide) + weights)
        pairs = 2 * (2 * features + weights)
        spread = 2 * (features + weights) + between + features
        moved = {"cosines": cosines, "pairs": pairs, "spread": spread}
        moved["spread, transposed"] = spread
        return {name: Moved(number, number) for name, number in moved.items()}

    def calls(self, device: torch.device, dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
        """The same kernels on random data."""
        members = self.side // self.stride
        axes = [1, members, self.stride * self.side, self.side, members, self.stride]
        a, b, *scales = _features(device, dtype, self.batch * self.side**2, 1, self.channels)
        weights = kernels.axial_pairs(a, b, [], self.batch, axes)
        return {
            "cosines": lambda: kernels.axial_pairs(a, b, scales, self.batch, axes),
            "pairs": lambda: kernels.axial_pairs(a, b, [], self.batch, axes),
            "spread": lambda: kernels.axial_spread(a, weights, False, self.batch, axes),
            "spread, transposed": lambda: kernels.axial_spread(a, weights, True, self.batch, axes),
        }


Shape = Csr | Lattice
SHAPES: list[Shape] = [
    Csr(50_000, 800_000, 1, 128),
    Csr(50_000, 800_000, 8, 16),
    Csr(1_000_000, 8_000_000, 1, 128),
    Lattice(64, 56, 8, 48),
    Lattice(64, 28, 4, 96),
    Lattice(64, 14, 2, 192),
    Lattice(64, 7, 1, 384),
]


def on_paper(
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.bfloat16),
    shapes: Sequence[Shape] = SHAPES,
) -> list[dict[str, Any]]:
    """The bytes that each product moves at each shape; nothing runs.

    A pass moves what its products do: forward *cosines* and *spread*, backward *pairs*, *spread*
    and twice *spread, transposed*; one each of these two, the gradients of a cosine, in fp32 or
    wider.
    """
    rows = []
    for shape in shapes:
        for dtype in dtypes:
            moved = shape.moved(dtype)
            wide = shape.moved(kernels.weight_dtype(torch.empty(0, dtype=dtype)))
            forward = _sum([moved["cosines"], moved["spread"]])
            back = [moved["pairs"], moved["spread, transposed"]]
            back += [wide["spread"], wide["spread, transposed"]]
            moved |= {"forward": forward, "forward+backward": _sum([forward, *back])}
            rows.append({"shape": str(shape), "dtype": _name(dtype), "bytes": moved})
    return rows


def measured(
    device: torch.device, dtype: torch.dtype, repeats: int, shapes: Sequence[Shape] = SHAPES
) -> list[dict[str, Any]]:
    """The time of each product beside that of its bytes at the bandwidth of a copy."""
    per_second = bandwidth(device, repeats)
    rows = []
    for shape in shapes:
        times = _seconds(shape.calls(device, dtype), device, repeats)
        for product, moved in shape.moved(dtype).items():
            row = {"shape": str(shape), "dtype": _name(dtype), "product": product}
            rows.append({**row, "bytes": moved, "seconds": times[product], "bytes/s": per_second})
    return rows


def bandwidth(device: torch.device, repeats: int, numbers: int = 2**26) -> float:
    """Bytes a second that a copy of so many numbers in fp32 reads and writes."""
    source = torch.rand(numbers, device=device)
    target = torch.empty_like(source)
    time = _seconds({"copy": lambda: target.copy_(source)}, device, repeats)["copy"]
    return 2 * source.numel() * source.itemsize / time


def _seconds(
    calls: dict[str, Callable[[], Any]], device: torch.device, repeats: int
) -> dict[str, float]:
    """The median time of each; on a GPU without that of its launch, and with an empty cache."""
    if device.type != "cuda":
        return seconds(calls, device, repeats)
    from triton.testing import do_bench

    with torch.cuda.device(device):
        return {name: do_bench(call, return_mode="median") / 1e3 for name, call in calls.items()}


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The rows of :func:`on_paper` as a Markdown table."""
    names = list(rows[0]["bytes"])
    lines = ["| shape | dtype | " + " | ".join(f"{name}, MB" for name in names) + " |"]
    lines.append("|---" * (len(names) + 2) + "|")
    for row in rows:
        cells = " | ".join(_megabytes(moved) for moved in row["bytes"].values())
        lines.append(f"| {row['shape']} | {row['dtype']} | {cells} |")
    return lines


def report_measured(rows: list[dict[str, Any]]) -> list[str]:
    """The rows of :func:`measured` as a Markdown table; shares are least and most."""
    lines = [
        f"A copy moves {rows[0]['bytes/s'] / 1e9:.1f} GB/s.",
        "",
        "| shape | dtype | product | MB | ms | share of the roofline |",
        "|---" * 6 + "|",
    ]
    for row in rows:
        bound = [moved / row["bytes/s"] / row["seconds"] for moved in row["bytes"]]
        shares = " to ".join(f"{share:.2f}" for share in dict.fromkeys(bound))
        lines.append(
            f"| {row['shape']} | {row['dtype']} | {row['product']} | {_megabytes(row['bytes'])} | "
            f"{1e3 * row['seconds']:.3f} | {shares} |"
        )
    return lines


def _features(
    device: torch.device, dtype: torch.dtype, nodes: int, heads: int, channels: int
) -> list[Tensor]:
    """Features of both ends, and their scales."""
    ends = torch.randn(2, nodes, heads, channels, device=device).to(dtype)
    scales = torch.rand(2, nodes, heads, device=device, dtype=kernels.weight_dtype(ends))
    return [*ends, *scales]


def _sum(several: Sequence[Moved]) -> Moved:
    return Moved(sum(moved.least for moved in several), sum(moved.most for moved in several))


def _megabytes(moved: Moved) -> str:
    return " to ".join(f"{number / 1e6:.0f}" for number in dict.fromkeys(moved))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
