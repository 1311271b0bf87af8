"""The two products of cross-attention on the classes of a lattice (pyg_avig/ops/axial.py).

Node features are (before, members, inner, channels), and a class is what lies along the second
axis: `members` rows, `inner` rows apart. Weights are (before, inner, members, members). A program
takes a tile of the result of one class; tiles of rows are ROWS high, at least 16, as products of
tiles (`tl.dot`) ask for. These are of the weights' precision, in full ("ieee") unless TF32 is asked
for.
"""

import triton
import triton.language as tl


@triton.jit
def axial_pairs(
    a,
    b,
    scale_a,
    scale_b,
    out,
    members,
    inner,
    channels,
    SCALED: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """out[class, i, j] = <row i of a, row j of b>, [ROWS, ROWS] of them."""
    this = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    j = tl.program_id(2) * ROWS + tl.arange(0, ROWS)
    first = this // inner * members * inner + this % inner
    row_i, row_j = first + i * inner, first + j * inner
    sums = tl.zeros([ROWS, ROWS], dtype=out.dtype.element_ty)
    for begin in range(0, channels, CHANNELS):
        c = begin + tl.arange(0, CHANNELS)
        x = tl.load(
            a + row_i[:, None] * channels + c[None, :],
            mask=(i < members)[:, None] & (c < channels)[None, :],
            other=0,
        )
        y = tl.load(
            b + row_j[None, :] * channels + c[:, None],
            mask=(j < members)[None, :] & (c < channels)[:, None],
            other=0,
        )
        x, y = x.to(sums.dtype), y.to(sums.dtype)
        sums = tl.dot(x, y, sums, input_precision=PRECISION, out_dtype=sums.dtype)
    if SCALED:
        sums *= tl.load(scale_a + row_i, mask=i < members, other=0)[:, None]
        sums *= tl.load(scale_b + row_j, mask=j < members, other=0)[None, :]
        sums = tl.where(sums > 1, 1.0, sums)  # NaN stays NaN.
        sums = tl.where(sums < -1, -1.0, sums)
    place = this * members * members + i[:, None] * members + j[None, :]
    tl.store(out + place, sums, mask=(i < members)[:, None] & (j < members)[None, :])


@triton.jit
def axial_spread(
    x,
    weight,
    so_far,
    out,
    members,
    inner,
    channels,
    ADD: tl.constexpr,
    TRANSPOSE: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Row i of out = sum over j of weight[class, i, j] * row j of x, [ROWS, CHANNELS] of them.

    If TRANSPOSE of weight[class, j, i]; if ADD, what is in ``so_far`` besides.
    """
    this = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    first = this // inner * members * inner + this % inner
    sums = tl.zeros([ROWS, CHANNELS], dtype=weight.dtype.element_ty)
    for begin in range(0, members, ROWS):
        j = begin + tl.arange(0, ROWS)
        if TRANSPOSE:
            place = j[None, :] * members + i[:, None]
        else:
            place = i[:, None] * members + j[None, :]
        w = tl.load(
            weight + this * members * members + place,
            mask=(i < members)[:, None] & (j < members)[None, :],
            other=0,
        )
        rows = tl.load(
            x + (first + j * inner)[:, None] * channels + c[None, :],
            mask=(j < members)[:, None] & (c < channels)[None, :],
            other=0,
        )
        sums = tl.dot(w, rows.to(w.dtype), sums, input_precision=PRECISION, out_dtype=sums.dtype)
    place = (first + i * inner)[:, None] * channels + c[None, :]
    inside = (i < members)[:, None] & (c < channels)[None, :]
    if ADD:
        sums += tl.load(so_far + place, mask=inside, other=0)
    tl.store(out + place, sums.to(out.dtype.element_ty), mask=inside)
