import logging
import os
import stat

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from pyg_avig import AxialGraph
from pyg_avig.ops import cross_attention, kernels
from pyg_avig.ops.kernels import build

needs_kernels = pytest.mark.skipif(build.library() is None, reason="no C++ compiler")


@st.composite
def classes(draw):
    """Numbers of graphs, and before, members and inner of two axes of equally many rows."""
    a, b, rest = (draw(st.integers(1, 9)) for _ in range(3))
    return draw(st.integers(0, 3)), [1, a, b * rest, a * b, rest, 1]


def by_einsum(axes, x, n):
    before, members, inner = axes[3 * n : 3 * n + 3]
    return x.view(-1, before, members, inner, x.size(-1)).flatten(0, 1)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(classes(), st.integers(1, 40), st.booleans(), st.booleans())
def test_the_kernels_equal_einsum(dtype, sizes, channels, scaled, transpose):
    graphs, axes = sizes
    nodes = graphs * axes[0] * axes[1] * axes[2]
    a, b = torch.randn(2, nodes, channels, dtype=dtype)
    scales = list(torch.rand(2, nodes, dtype=dtype)) if scaled else []
    torch.use_deterministic_algorithms(True)  # Fills new memory with NaN.
    try:
        weights = kernels.axial_pairs(a, b, scales, graphs, axes)
        total = kernels.axial_spread(a, weights, transpose, graphs, axes)
    finally:
        torch.use_deterministic_algorithms(False)

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
    torch.testing.assert_close(total, expected_total)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(st.data(), st.integers(1, 3), st.integers(1, 80), st.booleans(), st.booleans())
def test_the_csr_kernels_equal_index_select(dtype, data, heads, channels, scaled, ordered):
    degrees = data.draw(st.lists(st.integers(0, 7), min_size=0, max_size=5))
    rows, edges, columns = len(degrees), sum(degrees), 4
    pointer = torch.tensor([0, *degrees]).cumsum(0)
    row = torch.arange(rows).repeat_interleave(torch.tensor(degrees, dtype=torch.long))
    column = torch.randint(columns, (edges,))
    a = torch.randn(rows, heads, channels, dtype=dtype)
    b = torch.randn(columns, heads, channels, dtype=dtype)
    scales = [torch.rand(x.shape[:2], dtype=dtype) for x in (a, b)] if scaled else []
    order = torch.randperm(edges) if ordered else None
    torch.use_deterministic_algorithms(True)  # Fills new memory with NaN.
    try:
        pairs = kernels.csr_pairs(pointer, column, a, b, scales)
        weight = torch.randn(edges, heads, dtype=dtype)
        total = kernels.csr_spread(pointer, column, order, b, weight)
    finally:
        torch.use_deterministic_algorithms(False)
    expected = (a[row] * b[column]).sum(-1)
    if scaled:
        expected = (expected * scales[0][row] * scales[1][column]).clamp(-1, 1)
    torch.testing.assert_close(pairs, expected)
    mine = weight if order is None else weight[order]
    expected = torch.zeros_like(a).index_add(0, row, mine.unsqueeze(-1) * b[column])
    torch.testing.assert_close(total, expected)


@needs_kernels
def test_the_kernels_are_operators_of_pytorch():
    a, b = torch.randn(2, 12, 5)
    check = {"test_utils": ("test_schema", "test_faketensor")}
    torch.library.opcheck(torch.ops.pyg_avig.axial_pairs, (a, b, [], 2, [1, 3, 2]), **check)
    (weight,) = kernels.axial_pairs(a, b, [], 2, [1, 3, 2])
    pointer, columns = torch.tensor([0, 2, 3]), torch.tensor([1, 0, 1])
    x = torch.randn(2, 1, 5)
    torch.library.opcheck(torch.ops.pyg_avig.csr_pairs, (pointer, columns, x, x, []), **check)
    csr = pointer, columns, None, x, torch.randn(3, 1)
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


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.library.cache_clear()
    yield tmp_path
    build.library.cache_clear()


@needs_kernels
def test_the_library_is_compiled_once(fresh_cache):
    assert build.library() is not None
    (built,) = fresh_cache.rglob("*.so")
    written = built.stat().st_mtime_ns
    build.library.cache_clear()
    assert build.library() is not None
    assert built.stat().st_mtime_ns == written
    assert list(fresh_cache.rglob("*.so")) == [built]


@pytest.mark.parametrize("compiler", ["broken", "none"])
def test_without_a_compiler_pytorch_serves_and_the_log_says_so(
    fresh_cache, monkeypatch, caplog, compiler
):
    script = fresh_cache / "broken"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho no OpenMP >&2\nexit 1\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(script) if compiler == "broken" else str(fresh_cache / "none"))
    graph = AxialGraph((4, 4), 2)
    x = torch.randn(16, 1, 3)
    with caplog.at_level(logging.WARNING):
        out = cross_attention(x, x, x, graph, torch.ones(1))
    assert build.library() is None
    assert ("no OpenMP" if compiler == "broken" else "No such file") in caplog.text
    assert not list(fresh_cache.rglob("*.so"))
    expected = cross_attention(x, x, x, graph.edge_index, torch.ones(1))
    torch.testing.assert_close(out, expected)


def test_the_kernels_can_be_switched_off(fresh_cache, monkeypatch):
    monkeypatch.setenv("PYG_AVIG_KERNELS", "0")
    assert build.library() is None
    assert os.listdir(fresh_cache) == []


@needs_kernels
def test_the_kernels_refuse_memory_that_does_not_fit():
    x = torch.randn(4, 1, 6)
    pointer, columns = torch.tensor([0, 1, 2, 3, 4]), torch.arange(4)
    for bad in (x.double(), torch.randn(6, 1, 4).transpose(0, 2)):
        with pytest.raises(RuntimeError, match="expected contiguous tensors of torch.float32"):
            kernels.csr_pairs(pointer, columns, x, bad, [])
    with pytest.raises(RuntimeError, match="indices of int64"):
        kernels.csr_pairs(pointer.int(), columns, x, x, [])


@needs_kernels
def test_a_broken_library_in_the_cache_is_built_again(fresh_cache):
    built = build._compiled()
    built.write_bytes(b"broken")
    assert build.library() is not None
    assert built.stat().st_size > 1000
