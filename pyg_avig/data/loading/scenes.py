"""Images with objects or with a class for each pixel, and the loaders that batch them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from pyg_avig.data.loading.loaders import check_least, share_loader
from pyg_avig.data.loading.sampling import device_share, seeded
from pyg_avig.errors import InputError

IGNORE = 255
"""The label of pixels that neither a loss nor a metric looks at."""


class Scenes(Protocol):
    """Any sequence of (image (3, H, W) of bytes, what is on it), as tensors of torchvision."""

    def __getitem__(self, index: int, /) -> tuple[tv_tensors.Image, Any]:
        """One image and its target."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...


class TransformedScenes(Dataset):
    """Scenes, augmented.

    Args:
        scenes: The images and their targets.
        transform: From both to both.
    """

    def __init__(self, scenes: Scenes, transform: Any) -> None:
        self.scenes = scenes
        self.transform = transform

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[Tensor, Any]:
        """A scene, by its index or by (index, seed of its augmentation)."""
        index, seed = item if isinstance(item, tuple) else (item, None)
        image, target = self.scenes[index]
        with nullcontext() if seed is None else seeded(seed):
            return self.transform(image, target)


class SceneDataModule(pl.LightningDataModule):
    """What the data modules of scenes share.

    Batches are a list of images (3, H, W) in [0, 1], of any sizes, and a list of targets. A
    subclass gives a split in :meth:`scenes_of` and says in ``annotation`` what is on the images.

    Args:
        batch_size: Images that one update sees: on all devices, and in all the batches whose
            gradients are accumulated.
        eval_batch_size: Images in a batch of one device in evaluation. Images of a batch are
            padded to one size, and what an image's borders see of its padding changes its result a
            little; with 1 no image's result hangs on the others.
        num_workers: Worker processes a loader; 0 loads in the main process.
        augmentation: Transforms of torchvision's ``v2`` for training, in turn.
    """

    annotation: dict[str, Any]

    def __init__(
        self,
        batch_size: int = 16,
        eval_batch_size: int = 1,
        num_workers: int = 0,
        augmentation: list[v2.Transform] | None = None,
    ) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.augmentation = augmentation or []
        self.splits: dict[str, Scenes] = {}

    @property
    def device_batch_size(self) -> int:
        """Images in a training batch of one device.

        Raises:
            InputError: If devices and accumulation do not divide ``batch_size``.
        """
        return device_share(self.batch_size, self.trainer)

    def scenes_of(self, split: str) -> Scenes:
        """The images and targets of the split ``train``, ``val`` or ``test``."""
        raise NotImplementedError

    def transforms(self, training: bool) -> list[Any]:
        """What becomes of an image of bytes and its target, in turn."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Take the splits of this stage."""
        wanted = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        for split in wanted.get(stage or "", ("train", "val", "test")):
            self.splits[split] = self.scenes_of(split)

    def loader(self, split: str, training: bool = False) -> DataLoader:
        """The loader of this process's share of a split: augmented and shuffled if ``training``."""
        check_least(self, batch_size=1, eval_batch_size=1, num_workers=0)
        scenes = self.splits[split]
        rank = self.trainer.global_rank if self.trainer else 0
        world_size = self.trainer.world_size if self.trainer else 1
        if len(scenes) < world_size:
            raise InputError(f"expected an image a device (got {len(scenes)} in {split!r})")
        return share_loader(
            TransformedScenes(scenes, v2.Compose(self.transforms(training))),
            self.device_batch_size if training else self.eval_batch_size,
            self.num_workers,
            rank,
            world_size,
            training,
            collate=lists,
        )

    def train_dataloader(self) -> DataLoader:
        """Batches of augmented training images."""
        return self.loader("train", training=True)

    def val_dataloader(self) -> DataLoader:
        """Batches of validation images."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        """Batches of test images."""
        return self.loader("test")


class InstanceDataModule(SceneDataModule):
    """Scenes with objects: targets are dictionaries, as torchvision's detectors take them.

    Each has ``boxes`` (n, 4) as XYXY, ``labels`` (n,) from 1 on, perhaps ``masks`` (n, H, W), and
    for evaluation ``iscrowd`` and ``area``. Crowds are left out in training, as are objects of
    which the augmentation leaves nothing.
    """

    def transforms(self, training: bool) -> list[Any]:
        """Augmentation, if ``training``, and conversion."""
        end = [_to_floats(), v2.ToPureTensor()]
        if not training:
            return end
        clean = [v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()]
        return [_without_crowds, *self.augmentation, *clean, *end]


class SemanticDataModule(SceneDataModule):
    """Scenes with a class for each pixel: targets are (H, W) of bytes, :data:`IGNORE` for none.

    What a geometric augmentation fills in is :data:`IGNORE`.
    """

    def transforms(self, training: bool) -> list[Any]:
        """Augmentation, if ``training``, and conversion."""
        end = [_to_floats(), v2.ToPureTensor()]
        if not training:
            return end
        return [_fill_is_zero, *self.augmentation, _fill_is_ignored, *end]


def lists(scenes: Sequence[tuple[Tensor, Any]]) -> tuple[list[Tensor], list[Any]]:
    """Images and targets of a batch, as lists: their sizes may differ."""
    images, targets = zip(*scenes, strict=True)
    return list(images), list(targets)


def _to_floats() -> v2.Transform:
    return v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)


def _without_crowds(image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    """The target with what training takes of it; tensors of torchvision stay such."""
    kept = (target["iscrowd"] == 0).nonzero().flatten()
    taken: dict[str, Any] = {}
    for name in ("boxes", "labels", "masks"):
        if name in target:
            value = target[name]
            taken[name] = (
                tv_tensors.wrap(value[kept], like=value)
                if isinstance(value, tv_tensors.TVTensor)
                else value[kept]
            )
    return image, taken


def _fill_is_zero(image: Tensor, labels: tv_tensors.Mask) -> tuple[Tensor, tv_tensors.Mask]:
    """Labels from 1 on and 0 for none, so that transforms, which fill in zeros, fill in none."""
    return image, tv_tensors.Mask(labels + 1)  # Bytes: 255 becomes 0.


def _fill_is_ignored(image: Tensor, labels: tv_tensors.Mask) -> tuple[Tensor, tv_tensors.Mask]:
    """The inverse of :func:`_fill_is_zero`."""
    return image, tv_tensors.Mask(labels - 1)
