import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from ops.kernels.test_kernels import forced, needs_kernels, of_each_type, on_each_instruction_set
from torch.autograd import grad, gradcheck, gradgradcheck

from pyg_avig.ops.norm_gelu import norm_gelu, serves

pytestmark = needs_kernels
EPS = 1e-5


def plain(x, weight, bias):
    return F.gelu(F.batch_norm(x, None, None, weight, bias, training=True, eps=EPS))


def drawn(rows, channels, dtype, mean=0.0):
    """Features, scales and shifts."""
    wide = torch.promote_types(dtype, torch.float32)
    x = (torch.randn(rows, channels) * 2 + mean).to(dtype)
    return [v.requires_grad_() for v in (x, *torch.randn(2, channels, dtype=wide))]


def exact(tensors):
    return [v.detach().double().requires_grad_() for v in tensors]


@on_each_instruction_set
@of_each_type
@given(st.integers(8, 300), st.integers(1, 70), st.floats(-5, 5))
def test_values_and_gradients_are_those_of_batch_norm_and_gelu(
    instructions, dtype, rows, channels, mean
):
    inputs = drawn(rows, channels, dtype, mean)
    behind = torch.randn(rows, channels).to(dtype)
    with forced(instructions):
        assert serves(*inputs[:2])
        out, means, variances = norm_gelu(*inputs, EPS)
        found = grad(out, inputs, behind)
    reference = exact(inputs)
    expected = plain(*reference)
    gradients = grad(expected, reference, behind.double())
    spread = reference[0].detach().std(0, correction=0)
    # What is read, and what is written between the sums and the result, is rounded.
    eps = max(torch.finfo(dtype).eps, 1e-12 if dtype == torch.float64 else 2e-5)
    steepest = float((reference[1].detach().abs() / spread).max().clamp(min=1))
    assert (out.dtype, means.dtype) == (dtype, inputs[1].dtype)
    for mine, theirs, size in (
        (means, reference[0].mean(0), 1),
        (variances, spread.square(), 10),
        (out, expected, 10 * steepest),
        (found[0], gradients[0], 20 * steepest**2),
        (found[1], gradients[1], rows * steepest),
        (found[2], gradients[2], rows * steepest),
    ):
        rounding = torch.finfo(mine.dtype).eps * 10 * theirs.abs().max()
        assert (mine.double() - theirs).abs().max() <= eps * size + rounding


def test_gradients_of_gradients():
    inputs = drawn(6, 3, torch.float64)
    assert gradcheck(lambda *args: norm_gelu(*args, EPS)[0], inputs)
    assert gradgradcheck(lambda *args: norm_gelu(*args, EPS)[0], inputs)


def test_gradients_in_batches():
    inputs = drawn(6, 3, torch.float64)
    out = norm_gelu(*inputs, EPS)[0]
    behind = torch.randn(4, *out.shape, dtype=torch.float64)
    found = grad(out, inputs, behind, is_grads_batched=True, retain_graph=True)
    for n in range(4):
        for mine, one in zip(found, grad(out, inputs, behind[n], retain_graph=True), strict=True):
            torch.testing.assert_close(mine[n], one)


def test_a_mean_far_from_zero_costs_no_digits():
    x = torch.randn(5000, 3, dtype=torch.float64) * 0.01 + 100
    weight, bias = torch.ones(3), torch.zeros(3)
    single = x.float()
    variance = norm_gelu(single, weight, bias, EPS)[2]
    torch.testing.assert_close(
        variance.double(), single.double().var(0, correction=0), rtol=1e-4, atol=0
    )


def test_what_is_not_finite_stays_so():
    x = torch.randn(4, 2)
    x[1, 0] = torch.nan
    out = norm_gelu(x, torch.ones(2), torch.zeros(2), EPS)[0]
    assert out[:, 0].isnan().all()
    assert out[:, 1].isfinite().all()


def test_what_is_kept_for_backward_is_the_input():
    x, weight, bias = drawn(50, 4, torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        norm_gelu(x, weight, bias, EPS)
    assert [t.data_ptr() for t in kept if t.dim() == 2] == [x.data_ptr()]


@pytest.mark.parametrize(
    ("x", "weight"),
    [
        (torch.randn(1, 3), torch.ones(3)),
        (torch.randn(4, 3), torch.ones(2)),
        (torch.randn(4, 3), torch.ones(3, dtype=torch.float64)),
        (torch.randn(4, 3).bfloat16(), torch.ones(3).bfloat16()),
        (torch.randn(3, 4).T, torch.ones(3)),
        (torch.randn(4, 3, 2), torch.ones(3)),
        (torch.randn(4, 3, device="meta"), torch.ones(3)),
        (torch.ones(4, 3, dtype=torch.long), torch.ones(3)),
    ],
)
def test_what_is_left_to_pytorch(x, weight):
    assert not serves(x, weight)


def test_nothing_is_served_without_kernels(monkeypatch):
    monkeypatch.setenv("PYG_AVIG_KERNELS", "0")
    assert not serves(torch.randn(4, 3), torch.ones(3))
