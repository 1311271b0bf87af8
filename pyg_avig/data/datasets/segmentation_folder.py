"""Images with a class for each pixel, in two folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from pyg_avig.data.loading.image_files import ImageFiles
from pyg_avig.data.loading.scenes import IGNORE, SemanticDataModule
from pyg_avig.errors import InputError

_UNKNOWN = 254  # In the table from what a file holds to classes.


class SegmentationFolder(SemanticDataModule):
    """Folders of images and of label images, which hold a byte a pixel.

    A label image has its image's path below the other folder, with another ending. By default:
    ``images/train/a/b.jpg`` and ``labels/train/a/b.png``. For ADE20K: ``images="images/{split}"``,
    ``labels="annotations/{split}"``, ``train_split="training"``, ``val_split="validation"``,
    ``values`` from 1 to 150, ``ignore=[0]``. For Cityscapes: ``images="leftImg8bit/{split}"``,
    ``labels="gtFine/{split}"``, ``image_suffix="_leftImg8bit.png"``,
    ``label_suffix="_gtFine_labelTrainIds.png"``.

    Args:
        root: Folder of the data.
        classes: Names of the classes, in the order of their indices.
        values: What label images hold for each class; by default 0, 1 and so on.
        ignore: What they hold for pixels that count for nothing.
        images: Folder of a split's images, below the root.
        labels: Folder of a split's label images, below the root.
        image_suffix: How images' names end; empty for all that Pillow reads.
        label_suffix: How their label images' names end instead.
        train_split: What stands for ``{split}`` in training.
        val_split: The same for validation.
        test_split: The same for the test.
        bad_share: The share of files that may be broken; see :class:`ImageFiles`.
        batch_size: See :class:`SceneDataModule`.
        eval_batch_size: See :class:`SceneDataModule`.
        num_workers: See :class:`SceneDataModule`.
        augmentation: See :class:`SceneDataModule`.
    """

    def __init__(
        self,
        root: str,
        classes: list[str],
        values: list[int] | None = None,
        ignore: list[int] | None = None,
        images: str = "images/{split}",
        labels: str = "labels/{split}",
        image_suffix: str = "",
        label_suffix: str = ".png",
        train_split: str = "train",
        val_split: str = "val",
        test_split: str = "val",
        bad_share: float = 1e-3,
        batch_size: int = 16,
        eval_batch_size: int = 1,
        num_workers: int = 0,
        augmentation: list[v2.Transform] | None = None,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, num_workers, augmentation)
        values = list(range(len(classes))) if values is None else values
        ignore = [IGNORE] if ignore is None else ignore
        if not 1 <= len(classes) < _UNKNOWN:
            raise InputError(f"expected 1 to {_UNKNOWN - 1} classes (got {len(classes)})")
        if len(values) != len(classes) or len({*values, *ignore}) != len(values) + len(ignore):
            raise InputError(
                f"expected a value for each of {len(classes)} classes, and others to ignore, none "
                f"twice (got {values} and {ignore})"
            )
        if min(*values, *ignore, 0) < 0 or max(*values, *ignore, 0) > 255:
            raise InputError(f"expected values of a byte (got {values} and {ignore})")
        self.root = root
        self.folders = {"images": images, "labels": labels}
        self.suffixes = image_suffix, label_suffix
        self.names = {"train": train_split, "val": val_split, "test": test_split}
        self.bad_share = bad_share
        self.ignore = ignore
        self.annotation = {"of": "pixels", "classes": list(classes), "values": list(values)}

    def setup(self, stage: str | None = None) -> None:
        """Find the files of the splits that this stage takes."""
        wanted = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        for split in wanted.get(stage or "", ("train", "val", "test")):
            images, labels = (
                Path(self.root, folder.format(split=self.names[split]))
                for folder in self.folders.values()
            )
            table = label_table(self.annotation["values"], self.ignore)
            pairs = LabelledPixels(_pairs(images, labels, *self.suffixes), table)
            self.splits[split] = PixelScenes(pairs, self.bad_share)


def _pairs(images: Path, labels: Path, image_suffix: str, label_suffix: str) -> list:
    """The images below a folder, and the label images that belong to them.

    Raises:
        InputError: If there are none, or some have no label image.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise InputError(f"{folder}: expected a folder (there is none)")
    endings = (image_suffix,) if image_suffix else tuple(Image.registered_extensions())
    found = [
        path
        for path in sorted(images.rglob("*"))
        if path.name.lower().endswith(tuple(ending.lower() for ending in endings))
        and not any(part.startswith(".") for part in path.relative_to(images).parts)
    ]
    if not found:
        raise InputError(f"{images}: expected images named *{image_suffix} (there are none)")
    pairs = []
    for path in found:
        stem = path.name[: -len(image_suffix)] if image_suffix else path.stem
        pairs.append((path, labels / path.relative_to(images).with_name(stem + label_suffix)))
    lonely = [pair for pair in pairs if not pair[1].is_file()]
    if lonely:
        raise InputError(
            f"{images}: {len(lonely)} of {len(pairs)} images have no label image (the first: "
            f"{lonely[0][0].name}, expected {lonely[0][1]})"
        )
    return pairs


def label_table(values: list[int], ignore: list[int]) -> np.ndarray:
    """For each byte that a label image may hold, the class's index, or 255 for none."""
    table = np.full(256, _UNKNOWN, dtype=np.uint8)
    table[values] = np.arange(len(values))
    table[ignore] = IGNORE
    return table


class LabelledPixels:
    """Image files, and what their label images say: a reader for :class:`ImageFiles`.

    Args:
        pairs: Paths of images and label images.
        table: See :func:`label_table`.

    Raises:
        InputError: On reading, if a label image is broken, holds no bytes, or holds others than
            the table knows.
    """

    def __init__(self, pairs: list[tuple[Path, Path]], table: np.ndarray) -> None:
        self.pairs = pairs
        self.table = table

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Path, tuple[Path, np.ndarray]]:
        image, path = self.pairs[index]
        held = _read_labels(path)
        labels = self.table[held]
        unknown = held[labels == _UNKNOWN]
        if unknown.size:
            raise InputError(
                f"{path}: expected labels of {int((self.table < _UNKNOWN).sum())} classes or to "
                f"ignore (got {int(unknown.max())})"
            )
        return image, (path, labels)


def _read_labels(path: Path) -> np.ndarray:
    """A byte for each pixel, as the file has it: no palette is looked up."""
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode not in ("L", "P"):
                raise ValueError(f"mode {image.mode}; a grey or palette image is expected")
            return np.array(image)
    except Exception as error:  # Decoders raise whatever a broken file makes them.
        raise InputError(f"{path}: expected a readable label image ({error})") from None


class PixelScenes:
    """Images and the class of each pixel, broken files replaced by their neighbours.

    Args:
        pairs: The files.
        bad_share: See :class:`ImageFiles`.
    """

    def __init__(self, pairs: LabelledPixels, bad_share: float) -> None:
        self.files = ImageFiles(pairs, channels=3, bad_share=bad_share)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Tensor]:
        picture, (path, labels) = cast(Any, self.files[index])
        if labels.shape != (picture.height, picture.width):
            raise InputError(
                f"{path}: expected labels of the image's {picture.width} x {picture.height} "
                f"pixels (got {labels.shape[1]} x {labels.shape[0]})"
            )
        return tv_tensors.Image(picture), tv_tensors.Mask(torch.from_numpy(labels))
