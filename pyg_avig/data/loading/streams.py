"""Labelled images that can only be read one after another, such as WebDataset's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from timm.data.readers.reader_wds import ReaderWds
from torch.utils.data import IterableDataset, get_worker_info
from torch_geometric.data import Data

from pyg_avig.data.loading.lattices import PixelsToGraph, collate_lattices
from pyg_avig.data.loading.loaders import EpochLoader
from pyg_avig.data.loading.sampling import run_seed, seeded
from pyg_avig.errors import InputError


class ImageStream:
    """A split that a reader of timm streams.

    The reader shuffles, deals the shards out to processes and workers, and leaves out (and
    logs) images that it cannot decode.

    Args:
        create: Opens the stream: timm's ``create_dataset`` with everything given but
            ``is_training``, ``batch_size`` and ``seed``.
    """

    def __init__(self, create: Callable[..., Any]) -> None:
        self.create = create

    def loader(
        self, transform: Any, batch_size: int, num_workers: int, rank: int, training: bool
    ) -> EpochLoader:
        """The loader of one process's share.

        Args:
            transform: From a PIL image to a tensor (C, H, W).
            batch_size: Images in a batch of this process.
            num_workers: Worker processes.
            rank: This process.
            training: Shuffle.
        """
        images = self.create(is_training=training, batch_size=batch_size, seed=run_seed())
        images.set_loader_cfg(num_workers=num_workers)
        if not len(images):
            raise InputError(
                "expected a stream that knows its number of images: name it after the shards, as "
                "in train-{0000..0099}.tar|100000, or in _info.json"
            )
        graphs = StreamedGraphs(images, transform, rank)
        loader = EpochLoader(
            graphs,
            batch_size=batch_size,
            drop_last=training,
            num_workers=num_workers,
            generator=torch.Generator().manual_seed(run_seed()),
            persistent_workers=num_workers > 0,
        )
        loader.collate_fn = collate_lattices  # PyG's loader takes none.
        # Lightning tells a loader's sampler of epochs, and a stream has none of its own.
        loader.sampler.set_epoch = graphs.set_epoch
        return loader


class StreamedGraphs(IterableDataset):
    """Images of a stream, augmented and turned into graphs of one node a pixel.

    Args:
        images: timm's ``IterableImageDataset``, giving (PIL image, class).
        transform: From a PIL image to a tensor (C, H, W).
        rank: The process, for the seeds of the augmentation.
    """

    def __init__(self, images: Any, transform: Any, rank: int = 0) -> None:
        self.images = images
        self.transform = transform
        self.rank = rank
        self.to_graph = PixelsToGraph()
        self.epoch = torch.zeros((), dtype=torch.long).share_memory_()  # Workers outlive epochs.

    def set_epoch(self, epoch: int) -> None:
        """Draw another order and other augmentations."""
        self.epoch.fill_(epoch)
        self.images.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Data]:
        worker = get_worker_info()
        place = [run_seed(), int(self.epoch), self.rank, 0 if worker is None else worker.id]
        self._begin_anew(place)
        for n, (image, label) in enumerate(self.images):
            seed = int(np.random.SeedSequence([*place, n]).generate_state(1)[0])
            with seeded(seed):
                graph = self.to_graph((self.transform(image), label))
            yield graph

    def _begin_anew(self, place: list[int]) -> None:
        """Let WebDataset draw from this epoch's seed; else it would draw on from the last one's."""
        reader = getattr(self.images, "reader", None)
        if isinstance(reader, ReaderWds):
            reader._lazy_init()  # Finds out which worker this is.
            reader.worker_seed = int(np.random.SeedSequence(place).generate_state(1)[0])
            reader.ds = None
