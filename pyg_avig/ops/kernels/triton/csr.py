"""The two products of cross-attention on a CSR matrix (pyg_avig/ops/csr.py).

Its rows are the nodes that receive, its columns those that send. Node features are (nodes, heads,
channels), weights (edges, heads). A program takes one row of the matrix and HEADS heads: its tiles
are [EDGES, HEADS, CHANNELS], and it goes through its row EDGES edges at a time, always in the same
order, so that equal input gives equal output.
"""

import triton
import triton.language as tl


@triton.jit
def csr_pairs(
    pointer,
    columns,
    a,
    b,
    scale_a,
    scale_b,
    out,
    heads,
    channels,
    SCALED: tl.constexpr,
    EDGES: tl.constexpr,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """out[e, h] = <a[row of e, h], b[column of e, h]>."""
    row = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    end = tl.load(pointer + row + 1)
    for begin in range(tl.load(pointer + row), end, EDGES):
        e = begin + tl.arange(0, EDGES)
        column = tl.load(columns + e, mask=e < end, other=0)
        there = (e < end)[:, None] & (h < heads)[None, :]
        sums = tl.zeros([EDGES, HEADS, CHANNELS], dtype=out.dtype.element_ty)
        for first in range(0, channels, CHANNELS):
            c = first + tl.arange(0, CHANNELS)
            place = h[:, None] * channels + c[None, :]
            own = (h < heads)[:, None] & (c < channels)[None, :]
            mine = tl.load(a + row * heads * channels + place, mask=own, other=0)
            others = tl.load(
                b + column[:, None, None] * heads * channels + place[None, :, :],
                mask=(e < end)[:, None, None] & own[None, :, :],
                other=0,
            )
            sums += mine[None, :, :].to(sums.dtype) * others.to(sums.dtype)
        found = tl.sum(sums, axis=2)
        if SCALED:
            found *= tl.load(scale_a + row * heads + h, mask=h < heads, other=0)[None, :]
            place_b = column[:, None] * heads + h[None, :]
            found *= tl.load(scale_b + place_b, mask=there, other=0)
            found = tl.where(found > 1, 1.0, found)  # NaN stays NaN.
            found = tl.where(found < -1, -1.0, found)
        tl.store(out + e[:, None] * heads + h[None, :], found, mask=there)


@triton.jit
def csr_spread(
    pointer,
    columns,
    order,
    x,
    weight,
    out,
    heads,
    channels,
    ORDERED: tl.constexpr,
    EDGES: tl.constexpr,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """out[row, h] = sum over the row's edges e of weight[e, h] * x[column of e, h].

    CHANNELS channels of it; if ORDERED, edge e has the weight order[e].
    """
    row = tl.program_id(0).to(tl.int64)
    h = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    place = h[:, None] * channels + c[None, :]
    own = (h < heads)[:, None] & (c < channels)[None, :]
    end = tl.load(pointer + row + 1)
    sums = tl.zeros([EDGES, HEADS, CHANNELS], dtype=weight.dtype.element_ty)
    for begin in range(tl.load(pointer + row), end, EDGES):
        e = begin + tl.arange(0, EDGES)
        column = tl.load(columns + e, mask=e < end, other=0)
        n = e
        if ORDERED:
            n = tl.load(order + e, mask=e < end, other=0)
        there = (e < end)[:, None] & (h < heads)[None, :]
        w = tl.load(weight + n[:, None] * heads + h[None, :], mask=there, other=0)
        others = tl.load(
            x + column[:, None, None] * heads * channels + place[None, :, :],
            mask=(e < end)[:, None, None] & own[None, :, :],
            other=0,
        )
        sums += w[:, :, None] * others.to(sums.dtype)
    total = tl.sum(sums, axis=0)
    tl.store(out + row * heads * channels + place, total.to(out.dtype.element_ty), mask=own)
