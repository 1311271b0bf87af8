"""Images with a class for each pixel, in two folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors

from pyg_avig.data.loading.image_files import ImageFiles
from pyg_avig.data.loading.image_trees import image_endings
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
        **loading: Arguments of :class:`SceneDataModule`.
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
        **loading: Any,
    ) -> None:
        super().__init__(**loading)
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
        self.folders = images, labels
        self.suffixes = image_suffix, label_suffix
        self.names = {"train": train_split, "val": val_split, "test": test_split}
        self.bad_share = bad_share
        self.ignore = ignore
        self.annotation = {"of": "pixels", "classes": list(classes), "values": list(values)}

    def scenes_of(self, split: str) -> PixelScenes:
        """The images of a split."""
        images, labels = (
            Path(self.root, folder.format(split=self.names[split])) for folder in self.folders
        )
        table = label_table(self.annotation["values"], self.ignore)
        return PixelScenes(_pairs(images, labels, *self.suffixes), table, self.bad_share)


def _pairs(images: Path, labels: Path, image_suffix: str, label_suffix: str) -> list:
    """The images below a folder, and the label images that belong to them.

    Raises:
        InputError: If there are none, or some have no label image.
    """
    for folder in (images, labels):
        if not folder.is_dir():
            raise InputError(f"{folder}: expected a folder (there is none)")
    endings = (image_suffix,) if image_suffix else tuple(image_endings())
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


class LabelledFiles:
    """Image files, and what their label images hold: a reader for :class:`ImageFiles`.

    Args:
        pairs: Paths of images and label images.

    Raises:
        InputError: On reading, if a label image is broken or holds no bytes.
    """

    def __init__(self, pairs: list[tuple[Path, Path]]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Path, tuple[Path, np.ndarray]]:
        image, path = self.pairs[index]
        return image, (path, _read_labels(path))


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
        pairs: Paths of images and label images.
        table: See :func:`label_table`.
        bad_share: See :class:`ImageFiles`.

    Raises:
        InputError: On reading, if a label image is of another size than its image, or holds values
            that the table does not know.
    """

    def __init__(self, pairs: list[tuple[Path, Path]], table: np.ndarray, bad_share: float) -> None:
        self.files = ImageFiles(LabelledFiles(pairs), channels=3, bad_share=bad_share)
        self.table = table

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, Tensor]:
        picture, (path, held) = cast(Any, self.files[index])
        if held.shape != (picture.height, picture.width):
            raise InputError(
                f"{path}: expected labels of the image's {picture.width} x {picture.height} "
                f"pixels (got {held.shape[1]} x {held.shape[0]})"
            )
        labels = self.table[held]
        unknown = held[labels == _UNKNOWN]
        if unknown.size:
            raise InputError(
                f"{path}: expected labels of {int((self.table < _UNKNOWN).sum())} classes or to "
                f"ignore (got {int(unknown.max())})"
            )
        return tv_tensors.Image(picture), tv_tensors.Mask(torch.from_numpy(labels))
