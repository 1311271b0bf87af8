import pytest
import torch
from torch.autograd import gradcheck

from pyg_avig import InputError
from pyg_avig.ops import affinity_names
from pyg_avig.ops.affinity import get_affinity
from pyg_avig.ops.reference import EdgeNeighbors

INDEX = torch.tensor([0, 0, 0, 2, 2, 3])


def weights(name, similarity, beta):
    return get_affinity(name).function(similarity, beta, EdgeNeighbors(INDEX, 4))


@pytest.mark.parametrize("name", affinity_names())
def test_contract(name):
    similarity = torch.rand(6, 2, dtype=torch.double) * 1.8 - 0.9
    beta = torch.tensor([0.5, 3.0], dtype=torch.double)
    similarity.requires_grad_()
    beta.requires_grad_()
    weight = weights(name, similarity, beta)
    assert weight.shape == similarity.shape
    assert ((weight >= 0) & (weight <= 1)).all()
    assert gradcheck(lambda s, b: weights(name, s, b), (similarity, beta))
    assert get_affinity(name).function.__doc__


@pytest.mark.parametrize("name", affinity_names())
def test_extreme_similarity_and_temperature_stay_finite(name):
    similarity = torch.tensor([-1.0, -1, 1, -1, -1, 1]).view(6, 1).requires_grad_()
    beta = torch.tensor([100.0], requires_grad=True)
    weight = weights(name, similarity, beta)
    weight.sum().backward()
    assert all(x.isfinite().all() for x in (weight, similarity.grad, beta.grad))


def test_bounds_of_their_own():
    similarity, beta = torch.rand(6, 2) * 2 - 1, torch.tensor([0.5, 3.0])
    degree = INDEX.bincount()[INDEX].view(-1, 1)
    assert (weights("relu", similarity, beta) <= 1 / degree).all()
    assert torch.allclose(
        weights("relu", similarity, torch.ones(2)), similarity.clamp(min=0) / degree
    )
    sigmoid = weights("sigmoid", similarity, beta)
    assert ((sigmoid >= torch.sigmoid(-beta)) & (sigmoid <= torch.sigmoid(beta))).all()


def test_exponential_equals_the_equation():
    similarity = torch.tensor([[1.0], [0.0], [-1.0]])
    weight = weights("exponential", similarity, torch.tensor([2.0]))
    assert torch.allclose(weight, torch.tensor([[0.0], [-2.0], [-4.0]]).exp())


def test_softmax_sums_to_one():
    weight = weights("softmax", torch.randn(6, 1), torch.tensor([2.0]))
    assert torch.allclose(
        torch.zeros(4, 1).index_add(0, INDEX, weight)[[0, 2, 3]], torch.ones(3, 1)
    )


def test_unknown_name_lists_the_known():
    with pytest.raises(InputError, match="exponential.*softmax.*got 'sofmax'"):
        get_affinity("sofmax")
