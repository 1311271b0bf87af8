import pytest
import timm
import torch
from torch import nn

from pyg_avig import CrossAttnConv, InputError
from pyg_avig.nn import BetaBounds, swap_attention
from pyg_avig.nn.freeze_beta import log_betas


def layers():
    shared = CrossAttnConv(3, 4, heads=2, beta=2.0)
    return nn.ModuleList([shared, nn.Sequential(shared, nn.Linear(4, 4)), CrossAttnConv(3, 4)])


def test_every_beta_is_found_once():
    model = layers()
    found = log_betas(model)
    assert [id(p) for p in found] == [id(model[0].log_beta), id(model[2].log_beta)]
    assert log_betas(nn.Linear(2, 2)) == []
    assert len(log_betas(swap_attention(timm.create_model("test_vit")))) == 6


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_betas_are_held_within_a_factor_of_where_they_began(factor):
    model = layers()
    bounds = BetaBounds(model, factor)
    state = set(model.state_dict())
    with torch.no_grad():
        model[0].log_beta.copy_(torch.tensor([0.1, 9.0]).log())
        model[2].log_beta.copy_(torch.tensor([1.2]).log())
    bounds.hold()
    torch.testing.assert_close(model[0].beta, torch.tensor([2 / factor, 2 * factor]))
    torch.testing.assert_close(model[2].beta, torch.tensor([min(1.2, factor)]))
    assert set(model.state_dict()) == state
    # The bounds are of double parameters too, should the model change its dtype.
    model.double()
    bounds.hold()


@pytest.mark.parametrize("factor", [0.9, 0, float("nan"), True])
def test_bad_factor(factor):
    with pytest.raises(InputError, match="a factor of at least 1"):
        BetaBounds(layers(), factor)
