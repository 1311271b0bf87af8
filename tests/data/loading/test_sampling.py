import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.data.distributed_sampler import RepeatAugSampler
from torch.utils.data import DistributedSampler

from pyg_avig.data.loading.sampling import SeededSampler, Share, seeded


def sampler(rank, world_size, size=12, repeats=1, epoch=0):
    kwargs = {"num_replicas": world_size, "rank": rank}
    inner = (
        RepeatAugSampler(range(size), num_repeats=repeats, **kwargs)
        if repeats > 1
        else DistributedSampler(range(size), **kwargs)
    )
    result = SeededSampler(inner, rank, world_size)
    result.set_epoch(epoch)
    return result


def test_two_processes_together_see_what_one_sees():
    one = list(sampler(0, 1))
    two = [list(sampler(rank, 2)) for rank in range(2)]
    assert [pair for pairs in zip(*two, strict=True) for pair in pairs] == one
    assert sorted(index for index, _ in one) == list(range(12))
    assert len({seed for _, seed in one}) == 12


def test_epochs_and_runs_differ(monkeypatch):
    first = list(sampler(0, 1))
    assert list(sampler(0, 1)) == first
    assert list(sampler(0, 1, epoch=1)) != first
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    assert {seed for _, seed in sampler(0, 1)}.isdisjoint(seed for _, seed in first)


def test_repeats_of_an_image_have_different_seeds():
    pairs = list(sampler(0, 1, repeats=3))
    assert len({index for index, _ in pairs}) == len(pairs) / 3
    assert len({seed for _, seed in pairs}) == len(pairs)


@given(st.integers(0, 20), st.integers(1, 5))
def test_shares_are_disjoint_and_complete(size, world_size):
    shares = [list(Share(size, rank, world_size)) for rank in range(world_size)]
    assert sorted(index for share in shares for index in share) == list(range(size))
    assert [len(Share(size, rank, world_size)) for rank in range(world_size)] == [
        len(share) for share in shares
    ]


def draw():
    return random.random(), np.random.rand(), float(torch.rand(()))  # noqa: NPY002


def test_seeded_draws_leave_the_others_alone():
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    undisturbed = draw()
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
    with seeded(7):
        first = draw()
    assert draw() == undisturbed
    with seeded(7):
        assert draw() == first
    with pytest.raises(ZeroDivisionError), seeded(7):
        raise ZeroDivisionError


def test_seeding_an_item_leaves_the_devices_alone(monkeypatch):
    def fail(seed):
        raise AssertionError("a device was seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", fail)
    with seeded(3):
        first = torch.rand(2)
    with seeded(3):
        assert torch.equal(torch.rand(2), first)
