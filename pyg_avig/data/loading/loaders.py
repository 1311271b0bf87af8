"""The loader that every training is fed by."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from types import FrameType
from typing import Any

import torch
from timm.data.distributed_sampler import RepeatAugSampler
from torch.utils.data import Dataset, DistributedSampler, Sampler
from torch_geometric.loader import DataLoader

from pyg_avig.data.loading.sampling import SeededSampler, Share, run_seed
from pyg_avig.errors import InputError


def check_least(module: Any, **least: int) -> None:
    """Refuse fields of a data module that are below their least value."""
    for name, value in least.items():
        if getattr(module, name) < value:
            raise InputError(f"{name} must be at least {value} (got {getattr(module, name)})")


class EpochLoader(DataLoader):
    """PyG's loader, for epochs that can be resumed.

    An epoch begins when its first batch is asked for: Lightning makes an iterator before it says
    which epoch it is for, and workers would set out at once, in the order of another. Its state, in
    Lightning's protocol, is the number of batches that an epoch has given; one that is loaded is
    left out of the next epoch. Its workers outlive one signal, see :class:`_PatientWorker`.
    """

    given = 0
    left_out = 0
    worker_init_fn: Callable[[int], None] | None

    def __iter__(self) -> Iterator[Any]:
        self.given, self.left_out = self.left_out, 0
        if not isinstance(self.worker_init_fn, _PatientWorker):  # Lightning sets one of its own.
            self.worker_init_fn = _PatientWorker(self.worker_init_fn)
        batches = self._from(self.given)
        for batch in batches:
            self.given += 1
            yield batch

    def _from(self, first: int) -> Iterator[Any]:
        """The batches of an epoch from a place on; a stream's have to be read to get there."""
        if isinstance(self.sampler, SeededSampler) and self.batch_size is not None:
            self.sampler.left_out = first * self.batch_size
            return super().__iter__()
        return islice(super().__iter__(), first, None)

    def state_dict(self) -> dict[str, int]:
        """How many batches this epoch has given."""
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next epoch after as many batches."""
        self.left_out = state["given"]


@dataclass
class _PatientWorker:
    """Begins a worker that leaves a first SIGTERM or SIGINT to the training.

    Clusters and terminals signal all processes of a run; the training, which would end at once with
    a worker, asks for the batches of its update still.

    Args:
        also: What else a worker begins with.
    """

    also: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _let_pass_once)
        if self.also is not None:
            self.also(worker)


def _let_pass_once(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)


def share_loader(
    items: Dataset,
    batch_size: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
    training: bool = False,
    repeats: int = 1,
    collate: Callable[[list], Any] | None = None,
) -> EpochLoader:
    """The loader of one process's share of a data set, the same in every run of a seed.

    Args:
        items: The data set; in training it is asked for (index, seed of the augmentation).
        batch_size: Items in a batch of this process.
        num_workers: Worker processes.
        rank: This process.
        world_size: Number of processes.
        training: Shuffle, and leave out a last batch that is not full.
        repeats: Times that an item is seen in the same update.
        collate: Makes a batch of items; by default PyG's.
    """
    sampler: Sampler = Share(len(items), rank, world_size)  # type: ignore[arg-type]
    if training:
        shared = {"num_replicas": world_size, "rank": rank}
        if repeats > 1:
            sampler = RepeatAugSampler(items, num_repeats=repeats, **shared)
        else:
            sampler = DistributedSampler(items, **shared)  # type: ignore[arg-type]
        sampler = SeededSampler(sampler, rank, world_size)
    loader = EpochLoader(
        items,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=training and len(sampler) > batch_size,  # type: ignore[arg-type]
        num_workers=num_workers,
        # Else the loader would draw from the model's generator.
        generator=torch.Generator().manual_seed(run_seed()),
        persistent_workers=num_workers > 0,
    )
    if collate is not None:
        loader.collate_fn = collate  # PyG's loader takes none.
    return loader
