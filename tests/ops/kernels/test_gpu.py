"""The kernels for GPUs without a GPU: interpreted by Triton, compiled for GPUs, on fake tensors."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops.serving import needs_triton, serving
from torch.autograd import gradcheck, gradgradcheck

from pyg_avig import AxialGraph
from pyg_avig.ops import EdgeFeatures, cross_attention, kernels, refusal
from pyg_avig.ops.kernels import build, composed, gpu

of_each_type = pytest.mark.parametrize("dtype", build.TYPES)
EDGES = torch.tensor([[0, 1, 2, 2, 0], [1, 1, 1, 0, 3]])
CUDA = torch.device("cuda")


@pytest.fixture
def triton():
    with serving("Triton"):
        yield


@pytest.fixture
def filled_memory():
    """New memory is filled with NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def same(found, expected, dtype):
    """Sums in at least single precision, rounded once."""
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=max(2 * eps, 1e-5), atol=1e-4)


def graph_of(targets, sources, edges, seed=0):
    """Random edges, some twice, whose last target has none."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(targets - 1, (edges,), generator=generator)
    source = torch.randint(sources, (edges,), generator=generator)
    source[1], target[1] = source[0], target[0]
    return torch.stack([source, target])


def csr(edges, targets):
    target, order = edges[1].sort(stable=True)
    pointer = torch.bincount(target, minlength=targets).cumsum(0)
    return torch.cat([pointer.new_zeros(1), pointer]), edges[0][order]


@needs_triton
@of_each_type
@pytest.mark.parametrize(("heads", "channels"), [(1, 1), (1, 130), (2, 48), (3, 7), (9, 1)])
def test_csr_kernels_equal_pytorch(triton, filled_memory, dtype, heads, channels):
    edges = graph_of(5, 7, 100)
    pointer, columns = csr(edges, 5)
    a, b = torch.randn(5, heads, channels).to(dtype), torch.randn(7, heads, channels).to(dtype)
    wide = kernels.weight_dtype(a)
    weight = torch.randn(100, heads, dtype=wide)
    order = torch.randperm(100)
    for scales in ([], [torch.rand(x.shape[:2], dtype=wide) for x in (a, b)]):
        args = pointer, columns, a, b, scales
        same(kernels.csr_pairs(*args), composed.csr_pairs(*args), wide)
    for given_order in (None, order):
        args = pointer, columns, given_order, b, weight
        same(kernels.csr_spread(*args), composed.csr_spread(*args), dtype)


@needs_triton
@of_each_type
@pytest.mark.parametrize(
    ("axes", "channels"),
    [([1, 5, 3, 3, 5, 1], 1), ([1, 5, 3, 3, 5, 1], 7), ([1, 17, 2], 48), ([1, 70, 1], 130)],
)
def test_axial_kernels_equal_pytorch(triton, filled_memory, dtype, axes, channels):
    nodes = 2 * axes[0] * axes[1] * axes[2]
    a, b = torch.randn(2, nodes, channels).to(dtype)
    wide = kernels.weight_dtype(a)
    for scales in ([], list(torch.rand(2, nodes, dtype=wide))):
        args = a, b, scales, 2, axes
        for found, expected in zip(
            kernels.axial_pairs(*args), composed.axial_pairs(*args), strict=True
        ):
            same(found, expected, wide)
    weights = [torch.randn_like(weight) for weight in kernels.axial_pairs(a, b, [], 2, axes)]
    for transpose in (False, True):
        args = a, weights, transpose, 2, axes
        same(kernels.axial_spread(*args), composed.axial_spread(*args), dtype)


@needs_triton
@given(st.lists(st.integers(0, 20), max_size=4), st.integers(1, 9), st.integers(1, 20))
@settings(max_examples=10)
def test_csr_kernels_take_rows_of_any_length(degrees, heads, channels):
    rows = len(degrees)
    pointer = torch.tensor([0, *degrees]).cumsum(0)
    columns = torch.randint(3, (sum(degrees),))
    a, b = torch.randn(rows, heads, channels), torch.randn(3, heads, channels)
    with serving("Triton"):
        found = kernels.csr_pairs(pointer, columns, a, b, [])
        total = kernels.csr_spread(pointer, columns, None, b, found)
    same(found, composed.csr_pairs(pointer, columns, a, b, []), torch.float)
    same(total, composed.csr_spread(pointer, columns, None, b, found), torch.float)


@needs_triton
def test_nothing_in_nothing_out(triton, filled_memory):
    pointer, none = torch.zeros(4, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    x, weight = torch.randn(3, 2, 5), torch.randn(0, 2)
    assert kernels.csr_pairs(pointer, none, x, x, []).shape == (0, 2)
    assert not kernels.csr_spread(pointer, none, None, x, weight).any()
    assert not kernels.csr_spread(pointer, none, None, x[:0], weight).any()
    pointer, column = torch.tensor([0, 1]), torch.tensor([2])
    assert not kernels.csr_pairs(pointer, column, x[:1, :, :0], x[..., :0], []).any()
    assert kernels.csr_spread(pointer[:1], none, None, x, weight).shape == (0, 2, 5)
    (weight,) = kernels.axial_pairs(torch.randn(6, 0), torch.randn(6, 0), [], 1, [1, 3, 2])
    assert not weight.any()
    assert kernels.axial_spread(torch.randn(6, 0), [weight], False, 1, [1, 3, 2]).shape == (6, 0)


@needs_triton
def test_cosines_are_held_to_one_and_nan_stays(triton):
    x = torch.tensor([[1.0, 1.0], [-3.0, 1.0], [torch.nan, 1.0]])
    (found,) = kernels.axial_pairs(x, x, [torch.ones(3)] * 2, 1, [1, 3, 1])
    nan = torch.nan
    expected = torch.tensor([[1, -1, nan], [-1, 1, nan], [nan, nan, nan]])
    torch.testing.assert_close(found[0, 0], expected, equal_nan=True, rtol=0, atol=0)
    rows, columns = torch.arange(3).repeat_interleave(3), torch.arange(3).repeat(3)
    pointer = torch.tensor([0, 3, 6, 9])
    wide = x.unsqueeze(1)
    found = kernels.csr_pairs(pointer, columns, wide, wide, [torch.ones(3, 1)] * 2)
    torch.testing.assert_close(
        found.squeeze(), expected[rows, columns], equal_nan=True, rtol=0, atol=0
    )


@needs_triton
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once_after_the_last_axis(triton, dtype):
    one = torch.ones(1, 1, dtype=dtype)
    large = 2 / torch.finfo(dtype).eps  # To which one adds nothing in half precision.
    weights = [torch.full((1, 1, 1, 1), value) for value in (large, 1.0, 1.0)]
    total = kernels.axial_spread(one, weights, False, 1, [1, 1, 1] * 3)
    assert total.item() == large + 2
    pointer, columns = torch.tensor([0, 3]), torch.zeros(3, dtype=torch.long)
    weight = torch.tensor([large, 1, 1]).view(3, 1)
    total = kernels.csr_spread(pointer, columns, None, one.view(1, 1, 1), weight)
    assert total.item() == large + 2


GRAPHS = {
    "edges": graph_of(8, 15, 100),
    "lattice": AxialGraph((6, 3), (3, 2), batch_size=2),
    "large classes": AxialGraph((1, 19), (1, 5), self_loops=True),
}


@needs_triton
@pytest.mark.parametrize(
    ("affinity", "heads", "channels"),
    [("exponential", 1, 7), ("exponential", 2, 48), ("softmax", 2, 7)],
)
@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_outputs_and_gradients_equal_the_edge_list(triton, graph, heads, channels, affinity):
    lattice = isinstance(graph, AxialGraph)
    targets, sources = (graph.num_nodes,) * 2 if lattice else (8, 15)
    found = []
    inputs = [
        torch.randn(n, heads, channels, dtype=torch.double) for n in (targets, sources, sources)
    ]
    inputs.append(torch.rand(heads, dtype=torch.double))
    for backend in ("axial" if lattice else "csr", "edge_list"):
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = cross_attention(*leaves[:3], graph, leaves[3], affinity, backend=backend)
        first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(x.square().sum() for x in first), leaves)
        found.append([out, *first, *second])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@needs_triton
@pytest.mark.parametrize("graph", [EDGES, AxialGraph((2, 2))], ids=["edges", "lattice"])
def test_gradients_of_any_order(triton, graph):
    inputs = [torch.randn(4, 2, 3, dtype=torch.double).requires_grad_() for _ in range(3)]
    beta = torch.tensor([0.7, 2.5], dtype=torch.double, requires_grad=True)
    backend = "axial" if isinstance(graph, AxialGraph) else "csr"

    def call(query, key, value, beta):
        return cross_attention(query, key, value, graph, beta, backend=backend)

    assert gradcheck(call, (*inputs, beta), fast_mode=True)
    assert gradgradcheck(call, (*inputs, beta), fast_mode=True)


@needs_triton
@pytest.mark.parametrize("width", [2, 60])
def test_edge_features_equal_the_edge_list(triton, width):
    edges = graph_of(8, 15, 100)
    sizes = (8, 2, 48), (15, 2, 48), (15, 2, 48), (100, width), (2, 48, width)
    inputs = [torch.randn(size, dtype=torch.double, requires_grad=True) for size in sizes]
    found = []
    for backend in ("csr", "edge_list"):
        features = EdgeFeatures(*inputs[3:])
        out = cross_attention(
            *inputs[:3], edges, torch.ones(2), edge_features=features, backend=backend
        )
        found.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("graph", [GRAPHS["edges"], GRAPHS["lattice"]], ids=["edges", "lattice"])
def test_half_precision_computes_in_fp32(triton, graph, dtype):
    lattice = isinstance(graph, AxialGraph)
    targets, sources = (graph.num_nodes,) * 2 if lattice else (8, 15)
    inputs = [torch.randn(n, 2, 40).to(dtype) for n in (targets, sources, sources)]
    backend = "axial" if lattice else "csr"
    out = cross_attention(*inputs, graph, torch.ones(2), backend=backend)
    exact = cross_attention(*(x.double() for x in inputs), graph, torch.ones(2).double())
    assert out.dtype == dtype
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), exact, rtol=eps, atol=8 * 1e-5)


@needs_triton
def test_equal_input_gives_equal_output(triton):
    edges = graph_of(8, 15, 100)
    query, key, value = (torch.randn(n, 2, 7, requires_grad=True) for n in (8, 15, 15))

    def call():
        out = cross_attention(query, key, value, edges, torch.ones(2), backend="csr")
        return [out, *torch.autograd.grad(out.square().sum(), (query, key, value))]

    for a, b in zip(call(), call(), strict=True):
        assert torch.equal(a, b)


@needs_triton
def test_dropout_drops_weights(triton):
    value = torch.ones(15, 1, 4)
    query = torch.randn(8, 1, 4)
    edges = graph_of(8, 15, 100)
    args = query, torch.randn(15, 1, 4), value, edges, torch.zeros(1)
    out = cross_attention(*args, dropout=0.5, backend="csr")
    degrees = torch.bincount(edges[1], minlength=8).view(-1, 1, 1)
    assert torch.equal(out, out[..., :1].expand_as(out))  # Weights of one, doubled or dropped.
    assert set((out % 2).flatten().tolist()) == {0}
    assert (out <= 2 * degrees).all()
    assert 0 < out.mean() < 2 * degrees.float().mean()


def test_refusals_say_why(monkeypatch):
    def why(device="cuda", **kwargs):
        return refusal("csr", EDGES, device, **kwargs)

    monkeypatch.delenv("PYG_AVIG_KERNELS", raising=False)
    monkeypatch.setattr(gpu, "_has_triton", lambda: True)
    assert why() is None
    assert "float64, torch.bfloat16, torch.float16 (got torch.complex64)" in why(dtype=torch.cfloat)
    assert "GPUs of CUDA and ROCm (got mps)" in why("mps")
    monkeypatch.setattr(gpu, "_failed", {(torch.device("cuda:1"), torch.float32)})
    assert "failed for torch.float32 on this GPU (the log says why)" in why("cuda:1")
    assert why("cuda:0") is why("cuda:1", dtype=torch.half) is None
    monkeypatch.setattr(gpu, "_has_triton", lambda: False)
    assert "need Triton, which is not installed" in why()
    monkeypatch.setenv("PYG_AVIG_KERNELS", "0")
    assert "PYG_AVIG_KERNELS=0" in why()
    for name in ("is_initialized", "is_current_stream_capturing"):
        monkeypatch.setattr(torch.cuda, name, lambda: True)
    assert "a CUDA graph takes no sorted edges" in why()


@needs_triton
@pytest.mark.parametrize("affinity", ["softmax", "relu", "sigmoid"])
@pytest.mark.parametrize(("name", "graph"), [("csr", EDGES), ("axial", AxialGraph((2, 2)))])
def test_affinities_and_several_sets_of_features(triton, name, graph, affinity):
    def call(query, backend=name):
        key, value = query.sin(), query.cos()
        return cross_attention(query, key, value, graph, beta, affinity, backend=backend)

    beta, sets = torch.tensor([0.7, 2.5]), torch.randn(3, 4, 2, 5, requires_grad=True)
    sets.data[0, 0] = 0  # The cosine with a zero vector is zero.
    found = torch.func.vmap(call)(sets)
    expected = torch.stack([call(x, "edge_list") for x in sets])
    grads = [torch.autograd.grad(out.square().sum(), sets) for out in (found, expected)]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*grads)


def test_tensors_elsewhere_are_no_failure_of_a_kernel(monkeypatch):
    monkeypatch.setattr(gpu, "_failed", set())
    pointer, columns = torch.tensor([0, 1]), torch.tensor([0])
    x = torch.randn(1, 1, 4)
    weight = torch.ones(1, 1, device="meta")
    with pytest.raises(RuntimeError, match=r"csr_spread: expected tensors on one device.*meta"):
        gpu.csr_spread(pointer, columns, None, x, weight)
    assert gpu._failed == set()


def test_grids_that_are_too_high_are_left_to_pytorch(triton, monkeypatch):
    monkeypatch.setattr(gpu, "_MOST", 2)
    monkeypatch.setattr(gpu, "_kernel", lambda name: pytest.fail("launched"))
    pointer, columns = csr(EDGES, 4)
    a, b = torch.randn(4, 3, 130), torch.randn(3, 3, 130)
    args = pointer, columns, a, b, []
    same(kernels.csr_pairs(*args), composed.csr_pairs(*args), a.dtype)


@needs_triton
def test_tf32_is_for_those_who_ask(triton, monkeypatch):
    seen = []
    monkeypatch.setattr(gpu, "_run", lambda name, launches: seen.append(launches[0][2]) or True)
    for asked in ("highest", "high"):
        monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda asked=asked: asked)
        for dtype in (torch.float32, torch.float64):
            kernels.axial_pairs(*torch.randn(2, 4, 1, 3, dtype=dtype), [], 1, [1, 4, 1])
    assert [sizes["PRECISION"] for sizes in seen] == ["ieee", "ieee", "tf32", "ieee"]


@needs_triton
def test_a_kernel_that_fails_leaves_the_work_to_pytorch_once_and_for_all(monkeypatch, caplog):
    tried = []

    def broken(name):
        tried.append(name)
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.delenv("PYG_AVIG_KERNELS", raising=False)
    monkeypatch.setattr(gpu, "_failed", set())
    monkeypatch.setattr(gpu, "_kernel", broken)
    edges, lattice = graph_of(8, 15, 100), AxialGraph((2, 4))
    inputs = [torch.randn(n, 2, 7, requires_grad=True) for n in (8, 15, 15)]
    found, expected = [], []
    with serving("Triton", may_fail=True), caplog.at_level(logging.WARNING):
        for graph, backend in ((edges, "csr"), (lattice, "axial")):
            x = inputs if backend == "csr" else inputs[:1] * 3
            for run, name in ((found, backend), (expected, "edge_list")):
                out = cross_attention(*x, graph, torch.ones(2), backend=name)
                run += [out, *torch.autograd.grad(out.square().sum(), inputs[:1])]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert tried == ["csr_pairs"]
    (record,) = caplog.records
    assert "csr_pairs: Failed to find C compiler" in record.getMessage()
    assert gpu._failed == {(torch.device("cpu"), torch.float32)}


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda 80 32", "hip gfx942 64"])
def test_the_kernels_compile_for_gpus(tmp_path, target):
    script = Path(__file__).with_name("compile_for_gpus.py")
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, str(script), *target.split()]
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert {line["kernel"] for line in found} == set(gpu.OPERATORS)
    for line in found:
        assert line["binary"] > 0
        assert not line["tf32"], line
        assert line["shared"] <= 48 * 1024, line
