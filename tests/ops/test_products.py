"""What PyTorch's transforms make of the operator, on every path."""

import pytest
import torch
from torch import func
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch.autograd import forward_ad, functional, gradcheck, gradgradcheck
from torch.utils._pytree import tree_flatten
from torch.utils.checkpoint import checkpoint

from pyg_avig import AxialGraph, InputError
from pyg_avig.ops import EdgeFeatures, affinity_names, cross_attention, refusal

EDGES = torch.tensor([[0, 1, 2, 2, 0], [1, 1, 1, 0, 3]])
BETA = torch.tensor([0.7, 2.5], dtype=torch.double)


@pytest.fixture(params=["axial", "axial without kernels", "csr", "edge_list"])
def path(request, monkeypatch):
    """A backend and a graph of four nodes."""
    if request.param == "axial without kernels":
        monkeypatch.setattr("pyg_avig.ops.kernels.library", lambda: None)
    backend = request.param.split()[0]
    graph = AxialGraph((2, 2)) if backend == "axial" else EDGES
    if (reason := refusal(backend, graph)) is not None:
        pytest.skip(reason)
    return backend, graph


@pytest.fixture
def call(path):
    """The operator on the path, of query, key, value and beta."""
    backend, graph = path

    def call(query, key, value, beta=BETA, affinity="exponential"):
        return cross_attention(query, key, value, graph, beta, affinity, backend=backend)

    return call


@pytest.fixture
def truth(path):
    """The operator over the edge list."""
    graph = path[1]

    def truth(query, key, value, beta=BETA, affinity="exponential"):
        return cross_attention(query, key, value, graph, beta, affinity, backend="edge_list")

    return truth


def random(*sets):
    return [torch.randn(*sets, 4, 2, 3, dtype=torch.double) for _ in range(3)]


def same(found, expected):
    found, expected = tree_flatten(found)[0], tree_flatten(expected)[0]
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


TRANSFORMS = {
    "jacrev": func.jacrev,
    "jacfwd": func.jacfwd,
    "hessian": func.hessian,
    "jacfwd of jacfwd": lambda f, **args: func.jacfwd(func.jacfwd(f, **args), **args),
    "jacrev of jacfwd": lambda f, **args: func.jacrev(func.jacfwd(f, **args), **args),
    "jacrev of jacrev": lambda f, **args: func.jacrev(func.jacrev(f, **args), **args),
}


@pytest.mark.parametrize("affinity", affinity_names())
@pytest.mark.parametrize("name", TRANSFORMS)
def test_jacobians_and_hessians(call, truth, name, affinity):
    def scalar(f):
        return lambda *x: f(*x, affinity=affinity).square().sum()

    inputs = (*random(), BETA)
    everything = {"argnums": (0, 1, 2, 3)}
    found = TRANSFORMS[name](scalar(call), **everything)(*inputs)
    # The truth by reverse mode alone, without torch.func.
    first = torch.autograd.functional.jacobian
    expected = (first if name in ("jacrev", "jacfwd") else functional.hessian)(
        scalar(truth), inputs
    )
    same(found, expected)


@pytest.mark.parametrize("affinity", affinity_names())
def test_vmap_over_features(call, truth, affinity):
    query, key, value = random(5)

    def one_by_one(*in_dims):
        parts = [
            [
                x[i] if dim == 0 else x[0]
                for x, dim in zip((query, key, value), in_dims, strict=True)
            ]
            for i in range(5)
        ]
        return torch.stack([truth(*part, affinity=affinity) for part in parts])

    for in_dims in ((0, 0, 0), (0, None, None), (None, 0, None), (None, None, 0)):
        given = [
            x if dim == 0 else x[0] for x, dim in zip((query, key, value), in_dims, strict=True)
        ]
        mapped = func.vmap(lambda *x: call(*x, affinity=affinity), in_dims)
        same(mapped(*given), one_by_one(*in_dims))


def test_vmap_over_any_axis_in_any_depth(call, truth):
    query, key, value = random(5)
    moved = func.vmap(call, in_dims=(1, 2, -1), out_dims=1)
    inputs = query.movedim(0, 1), key.movedim(0, 2), value.movedim(0, -1)
    same(moved(*inputs), torch.stack([truth(*x) for x in zip(query, key, value, strict=True)], 1))
    pairs = func.vmap(func.vmap(call, in_dims=(0, None, None)), in_dims=(None, 0, None))
    expected = torch.stack([torch.stack([truth(q, k, value[0]) for q in query]) for k in key])
    same(pairs(query, key, value[0]), expected)


def test_vmap_over_edges():
    inputs = random()
    edges = torch.randint(4, (3, 2, 20_000))  # So many that one set would be sorted.
    mapped = func.vmap(lambda index: cross_attention(*inputs, index, BETA))
    expected = [cross_attention(*inputs, index, BETA, backend="edge_list") for index in edges]
    same(mapped(edges), torch.stack(expected))
    with pytest.raises(InputError, match="vmap maps over the edges"):
        func.vmap(lambda index: cross_attention(*inputs, index, BETA, backend="csr"))(edges)


def test_gradients_of_each_sample(call, truth):
    def gradients(f):
        return func.grad(lambda *x: f(*x).square().sum(), argnums=(0, 1, 2, 3))

    query, key, value = random(5)
    found = func.vmap(gradients(call), in_dims=(0, None, 0, None))(query, key[0], value, BETA)
    expected = [
        torch.stack(x)
        for x in zip(
            *(gradients(truth)(q, key[0], v, BETA) for q, v in zip(query, value, strict=True)),
            strict=True,
        )
    ]
    same(found, expected)


def test_vjp_and_jvp(call, truth):
    inputs, tangents = (*random(), BETA), (*random(), torch.ones_like(BETA))
    same(func.jvp(call, inputs, tangents), func.jvp(truth, inputs, tangents))
    (out, found), (_, expected) = func.vjp(call, *inputs), func.vjp(truth, *inputs)
    same(found(torch.ones_like(out)), expected(torch.ones_like(out)))


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")
def test_linearize_equals_jvp(call, path):
    inputs, tangents = tuple(random()), tuple(random())
    if path[0] == "csr":
        with pytest.raises(InputError, match="traced program"):
            func.linearize(call, *inputs)
    else:
        out, pushforward = func.linearize(call, *inputs)
        same((out, pushforward(*tangents)), func.jvp(call, inputs, tangents))


@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
def test_vectorized_jacobian(call, truth, strategy):
    inputs = (*random(), BETA)
    found = functional.jacobian(call, inputs, vectorize=True, strategy=strategy)
    same(found, functional.jacobian(truth, inputs))


@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
def test_vectorized_hessian(call, truth, strategy):
    inputs = (*random(), BETA)
    found = functional.hessian(
        lambda *x: call(*x).square().sum(),
        inputs,
        vectorize=True,
        outer_jacobian_strategy=strategy,
    )
    same(found, functional.hessian(lambda *x: truth(*x).square().sum(), inputs))


def test_batched_gradients(call):
    inputs = [x.requires_grad_() for x in random()]
    out = call(*inputs)
    several = torch.randn(6, *out.shape, dtype=out.dtype)
    found = torch.autograd.grad(out, inputs, several, is_grads_batched=True, retain_graph=True)
    one_by_one = [torch.autograd.grad(out, inputs, g, retain_graph=True) for g in several]
    same(found, [torch.stack(x) for x in zip(*one_by_one, strict=True)])


def test_every_mode_of_autograd_agrees(call):
    inputs = [x.requires_grad_() for x in (*random(), BETA.clone())]
    assert gradcheck(
        call,
        inputs,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )
    assert gradgradcheck(
        call, inputs, check_fwd_over_rev=True, check_rev_over_rev=True, check_batched_grad=True
    )


def test_a_tangent_of_gradients_whose_forward_is_past(call):
    inputs = [x.requires_grad_() for x in random()]
    out = call(*inputs)
    primal, tangent = torch.randn(2, *out.shape, dtype=out.dtype)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(primal, tangent)
        grads = torch.autograd.grad(out, inputs, dual, retain_graph=True)
        found = [forward_ad.unpack_dual(grad).tangent for grad in grads]
    same(found, torch.autograd.grad(out, inputs, tangent))


@pytest.mark.parametrize("width", [2, 5])
def test_edge_features(path, width):
    backend, graph = path
    if backend == "axial":
        return  # It takes none.
    features = torch.randn(5, width, dtype=torch.double), torch.randn(2, 3, width).double()

    def call(backend):
        def f(query, key, value, *features):
            features = EdgeFeatures(*features)
            return cross_attention(
                query, key, value, graph, BETA, edge_features=features, backend=backend
            ).square()

        return f

    inputs = (*random(), *features)
    everything = {"argnums": tuple(range(5))}
    for transform in (func.jacrev, func.jacfwd):
        same(
            transform(call(backend), **everything)(*inputs),
            functional.jacobian(call("edge_list"), inputs),
        )
    found = functional.jacobian(call(backend), inputs, vectorize=True)
    same(found, functional.jacobian(call("edge_list"), inputs))
    query, key, value = random(4)
    mapped = func.vmap(call(backend), (0, 0, 0, None, None))(query, key, value, *features)
    expected = [call("edge_list")(*x, *features) for x in zip(query, key, value, strict=True)]
    same(mapped, torch.stack(expected))


@pytest.mark.parametrize("name", ["hessian", "jacfwd of jacfwd", "jacrev of jacrev"])
def test_second_derivatives_of_parallel_vectors(call, name):
    """Rounding takes their cosine past 1; a clamp there would cut the second derivative to 0."""
    vector = torch.tensor([0.1, 0.2, 0.7], dtype=torch.double)
    key = vector.expand(4, 2, 3)

    def loss(query):
        # Weights of exp(s - 1), of values one.
        return call(query.expand(4, 2, 3), key, torch.ones_like(key), torch.ones_like(BETA)).sum()

    # By hand: s = 1 - |d|^2 / (2 |v|^2) for a small d across v.
    across = torch.eye(3, dtype=torch.double) - torch.outer(vector, vector) / vector.dot(vector)
    edges = 8 if isinstance(call.__closure__[1].cell_contents, AxialGraph) else 5
    expected = -across / vector.dot(vector) * edges * 2 * 3
    for scale in (1, 3, 7):  # Of which some round past 1 and some do not.
        found = TRANSFORMS[name](loss)(vector * scale)
        torch.testing.assert_close(found, expected / scale**2, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_backward_within_autocast_keeps_its_precision(call, dtype):
    inputs = [x.float().requires_grad_() for x in random()]
    beta = BETA.float()
    expected = torch.autograd.grad(call(*inputs, beta).square().sum(), inputs)
    with torch.autocast("cpu", dtype):
        found = torch.autograd.grad(call(*inputs, beta).square().sum(), inputs)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("width", [2, 5])
def test_backward_within_autocast_keeps_the_precision_of_edge_features(path, width):
    backend, graph = path
    if backend != "csr":
        return  # A lattice takes none, and the edge list projects them as autocast says.
    inputs = [x.float().requires_grad_() for x in random()]
    inputs += [torch.randn(size, requires_grad=True) for size in ((5, width), (2, 3, width))]

    def gradients():
        features = EdgeFeatures(*inputs[3:])
        out = cross_attention(*inputs[:3], graph, BETA, edge_features=features, backend=backend)
        return torch.autograd.grad(out.square().sum(), inputs)

    expected = gradients()
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_checkpoint(call):
    inputs = [x.requires_grad_() for x in random()]
    found = torch.autograd.grad(checkpoint(call, *inputs, use_reentrant=False).sum(), inputs)
    same(found, torch.autograd.grad(call(*inputs).sum(), inputs))


@pytest.mark.skipif(refusal("csr", EDGES) is not None, reason="no kernels")
@pytest.mark.parametrize(
    ("dynamic", "affinity"),
    [(False, "softmax"), pytest.param(True, "exponential", marks=pytest.mark.slow)],
)
def test_a_compiled_program_runs_the_kernels_of_a_lattice(dynamic, affinity):
    programs = []

    def keep(graph, inputs):
        programs.append(graph.code)
        return make_boxed_func(graph.forward)

    def call(query, key, value, beta, side):
        graph = AxialGraph((side, side), 2, query.size(0) // side**2)
        return cross_attention(query, key, value, graph, beta, affinity)

    torch._dynamo.reset()
    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
    compiled = torch.compile(call, fullgraph=True, dynamic=dynamic, backend=backend)
    for side, batch in ((6, 2), (8, 3)):  # A size anew is a program anew, unless it is dynamic.
        shape = batch * side**2, 2, 3
        inputs = [torch.randn(shape, dtype=torch.double) for _ in range(3)] + [BETA.clone()]
        out, grads = [], []
        for function in (call, compiled):
            leaves = [x.requires_grad_() for x in inputs]
            out.append(function(*leaves, side))
            grads.append(torch.autograd.grad(out[-1].square().sum(), leaves))
        same(out[1], out[0])
        same(grads[1], grads[0])
        with torch.no_grad():
            same(compiled(*inputs, side), out[0].detach())
    assert len(programs) == (3 if dynamic else 6)
    assert all("pyg_avig.axial_" in program for program in programs)


def test_a_compiled_program_follows_vmap():
    def call(query, key, value):
        return cross_attention(query, key, value, AxialGraph((2, 2)), BETA)

    inputs = random(5)
    torch._dynamo.reset()
    compiled = torch.compile(func.vmap(call), fullgraph=True, backend="aot_eager")
    same(compiled(*inputs), torch.stack([call(*x) for x in zip(*inputs, strict=True)]))


@pytest.mark.slow
@pytest.mark.skipif(refusal("csr", EDGES) is not None, reason="no kernels")
def test_inductor_hands_the_kernels_memory_that_they_take():
    graph = AxialGraph((6, 6), 2, 2)

    def call(image, beta):  # Of channels first: its features come permuted.
        x = image.flatten(2).transpose(1, 2).reshape(72, 2, 3)
        return cross_attention(x, x.sin(), x.cos(), graph, beta)

    image, beta = torch.randn(2, 6, 6, 6), torch.ones(2)
    torch._dynamo.reset()
    with torch.no_grad():  # Its backward is compiled from the same operators.
        torch.testing.assert_close(
            torch.compile(call, fullgraph=True)(image, beta), call(image, beta)
        )


def compiled_on_a_lattice(backend):
    def call(query, key, value, beta=BETA):
        return cross_attention(query, key, value, AxialGraph((2, 2)), beta)

    torch._dynamo.reset()
    return call, torch.compile(call, fullgraph=True, backend=backend)


def test_forward_mode_within_a_compiled_program():
    call, _ = compiled_on_a_lattice("aot_eager")

    def with_tangent(x, tangent):
        with forward_ad.dual_level():
            out = call(*[forward_ad.make_dual(x, tangent)] * 3)
            return forward_ad.unpack_dual(out).tangent

    inputs = random()[:2]
    compiled = torch.compile(with_tangent, backend="aot_eager")
    same(compiled(*inputs), with_tangent(*inputs))


def test_second_derivatives_where_a_backend_leaves_them_to_pytorch():
    penalties = []
    inputs = [x.requires_grad_() for x in random()] + [BETA.clone().requires_grad_()]
    for function in compiled_on_a_lattice("eager"):
        grads = torch.autograd.grad(function(*inputs).square().sum(), inputs, create_graph=True)
        penalty = sum(grad.square().sum() for grad in grads)
        penalties.append(torch.autograd.grad(penalty, inputs))
    same(penalties[1], penalties[0])


def test_a_compiled_program_outlives_the_kernels(monkeypatch):
    call, compiled = compiled_on_a_lattice("aot_eager")
    inputs = random()
    expected = call(*inputs)
    same(compiled(*inputs), expected)
    monkeypatch.setattr("pyg_avig.ops.kernels.cpu.library", lambda: None)
    same(compiled(*inputs), expected)
