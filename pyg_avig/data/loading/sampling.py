"""Which images an epoch takes, in which order, and from which seeds they are augmented.

All of it is a function of the run's seed, the epoch and the place in the epoch: workers, devices
and interruptions change nothing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DistributedSampler, Sampler

from pyg_avig.errors import InputError


def run_seed() -> int:
    """The seed of this run, as ``seed_everything`` set it; 0 without one."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def device_share(batch_size: int, trainer: Any) -> int:
    """Items in a batch of one device, so that an update sees ``batch_size`` of them.

    Args:
        batch_size: Items on all devices and in all accumulated batches.
        trainer: Lightning's, or ``None`` for one device.

    Raises:
        InputError: If devices and accumulation do not divide ``batch_size``.
    """
    devices = trainer.world_size if trainer else 1
    accumulated = trainer.accumulate_grad_batches if trainer else 1
    if batch_size % (devices * accumulated):
        raise InputError(
            f"expected a batch_size that {devices} devices and {accumulated} accumulated "
            f"batches divide (got {batch_size})"
        )
    return batch_size // (devices * accumulated)


class SeededSampler(DistributedSampler):  # So that Lightning does not deal out its share again.
    """Another sampler's indices, each with the seed of its augmentation.

    Args:
        sampler: A sampler of one process's share, with ``set_epoch``, such as
            ``DistributedSampler`` or timm's ``RepeatAugSampler``.
        rank: The process.
        world_size: Number of processes. The places of their shares are dealt in turn.
    """

    def __init__(self, sampler: Sampler, rank: int = 0, world_size: int = 1) -> None:
        self.sampler = sampler
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.left_out = 0

    def set_epoch(self, epoch: int) -> None:
        """Draw another order and other seeds; Lightning calls it."""
        self.epoch = epoch
        # Some samplers know of epochs, but not of the run.
        self.sampler.set_epoch(epoch + 100_003 * run_seed())  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator:
        first, self.left_out = self.left_out, 0  # A part of an epoch that a resumed run has seen.
        for n, index in islice(enumerate(self.sampler), first, None):
            place = n * self.world_size + self.rank
            sequence = np.random.SeedSequence([run_seed(), self.epoch, place])
            yield index, int(sequence.generate_state(1)[0])

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]


class Share(DistributedSampler):
    """Every ``world_size``-th index from ``rank`` on, none twice: for evaluation.

    Args:
        size: Number of items.
        rank: The process.
        world_size: Number of processes.
    """

    def __init__(self, size: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(rank, size, world_size)
        self.epoch = 0

    def __iter__(self) -> Iterator:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from ``seed`` within, from every generator that augmentation draws from."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        set_seed(seed)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def set_seed(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's CPU generators of this process."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (timm draws from it)
    # Not torch.manual_seed, which seeds the devices too, where dropout draws from.
    torch.default_generator.manual_seed(seed)
