import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch_geometric import EdgeIndex

from pyg_avig import AxialGraph, InputError
from pyg_avig.ops import (
    EdgeFeatures,
    affinity,
    affinity_names,
    backends,
    cross_attention,
    refusal,
    use_backend,
)
from pyg_avig.ops.kernels.build import library


def by_the_equations(query, key, value, edge_index, beta, affinity):
    """A loop over nodes, heads and neighbours."""
    out = torch.zeros(len(query), *value.shape[1:], dtype=value.dtype)
    for i in range(len(query)):
        neighbors = edge_index[0][edge_index[1] == i].tolist()
        for h in range(query.size(1)):
            weights = []
            for j in neighbors:
                q, k = query[i, h], key[j, h]
                s = q.dot(k) / (q.dot(q).sqrt() * k.dot(k).sqrt())
                weights.append(math.exp(-beta[h] * (1 - s)))
            total = sum(weights) if affinity == "softmax" else 1.0
            for j, weight in zip(neighbors, weights, strict=True):
                out[i, h] += weight / total * value[j, h]
    return out


def random_input(num_targets, num_sources, heads=2, channels=3, **kwargs):
    kwargs = {"dtype": torch.double, **kwargs}
    return (
        torch.randn(num_targets, heads, channels, **kwargs),
        torch.randn(num_sources, heads, channels, **kwargs),
        torch.randn(num_sources, heads, channels + 1, **kwargs),
    )


@pytest.fixture(autouse=True, scope="module", params=["C++ kernels", "PyTorch's products"])
def kernels(request):
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "C++ kernels":
            patch.setattr("pyg_avig.ops.kernels.library", lambda: None)
        elif library() is None:
            pytest.skip("no C++ compiler")
        yield


BETA = torch.tensor([0.7, 2.5], dtype=torch.double)
EDGES = torch.tensor([[0, 1, 2, 2, 0], [1, 1, 1, 0, 3]])
SMALL = {"axial": AxialGraph((2, 2)), "csr": EDGES, "edge_list": EDGES}


def on_every_path(size, stride=1):
    """Parametrize a test by each backend and a graph that it is made for."""
    graph = AxialGraph(size, stride)
    graphs = {"axial": graph, "csr": graph.edge_index, "edge_list": graph.edge_index}
    return pytest.mark.parametrize(("backend", "graph"), graphs.items(), ids=graphs)


@pytest.fixture(autouse=True)
def _only_where_it_runs(request):
    params = getattr(request.node, "callspec", None)
    if params and params.params.get("backend") == "csr" and (reason := refusal("csr", EDGES)):
        pytest.skip(reason)


@pytest.mark.parametrize("backend", ["csr", "edge_list"])
@pytest.mark.parametrize("affinity", ["exponential", "softmax"])
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 12))
def test_edge_lists_equal_the_equations(backend, affinity, num_targets, num_sources, num_edges):
    query, key, value = random_input(num_targets, num_sources)
    # Duplicate edges and isolated nodes come up too.
    edge_index = torch.stack(
        [torch.randint(num_sources, (num_edges,)), torch.randint(num_targets, (num_edges,))]
    )
    out = cross_attention(query, key, value, edge_index, BETA, affinity, backend=backend)
    assert torch.allclose(
        out, by_the_equations(query, key, value, edge_index, BETA, affinity), atol=1e-12
    )


@pytest.mark.parametrize("affinity", affinity_names())
@given(st.data())
def test_every_backend_equals_the_edge_list_on_lattices(affinity, data):
    size = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    stride = tuple(data.draw(st.integers(1, 7)) for _ in size)
    loops = data.draw(st.booleans())
    graph = AxialGraph(size, stride, data.draw(st.integers(1, 2)), self_loops=loops)
    inputs = [
        x.requires_grad_() for x in (*random_input(graph.num_nodes, graph.num_nodes), BETA.clone())
    ]
    outputs = {}
    for backend in [b for b in backends() if refusal(b, graph) is None]:
        out = cross_attention(*inputs[:3], graph, inputs[3], affinity, backend=backend)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        grads = (
            torch.autograd.grad((out * weights).sum(), inputs)
            if out.requires_grad
            else [torch.zeros_like(x) for x in inputs]
        )
        outputs[backend] = [out, *grads]
    assert len(outputs) > 1
    for backend, found in outputs.items():
        for a, b in zip(found, outputs["edge_list"], strict=True):
            assert torch.allclose(a, b, atol=1e-10), backend


@pytest.mark.parametrize("affinity", affinity_names())
@pytest.mark.parametrize(("backend", "graph"), SMALL.items(), ids=SMALL)
def test_gradcheck(backend, graph, affinity):
    inputs = [x.requires_grad_() for x in (*random_input(4, 4), BETA.clone())]
    assert gradcheck(
        lambda q, k, v, b: cross_attention(q, k, v, graph, b, affinity, backend=backend), inputs
    )


@pytest.mark.parametrize(("backend", "graph"), SMALL.items(), ids=SMALL)
def test_gradients_have_gradients(backend, graph):
    """As a force field needs them."""
    inputs = [x.requires_grad_() for x in (*random_input(4, 4), BETA.clone())]
    assert gradgradcheck(
        lambda q, k, v, b: cross_attention(q, k, v, graph, b, backend=backend), inputs
    )


@on_every_path(2)
def test_zero_vectors_have_similarity_zero_and_finite_gradients(backend, graph):
    query, key, value = (x.float() for x in random_input(2, 2, heads=1))
    query[0], key[1] = 0, 0
    query.requires_grad_()
    key.requires_grad_()
    beta = torch.tensor([2.0])
    out = cross_attention(query, key, value, graph, beta, backend=backend)
    assert torch.allclose(out[0], math.exp(-2) * value[1])
    out.sum().backward()
    assert query.grad.isfinite().all()
    assert key.grad.isfinite().all()
    assert not query.grad[0].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@on_every_path((4, 4), 2)
def test_half_precision_computes_weights_in_fp32(backend, graph, dtype):
    query, key, value = (x.to(dtype) for x in random_input(16, 16, heads=1))
    out = cross_attention(query, key, value, graph, torch.tensor([3.0]), backend=backend)
    exact = cross_attention(
        query.double(), key.double(), value.double(), graph, torch.tensor([3.0])
    )
    assert out.dtype == dtype
    assert torch.allclose(out.double(), exact, rtol=0, atol=8 * torch.finfo(dtype).eps)


@on_every_path((3, 3))
def test_dropout_keeps_the_mean(backend, graph):
    query, key, value = random_input(9, 9, heads=1)
    args = query, key, value.abs(), graph, BETA[:1]
    runs = torch.stack([cross_attention(*args, dropout=0.5, backend=backend) for _ in range(2000)])
    exact = cross_attention(*args)
    assert runs.std(0).min() > 0
    assert torch.allclose(runs.mean(0), exact, rtol=0.15)


@on_every_path((3, 3))
def test_rounding_takes_no_weight_past_one(backend, graph):
    query, _, _ = (x.float() for x in random_input(9, 9, heads=1, channels=7))
    query = query[:1].expand(9, -1, -1).contiguous()
    ones = torch.ones(9, 1, 1)
    out = cross_attention(query, query, ones, graph, torch.tensor([100.0]), backend=backend)
    assert (out <= 4).all()


def test_an_affinity_that_sums_must_say_so(monkeypatch):
    def selfish(similarity, beta, neighbors):
        return similarity / neighbors.sum(similarity)

    monkeypatch.setitem(affinity._AFFINITIES, "selfish", affinity.Affinity(selfish, False))
    query, key, value = random_input(4, 4)
    with pytest.raises(InputError, match="competes=True"):
        cross_attention(query, key, value, AxialGraph((2, 2)), BETA, "selfish", backend="axial")


def test_a_forced_backend_says_why_it_refuses():
    query, key, value = random_input(2, 2)
    edge_index = torch.tensor([[0], [1]])
    with pytest.raises(InputError, match="'axial' cannot run here: it takes an AxialGraph"):
        cross_attention(query, key, value, edge_index, BETA, backend="axial")
    with pytest.raises(InputError, match="backend must be one of"):
        cross_attention(query, key, value, edge_index, BETA, backend="magic")


def test_bad_shapes_are_named():
    query, key, value = random_input(2, 2)
    with pytest.raises(InputError, match=r"got query \(2, 2, 3\), key \(2, 2, 2\)"):
        cross_attention(query, key[..., :2], value, AxialGraph(2), BETA)
    with pytest.raises(InputError, match=r"features of 4 nodes.*\(got 2\)"):
        cross_attention(query, key, value, AxialGraph((2, 2)), BETA)


@pytest.mark.parametrize("bad", [-1, 2])
def test_out_of_range_index_names_the_range(bad):
    query, key, value = random_input(2, 2)
    with pytest.raises(IndexError, match=rf"\[0, 2\), the source nodes \(got values.*{bad}"):
        cross_attention(query, key, value, torch.tensor([[bad], [0]]), BETA)


@pytest.mark.parametrize(
    "bad", [torch.zeros(3, 4).long(), torch.zeros(2, 4), torch.zeros(2).long()]
)
def test_what_is_no_edge_list_is_refused(bad):
    query, key, value = random_input(2, 2)
    with pytest.raises(InputError, match=r"integer (tensor of shape \(2, E\)|dtype)"):
        cross_attention(query, key, value, bad, BETA)


@pytest.mark.parametrize("backend", ["csr"])
@pytest.mark.parametrize("affinity", ["exponential", "softmax"])
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 12), st.integers(1, 4))
def test_edge_features_equal_the_edge_list(
    backend, affinity, num_targets, num_sources, num_edges, width
):
    query, key, _ = random_input(num_targets, num_sources)
    value = torch.randn_like(key)
    edge_index = torch.stack(
        [torch.randint(num_sources, (num_edges,)), torch.randint(num_targets, (num_edges,))]
    )
    attr = torch.randn(num_edges, width, dtype=torch.double)
    features = EdgeFeatures(attr, torch.randn(2, 3, width, dtype=torch.double))
    sparse, expected = (
        cross_attention(
            query, key, value, edge_index, BETA, affinity, edge_features=features, backend=b
        )
        for b in (backend, "edge_list")
    )
    assert torch.allclose(sparse, expected, atol=1e-12)


@pytest.mark.parametrize("backend", ["csr", "edge_list"])
@pytest.mark.parametrize("affinity", ["exponential", "softmax"])
def test_gradients_with_edge_features(backend, affinity):
    edge_index = torch.tensor([[0, 2, 1, 0, 0], [1, 1, 0, 2, 1]])
    inputs = [x.requires_grad_() for x in random_input(3, 3)[:2]]
    inputs += [torch.randn_like(inputs[1]).requires_grad_()]
    inputs += [
        torch.randn(size, dtype=torch.double, requires_grad=True) for size in ((5, 2), (2, 3, 2))
    ]

    def call(query, key, value, attr, projection):
        features = EdgeFeatures(attr, projection)
        return cross_attention(
            query, key, value, edge_index, BETA, affinity, edge_features=features, backend=backend
        )

    assert gradcheck(call, inputs)
    assert gradgradcheck(call, inputs)


@pytest.mark.parametrize("backend", ["csr", "edge_list"])
def test_an_edge_feature_that_cancels_its_key_has_similarity_zero(backend):
    key = torch.randn(2, 1, 3)
    features = EdgeFeatures(-key[0], torch.eye(3).unsqueeze(0))
    edges = torch.tensor([[0], [1]])
    out = cross_attention(
        key, key, key, edges, torch.ones(1), edge_features=features, backend=backend
    )
    assert torch.equal(out, torch.zeros_like(out))  # The value is cancelled too.


@pytest.mark.parametrize(
    ("attr", "projection", "message"),
    [
        ((4, 2), (1, 3, 2), "features of 3 edges.*4, 2"),
        ((3, 2), (1, 3, 5), r"edge_features .*\(3, 2\), \(1, 3, 5\)"),
    ],
)
@pytest.mark.parametrize("backend", ["csr", "edge_list"])
def test_edge_features_that_do_not_fit_are_named(attr, projection, message, backend):
    x, edge_index = torch.randn(3, 1, 3), torch.tensor([[0, 1, 2], [1, 2, 0]])
    features = EdgeFeatures(torch.randn(attr), torch.randn(projection))
    with pytest.raises(InputError, match=message):
        cross_attention(x, x, x, edge_index, torch.ones(1), edge_features=features, backend=backend)


def test_a_lattice_with_edge_features_goes_by_its_edges():
    graph = AxialGraph((3, 4))
    x = torch.randn(12, 1, 3)
    features = EdgeFeatures(torch.randn(graph.num_edges, 2), torch.randn(1, 3, 2))
    assert "single edges" in refusal("axial", graph, edge_features=True)
    out, expected = (
        cross_attention(x, x, x, g, torch.ones(1), edge_features=features)
        for g in (graph, graph.edge_index)
    )
    assert torch.equal(out, expected)


@pytest.mark.parametrize("backend", ["csr"])
def test_edge_features_that_all_but_cancel_keys_round_as_the_edge_list_does(backend):
    torch.manual_seed(0)
    edge_index = torch.randint(200, (2, 2000))
    x = torch.randn(3, 200, 4, 3)
    attr, projection = torch.randn(2000, 2), torch.randn(4, 3, 2)
    # Some features leave a thousandth of their key.
    attr[:50] = 0
    attr[:50, 0] = 1
    projection[0, :, 0] = -x[1, 0, 0] * 0.999
    edge_index[0, :50] = 0
    results = {}
    for name, dtype in ((backend, torch.float), ("edge_list", torch.float), ("edge_list", None)):
        inputs = [t.to(dtype or torch.double).requires_grad_() for t in (*x, attr, projection)]
        features = EdgeFeatures(*inputs[3:])
        beta = torch.ones(4, dtype=inputs[0].dtype)
        args = *inputs[:3], edge_index, beta
        out = cross_attention(*args, edge_features=features, backend=name)
        results[name, dtype] = [out, *torch.autograd.grad(out.square().sum(), inputs)]
    truth = results["edge_list", None]
    for mine, reference, true in zip(
        results[backend, torch.float], results["edge_list", torch.float], truth, strict=True
    ):
        error, usual = ((y.double() - true).norm() / true.norm() for y in (mine, reference))
        assert error < max(10 * usual, 1e-5)


@pytest.mark.parametrize("backend", ["csr"])
@pytest.mark.parametrize("strided", [lambda e: e.t().contiguous().t(), lambda e: e[:, ::2]])
def test_edges_lie_in_memory_as_they_like(backend, strided):
    edges = torch.tensor([[0, 1, 2, 3, 1, 0], [1, 1, 2, 2, 3, 3]])
    edges = strided(edges)
    x = torch.randn(4, 1, 8)
    out, expected = (
        cross_attention(x, x, x, edges, torch.ones(1), backend=b) for b in (backend, "edge_list")
    )
    torch.testing.assert_close(out, expected)


@on_every_path((3, 4))
def test_query_and_key_of_different_precision(backend, graph):
    x = torch.randn(12, 1, 5)
    expected = cross_attention(x, x, x, graph, torch.ones(1))
    for query, key in ((x.double(), x), (x, x.double())):
        out = cross_attention(query, key, x, graph, torch.ones(1), backend=backend)
        assert out.dtype == torch.float
        torch.testing.assert_close(out, expected)


@on_every_path((3, 4))
def test_no_channels_and_no_neighbours(backend, graph):
    x = torch.randn(12, 1, 5, requires_grad=True)
    none = x[..., :0]
    out, expected = (
        cross_attention(none, none, x, graph, torch.ones(1), backend=b) for b in (backend, None)
    )
    torch.testing.assert_close(out, expected)
    alone = cross_attention(x, x, x, AxialGraph((3, 4), 9), torch.ones(1), backend=backend)
    alone.sum().backward()
    assert not alone.any()
    assert not x.grad.any()


@pytest.mark.parametrize("backend", ["csr"])
def test_an_edge_index_without_a_size_is_left_as_it_is(backend):
    edges = EdgeIndex([[0, 1, 1], [1, 2, 3]], sort_order="col")
    x = torch.randn(6, 1, 5, requires_grad=True)
    first, second = (
        cross_attention(x, x, x, edges, torch.ones(1), backend=backend) for _ in range(2)
    )
    first.sum().backward()
    assert edges.sparse_size() == (None, None)
    assert torch.equal(first, second)


def lying_edge_indices():
    edges = torch.tensor([[0, 1, 2, 3, 1, 0, 4], [1, 1, 2, 2, 3, 3, 0]])
    size = {"sparse_size": (5, 5)}
    yield "unsorted", EdgeIndex(edges, sort_order="col", **size)
    yield "unsorted by row", EdgeIndex(edges, sort_order="row", **size)
    yield (
        "not undirected",
        EdgeIndex(edges.roll(1, 1), sort_order="col", is_undirected=True, **size),
    )
    pointer = EdgeIndex(edges.roll(1, 1), sort_order="col", **size).fill_cache_()
    pointer._indptr = pointer._indptr.roll(1)
    pointer._T_indptr = pointer._T_indptr.roll(1)
    yield "another pointer", pointer
    for name, order in (
        ("another order", lambda order: order.flip(0)),
        ("an edge twice", lambda order: order[[0, 0, 2, 3, 4, 5, 6]]),
        ("out of range", lambda order: order + 1),
        ("too short", lambda order: order[:3]),
    ):
        index = EdgeIndex(edges.roll(1, 1), sort_order="col", **size).fill_cache_()
        index._T_perm = order(index._T_perm)
        yield name, index


@pytest.mark.parametrize("backend", ["csr"])
@pytest.mark.parametrize("index", [pytest.param(i, id=name) for name, i in lying_edge_indices()])
def test_what_an_edge_index_says_of_its_order_is_looked_after(backend, index):
    inputs = [x.requires_grad_() for x in random_input(5, 5)]
    found = []
    for graph, name in ((index, backend), (index.as_tensor(), "edge_list")):
        out = cross_attention(*inputs, graph, BETA, backend=name)
        found.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("backend", ["csr"])
def test_a_sorted_edge_index_sorts_once(backend, monkeypatch):
    edges, _ = EdgeIndex(torch.randint(9, (2, 40)), sparse_size=(9, 9)).sort_by("col")
    x = torch.randn(9, 1, 4, requires_grad=True)
    cross_attention(x, x, x, edges, torch.ones(1), backend=backend).sum().backward()
    monkeypatch.setattr(torch.Tensor, "sort", None)
    cross_attention(x, x, x, edges, torch.ones(1), backend=backend).sum().backward()


@pytest.fixture
def ran(monkeypatch):
    """The names of the backends that ran, in turn."""
    module = sys.modules["pyg_avig.ops.cross_attention"]
    names = []
    for name, function in module._BACKENDS.items():

        def spy(*args, name=name, function=function):
            names.append(name)
            return function(*args)

        monkeypatch.setitem(module._BACKENDS, name, spy)
    return names


MOLECULE = torch.randint(20, (2, 40))
LARGE = torch.randint(500, (2, 8000))


@pytest.mark.parametrize(
    ("graph", "channels", "cheapest"),
    [
        pytest.param(MOLECULE, 64, "edge_list", id="molecule"),
        pytest.param(LARGE, 4, "edge_list", id="few channels"),
        pytest.param(LARGE, 64, "csr", id="large"),
        pytest.param(AxialGraph((14, 14), 2, 4), 64, "axial", id="complete classes"),
        pytest.param(AxialGraph((20, 30), (8, 4), 8), 64, "axial", id="classes modulo gcd"),
        pytest.param(AxialGraph(1023, 100), 64, "csr", id="sparse classes"),
        pytest.param(AxialGraph((2, 2)), 8, "edge_list", id="tiny lattice"),
        pytest.param(AxialGraph(100), 4, "axial", id="many edges to build"),
    ],
)
def test_the_cheapest_backend_runs(graph, channels, cheapest, ran):
    nodes = graph.num_nodes if isinstance(graph, AxialGraph) else int(graph.max()) + 1
    x = torch.randn(nodes, 1, channels)
    cross_attention(x, x, x, graph, torch.ones(1))
    if cheapest == "csr" and refusal("csr", graph):
        cheapest = "edge_list"
    assert ran == [cheapest]


def test_sparse_classes_take_little_memory():
    """Features and edges, where the class of 8191 would take 8191 squared numbers."""
    graph = AxialGraph(8191, 512)
    x = torch.randn(8191, 1, 8, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        cross_attention(x, x, x, graph, torch.ones(1))
    assert 0 < max(kept) <= graph.num_edges * 8


def test_a_backend_can_be_forced_for_all_that_is_called(ran):
    inputs = random_input(4, 4)
    graph = AxialGraph((2, 2))
    with use_backend("axial"):
        cross_attention(*inputs, graph, BETA)
        with use_backend("edge_list"):
            cross_attention(*inputs, graph, BETA)
        cross_attention(*inputs, graph, BETA, backend="edge_list")
        cross_attention(*inputs, graph, BETA)
        with pytest.raises(InputError, match="'axial' cannot run here: it takes an AxialGraph"):
            cross_attention(*inputs, EDGES, BETA)
    assert ran == ["axial", "edge_list", "edge_list", "axial"]
    with pytest.raises(InputError, match="backend must be one of.*magic"), use_backend("magic"):
        pass


def test_without_kernels_csr_says_so(monkeypatch):
    monkeypatch.setattr("pyg_avig.ops.kernels.library", lambda: None)
    assert "no kernels" in refusal("csr", EDGES)
    with pytest.raises(InputError, match="'csr' cannot run here: there are no kernels"):
        cross_attention(*random_input(4, 4), EDGES, BETA, backend="csr")
