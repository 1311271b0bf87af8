import copy

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from pyg_avig.nn import norm_gelu as module
from pyg_avig.nn.norm_gelu import in_sequence, norm_act
from pyg_avig.ops.kernels import build

needs_kernels = pytest.mark.skipif(
    build.library() is None, reason="needs the C++ kernels: no compiler, or PYG_AVIG_KERNELS=0"
)


@pytest.fixture
def calls(monkeypatch):
    """The operator's calls."""
    made = []

    def noted(*args):
        made.append(args)
        return norm_gelu(*args)

    norm_gelu = module.norm_gelu
    monkeypatch.setattr(module, "norm_gelu", noted)
    return made


def channels_last(*shape):
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


@needs_kernels
@pytest.mark.parametrize(
    ("norm", "x"),
    [
        (nn.BatchNorm1d(6), torch.randn(9, 6)),
        (nn.BatchNorm2d(6), channels_last(3, 6, 5, 4)),
        (nn.BatchNorm2d(6), channels_last(3, 6, 1, 1)),
        (nn.BatchNorm2d(6, momentum=0.3, eps=1e-2), channels_last(2, 6, 3, 3)),
    ],
)
def test_outputs_gradients_and_statistics_are_those_of_the_modules(norm, x, calls):
    nn.init.normal_(norm.weight)
    other = copy.deepcopy(norm)
    ends = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    found, expected = norm_act(norm, nn.GELU(), ends[0]), nn.GELU()(other(ends[1]))
    assert len(calls) == 1
    assert found.movedim(1, -1).is_contiguous()
    torch.testing.assert_close(found, expected)
    behind = torch.randn_like(found)
    found.backward(behind)
    expected.backward(behind)
    torch.testing.assert_close(ends[0].grad, ends[1].grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.weight.grad, other.weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.bias.grad, other.bias.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.state_dict(), other.state_dict())


def hooked(layer):
    layer.register_full_backward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize(
    ("norm", "act", "x"),
    [
        (nn.BatchNorm1d(6).eval(), nn.GELU(), torch.randn(9, 6)),
        (nn.BatchNorm1d(6, affine=False), nn.GELU(), torch.randn(9, 6)),
        (nn.BatchNorm1d(6, momentum=None), nn.GELU(), torch.randn(9, 6)),
        (nn.BatchNorm1d(6, track_running_stats=False), nn.GELU(), torch.randn(9, 6)),
        (nn.BatchNorm1d(6), nn.GELU(approximate="tanh"), torch.randn(9, 6)),
        (nn.BatchNorm1d(6), nn.SiLU(), torch.randn(9, 6)),
        (nn.LayerNorm(6), nn.GELU(), torch.randn(9, 6)),
        (hooked(nn.BatchNorm1d(6)), nn.GELU(), torch.randn(9, 6)),
        (nn.BatchNorm1d(6), hooked(nn.GELU()), torch.randn(9, 6)),
        (nn.BatchNorm2d(6), nn.GELU(), torch.randn(2, 6, 4, 5)),
        (nn.BatchNorm1d(6), nn.GELU(), torch.randn(2, 6, 4)),
        (nn.Identity(), nn.GELU(), torch.randn(9, 6)),
    ],
)
def test_what_the_operator_does_not_do_is_left_to_the_modules(norm, act, x, calls):
    other = copy.deepcopy(norm)
    torch.testing.assert_close(norm_act(norm, act, x), act(other(x)))
    assert not calls


def test_transforms_and_programs_see_the_modules(calls):
    norm, act, x = nn.BatchNorm1d(6), nn.GELU(), torch.randn(9, 6)
    with forward_ad.dual_level():
        norm_act(norm, act, forward_ad.make_dual(x, x))
    torch.compile(lambda v: norm_act(norm, act, v), backend="eager", fullgraph=True)(x)
    assert not calls


def test_wrong_features_are_pytorchs_to_refuse():
    with pytest.raises(RuntimeError, match="running_mean"):
        norm_act(nn.BatchNorm1d(6), nn.GELU(), torch.randn(9, 5))
    with pytest.raises(ValueError, match="more than 1 value"):
        norm_act(nn.BatchNorm1d(6), nn.GELU(), torch.randn(1, 6))


@needs_kernels
def test_in_a_sequence_each_pair_is_one_call(calls):
    layers = nn.Sequential(
        nn.Linear(4, 6),
        nn.BatchNorm1d(6),
        nn.Sequential(nn.GELU(), nn.Dropout(0.5)),
        nn.Linear(6, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.BatchNorm1d(6),
    )
    x, other = torch.randn(9, 4), copy.deepcopy(layers)
    torch.manual_seed(0)
    found = in_sequence(layers, x)
    torch.manual_seed(0)
    torch.testing.assert_close(found, other(x))
    assert len(calls) == 1


def test_a_sequence_with_a_hook_is_called(calls):
    layers = nn.Sequential(nn.BatchNorm1d(6), nn.GELU())
    seen = []
    layers.register_forward_hook(lambda *_: seen.append(1))
    in_sequence(layers, torch.randn(9, 6))
    assert seen
    assert not calls
