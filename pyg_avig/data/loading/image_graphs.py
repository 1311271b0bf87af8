"""Labelled images as graphs, and the loaders that batch them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from typing import Any, Protocol

import pytorch_lightning as pl
from PIL import Image
from timm.data import auto_augment, create_transform
from torch.utils.data import Dataset
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from pyg_avig.data.loading.lattices import PixelsToGraph, collate_lattices
from pyg_avig.data.loading.loaders import check_least, share_loader
from pyg_avig.data.loading.sampling import device_share, seeded
from pyg_avig.data.loading.streams import ImageStream
from pyg_avig.errors import InputError

INTERPOLATIONS = ("bilinear", "bicubic")
MAX_SIZE = 8192  # Beyond, a slip of the keyboard would take all memory.


class LabelledImages(Protocol):
    """Any sequence of (PIL image, class index)."""

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]:
        """One image and its class."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...


def eval_transform(data_config: dict[str, Any]):
    """timm's deterministic transform: PIL image to normalised tensor (C, H, W).

    Args:
        data_config: ``input_size`` (C, H, W), ``mean``, ``std``, ``interpolation`` and
            ``crop_pct``, as in timm's ``resolve_data_config``.
    """
    return create_transform(**data_config)


def train_transform(data_config: dict[str, Any], **augmentation: Any):
    """timm's transform for training, with its augmentation.

    Args:
        data_config: As in :func:`eval_transform`.
        **augmentation: Further arguments of timm's ``create_transform``.
    """
    transform = create_transform(**data_config, is_training=True, **augmentation)
    _keep_a_bit(transform)
    return transform


def _keep_a_bit(transform: Any) -> None:
    """Let timm's augmentations keep one bit of a pixel where they would keep none.

    Pillow refuses that from version 13 on: at the magnitudes of the usual recipes it would end a
    training within some hundred images.
    """
    for step in getattr(transform, "transforms", ()):
        lists = [getattr(step, "ops", ()), *getattr(step, "policy", ())]
        for op in chain.from_iterable(lists):
            if getattr(op, "aug_fn", None) is auto_augment.posterize:
                op.aug_fn = _posterize


def _posterize(image: Image.Image, bits: int, **kwargs: Any) -> Image.Image:
    return auto_augment.posterize(image, max(bits, 1), **kwargs)


class ImageGraphs(Dataset):
    """Labelled images, augmented and turned into graphs of one node a pixel.

    Args:
        images: The images and their classes.
        transform: From a PIL image to a tensor (C, H, W).
    """

    def __init__(self, images: LabelledImages, transform: Any) -> None:
        self.images = images
        self.transform = transform
        self.to_graph = PixelsToGraph()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int | tuple[int, int]) -> Data:
        """The graph of an image, by its index or by (index, seed of its augmentation)."""
        index, seed = item if isinstance(item, tuple) else (item, None)
        image, label = self.images[index]
        try:
            with nullcontext() if seed is None else seeded(seed):
                return self.to_graph((self.transform(image), label))
        except InputError as error:
            raise InputError(f"image {index}: {error}") from None


class ImageGraphDataModule(pl.LightningDataModule):
    """What the data modules of labelled images share.

    A subclass fills ``splits`` in :meth:`setup` and states ``classes`` and ``channels``.

    Args:
        image_size: Side of the model's input, in pixels: for evaluation an image's shorter
            side is resized to it and the middle cropped.
        batch_size: Images that one update sees: on all devices, and in all the batches whose
            gradients are accumulated.
        num_workers: Worker processes a loader; 0 loads in the main process.
        augmentation: Arguments of timm's ``create_transform`` for training.
        interpolation: How images are resized: bilinear or bicubic.
        repeats: Times that an image is seen, differently augmented, in the same update
            (`repeated augmentation <https://arxiv.org/abs/1901.09335>`_); an epoch then sees
            fewer images.
        crop_pct: For evaluation, the middle crop's side over the resized image's.

    Raises:
        InputError: If an argument is none of these.
    """

    classes: Sequence[str] = ()
    channels: int = 3
    mean: Sequence[float] = (0.5,)
    std: Sequence[float] = (0.5,)

    def __init__(
        self,
        image_size: int = 32,
        batch_size: int = 64,
        num_workers: int = 0,
        augmentation: dict[str, Any] | None = None,
        interpolation: str = "bilinear",
        repeats: int = 1,
        crop_pct: float = 1.0,
    ) -> None:
        super().__init__()
        if not 1 <= image_size <= MAX_SIZE:
            raise InputError(f"image_size must lie in 1 to {MAX_SIZE} (got {image_size})")
        if interpolation not in INTERPOLATIONS:
            raise InputError(
                f"interpolation must be one of {', '.join(INTERPOLATIONS)} (got {interpolation!r})"
            )
        if not 0 < crop_pct <= 1:
            raise InputError(f"crop_pct must lie in (0, 1] (got {crop_pct})")
        # NumPy's ints too, which PyTorch's loaders refuse.
        self.repeats, self.batch_size = int(repeats), int(batch_size)
        self.num_workers = int(num_workers)
        self.augmentation = augmentation or {}
        self.data_config: dict[str, Any] = {
            "input_size": [self.channels, int(image_size), int(image_size)],
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": interpolation,
            "crop_pct": crop_pct,
        }
        self.splits: dict[str, LabelledImages | ImageStream] = {}
        check_least(self, batch_size=1, num_workers=0, repeats=1)
        self._try_augmentation()

    @property
    def device_batch_size(self) -> int:
        """Images in a batch of one device.

        Raises:
            InputError: If devices and accumulation do not divide ``batch_size``.
        """
        return device_share(self.batch_size, self.trainer)

    def loader(self, split: str, training: bool = False) -> DataLoader:
        """The loader of this process's share of a split: augmented and shuffled if ``training``."""
        images, batch_size = self.splits[split], self.device_batch_size
        rank = self.trainer.global_rank if self.trainer else 0
        world_size = self.trainer.world_size if self.trainer else 1
        transform = self._transform(training)
        if isinstance(images, ImageStream):
            if training and self.repeats > 1:
                raise InputError("expected repeats of 1 for images that are streamed")
            return images.loader(transform, batch_size, self.num_workers, rank, training)
        if len(images) < world_size:
            raise InputError(f"expected an image a device (got {len(images)} in {split!r})")
        if training and min(len(images), batch_size) < 2:
            raise InputError(
                "expected at least 2 images in a training batch, as BatchNorm needs (got "
                f"batches of {batch_size} a device and {len(images)} images)"
            )
        graphs = ImageGraphs(images, transform)
        return share_loader(
            graphs,
            batch_size,
            self.num_workers,
            rank,
            world_size,
            training,
            self.repeats,
            collate_lattices,
        )

    def _transform(self, training: bool) -> Any:
        if not training:
            return eval_transform(self.data_config)
        with self._one_line("as arguments of timm's create_transform"):
            return train_transform(self.data_config, **self.augmentation)

    def _try_augmentation(self) -> None:
        """Refuse arguments on which timm's transform would fail at the first image."""
        transform = self._transform(training=True)
        image = Image.new("L" if self.channels == 1 else "RGB", (48, 48))
        with self._one_line("that timm's create_transform can do"), seeded(0):
            transform(image)

    @contextmanager
    def _one_line(self, wanted: str) -> Iterator[None]:
        """Raise what timm makes of an augmentation, which it asserts and indexes, as one line."""
        try:
            yield
        except Exception as error:
            raise InputError(
                f"expected augmentation {wanted} (got {self.augmentation}: "
                f"{type(error).__name__}: {error})"
            ) from None

    def train_dataloader(self) -> DataLoader:
        """Batches of augmented training graphs."""
        return self.loader("train", training=True)

    def val_dataloader(self) -> DataLoader:
        """Batches of validation graphs."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        """Batches of test graphs."""
        return self.loader("test")


class ArrayImages:
    """Grey images held as a uint8 array (M, H, W), with their labels (M,).

    Args:
        pixels: The images.
        labels: Their classes.
        limit: Keep this many; ``None`` keeps all.
    """

    def __init__(self, pixels: Any, labels: Any, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise InputError(f"limit must be at least 1 (got {limit})")
        self.pixels = pixels[:limit]
        self.labels = labels[:limit]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]), int(self.labels[index])
