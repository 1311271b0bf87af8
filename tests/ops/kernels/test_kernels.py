import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from pyg_avig import AxialGraph
from pyg_avig.ops import cross_attention, kernels
from pyg_avig.ops.kernels import build

needs_kernels = pytest.mark.skipif(
    build.library() is None, reason="needs the C++ kernels: no compiler, or PYG_AVIG_KERNELS=0"
)
on_each_instruction_set = pytest.mark.parametrize("instructions", build.instruction_sets())
of_each_type = pytest.mark.parametrize("dtype", build.TYPES)


@contextlib.contextmanager
def forced(instructions):
    """On these instructions, and new memory filled with NaN."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYG_AVIG_KERNELS", instructions)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)


def rounded_once(sums, dtype):
    """Arguments of assert_close for sums in at least single precision, rounded once."""
    eps = torch.finfo(dtype).eps
    return {"expected": sums.to(dtype), "rtol": max(eps, 1e-5), "atol": 1e-4}


@st.composite
def classes(draw):
    """Numbers of graphs, and before, members and inner of two axes of equally many rows."""
    a, b, rest = (draw(st.integers(1, 9)) for _ in range(3))
    return draw(st.integers(0, 3)), [1, a, b * rest, a * b, rest, 1]


def by_einsum(axes, x, n):
    before, members, inner = axes[3 * n : 3 * n + 3]
    return x.view(-1, before, members, inner, x.size(-1)).flatten(0, 1)


@needs_kernels
@on_each_instruction_set
@of_each_type
@given(classes(), st.integers(1, 70), st.booleans(), st.booleans())
def test_the_kernels_equal_einsum(instructions, dtype, sizes, channels, scaled, transpose):
    graphs, axes = sizes
    nodes = graphs * axes[0] * axes[1] * axes[2]
    a, b = torch.randn(2, nodes, channels).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    scales = list(torch.rand(2, nodes, dtype=wide)) if scaled else []
    with forced(instructions):
        weights = kernels.axial_pairs(a, b, scales, graphs, axes)
        total = kernels.axial_spread(a, weights, transpose, graphs, axes)

    a, b = a.to(wide), b.to(wide)
    expected_total = torch.zeros_like(a)
    for n, weight in enumerate(weights):
        rows, columns = by_einsum(axes, a, n), by_einsum(axes, b, n)
        expected = torch.einsum("pirc,pjrc->prij", rows, columns)
        if scaled:
            ends = [by_einsum(axes, scale.view(-1, 1), n).squeeze(-1) for scale in scales]
            expected = torch.einsum("prij,pir,pjr->prij", expected, *ends).clamp(-1, 1)
        torch.testing.assert_close(weight, expected)
        equation = "prij,pirc->pjrc" if transpose else "prij,pjrc->pirc"
        expected_total += torch.einsum(equation, weight, rows).reshape_as(a)
    torch.testing.assert_close(total, **rounded_once(expected_total, dtype))


@needs_kernels
@on_each_instruction_set
@of_each_type
@given(
    st.data(),
    st.integers(1, 9),
    st.one_of(st.integers(1, 150), st.sampled_from([4, 8, 16, 32])),
    st.booleans(),
    st.booleans(),
)
def test_the_csr_kernels_equal_index_select(
    instructions, dtype, data, heads, channels, scaled, ordered
):
    degrees = data.draw(st.lists(st.integers(0, 7), min_size=0, max_size=5))
    rows, edges, columns = len(degrees), sum(degrees), 4
    pointer = torch.tensor([0, *degrees]).cumsum(0)
    row = torch.arange(rows).repeat_interleave(torch.tensor(degrees, dtype=torch.long))
    column = torch.randint(columns, (edges,))
    a = torch.randn(rows, heads, channels).to(dtype)
    b = torch.randn(columns, heads, channels).to(dtype)
    wide = torch.promote_types(dtype, torch.float32)
    scales = [torch.rand(x.shape[:2], dtype=wide) for x in (a, b)] if scaled else []
    order = torch.randperm(edges) if ordered else None
    weight = torch.randn(edges, heads, dtype=wide)
    with forced(instructions):
        pairs = kernels.csr_pairs(pointer, column, a, b, scales)
        total = kernels.csr_spread(pointer, column, order, b, weight)

    a, b = a.to(wide), b.to(wide)
    expected = (a[row] * b[column]).sum(-1)
    if scaled:
        expected = (expected * scales[0][row] * scales[1][column]).clamp(-1, 1)
    torch.testing.assert_close(pairs, expected)
    mine = weight if order is None else weight[order]
    expected = torch.zeros_like(a).index_add(0, row, mine.unsqueeze(-1) * b[column])
    torch.testing.assert_close(total, **rounded_once(expected, dtype))


@needs_kernels
@on_each_instruction_set
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels", [1, 32])
def test_half_precision_is_read_and_rounded_as_pytorch_does(instructions, dtype, channels):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)
    one = torch.ones(1, 1, dtype=dtype)
    nodes = every.numel() // channels
    with forced(instructions):
        read = kernels.axial_spread(
            every.view(nodes, channels), [torch.ones(nodes, 1, 1, 1)], False, 1, [nodes, 1, 1]
        )
    torch.testing.assert_close(read.flatten(), every, rtol=0, atol=0, equal_nan=True)

    # Every half-precision number, all that lies midway between two, and what is just beside.
    midway = torch.arange(-(2**15), 2**15) << 16 if dtype == torch.bfloat16 else None
    if midway is None:
        halves = every[every.isfinite()].float()
        midway = torch.cat([halves, (halves[1:] + halves[:-1]) / 2]).view(torch.int32)
    else:
        midway = torch.cat([midway, midway + 2**15])
    wide = torch.cat([midway + step for step in (-1, 0, 1)]).to(torch.int32).view(torch.float32)
    n = wide.numel()
    with forced(instructions):
        rounded = kernels.csr_spread(
            torch.arange(n + 1),
            torch.zeros(n, dtype=torch.long),
            None,
            one.expand(1, channels).contiguous().view(1, 1, channels),
            wide.view(n, 1),
        )
    expected = wide.to(dtype).view(n, 1, 1).expand_as(rounded)
    torch.testing.assert_close(rounded, expected, rtol=0, atol=0, equal_nan=True)


@needs_kernels
@on_each_instruction_set
def test_half_precision_is_rounded_after_the_last_axis(instructions):
    one = torch.ones(1, 1, dtype=torch.bfloat16)
    weights = [torch.full((1, 1, 1, 1), value) for value in (256.0, 1.0, 1.0)]
    with forced(instructions):
        total = kernels.axial_spread(one, weights, False, 1, [1, 1, 1] * 3)
    assert total.item() == 258  # 256 + 1 is 256 in bfloat16.


@needs_kernels
@of_each_type
def test_the_kernels_are_operators_of_pytorch(dtype):
    a, b = torch.randn(2, 12, 5).to(dtype)
    check = {"test_utils": ("test_schema", "test_faketensor")}
    torch.library.opcheck(torch.ops.pyg_avig.axial_pairs, (a, b, [], 2, [1, 3, 2]), **check)
    (weight,) = kernels.axial_pairs(a, b, [], 2, [1, 3, 2])
    pointer, columns = torch.tensor([0, 2, 3]), torch.tensor([1, 0, 1])
    x = torch.randn(2, 1, 5).to(dtype)
    torch.library.opcheck(torch.ops.pyg_avig.csr_pairs, (pointer, columns, x, x, []), **check)
    csr = pointer, columns, None, x, torch.randn(3, 1, dtype=weight.dtype)
    torch.library.opcheck(torch.ops.pyg_avig.csr_spread, csr, **check)
    torch.library.opcheck(
        torch.ops.pyg_avig.axial_spread, (a, [weight], True, 2, [1, 3, 2]), **check
    )


@needs_kernels
def test_flops_are_those_of_the_matrix_products():
    graph = AxialGraph((6, 4), 2, batch_size=3)  # Classes of 3 and 2 nodes.
    x = torch.randn(graph.num_nodes, 2, 5)
    for backend, products in (("axial", 72 * (3 + 2)), ("csr", graph.num_edges)):
        with FlopCounterMode(display=False) as counter:
            cross_attention(x, x, x, graph, torch.ones(2), backend=backend)
        assert counter.get_total_flops() == 2 * 2 * products * 2 * 5


@needs_kernels
def test_the_kernels_refuse_memory_that_does_not_fit():
    x = torch.randn(4, 1, 6)
    pointer, columns = torch.tensor([0, 1, 2, 3, 4]), torch.arange(4)
    for bad in (x.double(), torch.randn(6, 1, 4).transpose(0, 2)):
        with pytest.raises(RuntimeError, match="expected contiguous tensors of torch.float32"):
            kernels.csr_pairs(pointer, columns, x, bad, [])
    with pytest.raises(RuntimeError, match="expected contiguous tensors of torch.int64"):
        kernels.csr_pairs(pointer.int(), columns, x, x, [])
    half = torch.randn(4, 1, 6).bfloat16()
    with pytest.raises(RuntimeError, match="expected contiguous tensors of torch.float32"):
        kernels.csr_spread(pointer, columns, None, half, torch.randn(4, 1).bfloat16())
