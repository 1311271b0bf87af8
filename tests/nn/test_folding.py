import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import Linear

from pyg_avig.nn.folding import InPlaceGELU, activated_in_place, fold_norm, fold_norms


def learned(norm):
    """A norm with statistics and weights other than the first ones."""
    for tensor in (norm.running_mean, norm.weight, norm.bias):
        if tensor is not None:
            nn.init.normal_(tensor)
    if norm.running_var is not None:
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return norm.eval()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("make", "norm", "shape"),
    [
        (lambda bias: nn.Linear(5, 7, bias=bias), nn.BatchNorm1d, (3, 5)),
        (lambda bias: Linear(5, 7, bias=bias), nn.BatchNorm1d, (3, 5)),
        (lambda bias: nn.Linear(5, 7, bias=bias), nn.SyncBatchNorm, (3, 5)),
        (lambda bias: nn.Conv2d(5, 7, 3, 2, 1, bias=bias), nn.BatchNorm2d, (3, 5, 6, 4)),
    ],
)
def test_one_map_gives_what_two_gave(make, norm, shape, bias, affine):
    first, second = make(bias).eval(), learned(norm(7, affine=affine))
    x = torch.randn(shape)
    before = {name: p.clone() for name, p in first.named_parameters()}
    folded = fold_norm(first, second)
    torch.testing.assert_close(folded(x), second(first(x)), atol=1e-5, rtol=1e-4)
    assert all(torch.equal(p, before[name]) for name, p in first.named_parameters())


def hooked(module):
    module.register_forward_hook(lambda *_: None)
    return module


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (nn.Identity(), nn.BatchNorm1d(5)),
        (nn.Linear(5, 5), nn.LayerNorm(5)),
        (nn.Linear(5, 5), nn.BatchNorm1d(5, track_running_stats=False)),
        (nn.Linear(5, 5), nn.BatchNorm1d(1)),
        (hooked(nn.Linear(5, 5)), nn.BatchNorm1d(5)),
        (nn.Linear(5, 5), hooked(nn.BatchNorm1d(5))),
        (nn.utils.parametrizations.weight_norm(nn.Linear(5, 5)), nn.BatchNorm1d(5)),
    ],
)
def test_what_is_not_to_be_folded(first, second):
    assert fold_norm(first.eval(), second.eval()) is None


def test_nothing_is_folded_in_training():
    first, second = nn.Linear(5, 5).eval(), nn.BatchNorm1d(5).eval()
    assert fold_norm(first, second) is not None
    assert fold_norm(first.train(), second) is None
    assert fold_norm(first.eval(), second.train()) is None


def test_a_sequence_is_folded_where_it_can_be():
    sequence = nn.Sequential(
        nn.Linear(5, 6), learned(nn.BatchNorm1d(6)), nn.GELU(), learned(nn.BatchNorm1d(6))
    ).eval()
    x = torch.randn(4, 5)
    folded = fold_norms(sequence)
    assert [type(m).__name__ for m in folded] == ["Linear", "GELU", "BatchNorm1d"]
    torch.testing.assert_close(folded(x), sequence(x))
    assert fold_norms(folded) is folded
    assert fold_norms(hooked(sequence)) is sequence


def test_activations_write_over_what_a_map_gave():
    sequence = nn.Sequential(nn.GELU(), nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)).eval()
    changed = activated_in_place(sequence)
    assert [type(module) for module in changed] == [nn.GELU, nn.Linear, InPlaceGELU, nn.Linear]
    x = torch.randn(5, 3)
    before = x.clone()
    assert torch.equal(changed(x), sequence(x))  # A gradient is asked for: nothing is lost.
    changed(x).sum().backward()
    found = [p.grad.clone() for p in sequence.parameters()]
    sequence.zero_grad()
    sequence(x).sum().backward()
    for grad, p in zip(found, sequence.parameters(), strict=True):
        torch.testing.assert_close(grad, p.grad)
    seen = []
    changed[1].register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad():
        assert torch.equal(changed(x), sequence(x))
        assert torch.equal(seen[0], F.gelu(sequence[1](F.gelu(x))))
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    "modules",
    [
        [nn.GELU()],
        [nn.Linear(2, 2), nn.Identity(), nn.GELU()],
        [nn.Linear(2, 2), nn.GELU(approximate="tanh")],
        [nn.Linear(2, 2), nn.ReLU()],
    ],
)
def test_other_activations_stay(modules):
    sequence = nn.Sequential(*modules)
    assert activated_in_place(sequence) is sequence
