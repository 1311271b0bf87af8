"""The loader that every data set with random access is read through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.utils.data
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


def share_loader(
    items: Dataset,
    batch_size: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
    training: bool = False,
    repeats: int = 1,
    collate: Callable[[list], Any] | None = None,
) -> torch.utils.data.DataLoader:
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
    # PyG's loader takes no other collation than its own.
    own: dict[str, Any] = {"collate_fn": collate} if collate else {}
    return (torch.utils.data.DataLoader if collate else DataLoader)(
        items,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=training and len(sampler) > batch_size,  # type: ignore[arg-type]
        num_workers=num_workers,
        # Else the loader would draw from the model's generator.
        generator=torch.Generator().manual_seed(run_seed()),
        persistent_workers=num_workers > 0,
        **own,
    )
