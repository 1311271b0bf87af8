"""ImageNet, and any other labelled images that timm can read."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_dataset

from pyg_avig.data.loading.image_files import MODES, ImageFiles
from pyg_avig.data.loading.image_graphs import ImageGraphDataModule
from pyg_avig.data.loading.image_trees import ImageTree, all_endings, tar_reader
from pyg_avig.data.loading.streams import ImageStream
from pyg_avig.errors import InputError

_log = logging.getLogger(__name__)


class Images(ImageGraphDataModule):
    """Labelled images, from a tree of folders or through another reader of timm.

    Args:
        root: Folder of the data; for a tree it holds one folder a split (such as ``train`` and
            ``val``), each with one folder a class; see :class:`ImageTree`.
        reader: Name of the data set for timm's ``create_dataset``: empty for a tree of folders or
            a folder of tar files, ``hfds/NAME``, or ``wds/`` for shards of WebDataset, whose splits
            are names of ``_info.json`` or such as ``train-{0000..0099}.tar|100000``.
        train_split: Name of the training split.
        val_split: Name of the validation split.
        test_split: Name of the test split; ImageNet's test labels are not public, so by default
            the validation split.
        classes: Names of the classes, in the order of their indices: for a tree those of its
            folders, by default all of the training split's, empty ones too. The numbers are the
            same in every split; classes that one lacks are named in the log, others are refused.
        image_size: Side of the model's input, in pixels.
        batch_size: Images that one update sees, on all devices together.
        num_workers: Worker processes a loader.
        augmentation: Arguments of timm's ``create_transform`` for training.
        repeats: Times that an image is seen, differently augmented, in the same update.
        crop_pct: For evaluation, the middle crop's side over the resized image's.
        interpolation: How images are resized: bilinear or bicubic.
        bad_share: The share of files that may be broken; see :class:`ImageFiles`.
        channels: 3, or 1 for grey.
        mean: What is subtracted from each channel of pixels in [0, 1]; by default ImageNet's mean,
            for grey 0.5.
        std: What that is divided by; by default ImageNet's standard deviation, for grey 0.5.
    """

    def __init__(
        self,
        root: str,
        reader: str = "",
        train_split: str = "train",
        val_split: str = "val",
        test_split: str = "val",
        classes: list[str] | None = None,
        image_size: int = 224,
        batch_size: int = 256,
        num_workers: int = 0,
        augmentation: dict[str, Any] | None = None,
        repeats: int = 1,
        crop_pct: float = 0.9,
        interpolation: str = "bicubic",
        bad_share: float = 1e-3,
        channels: int = 3,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        if channels not in (1, 3):
            raise InputError(f"channels must be 1 or 3 (got {channels})")
        self.channels = channels
        if channels == 3:
            self.mean, self.std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
        for name, given in (("mean", mean), ("std", std)):
            if given is not None and len(given) != channels:
                raise InputError(
                    f"{name} must have a value for each of {channels} channels (got {given})"
                )
        self.mean, self.std = mean or self.mean, std or self.std
        super().__init__(
            image_size, batch_size, num_workers, augmentation, interpolation, repeats, crop_pct
        )
        self.root = root
        self.reader = reader
        self.names = {"train": train_split, "val": val_split, "test": test_split}
        self.bad_share = bad_share
        self._readers: dict[str, Any] = {}  # A large tree takes a while to look through.
        self.classes = self._tree_classes() if classes is None else classes

    def _tree_classes(self) -> list[str]:
        """The names of the training split's folders, in the order of timm's indices."""
        indices = {} if self._streams() else _indices(self._plain_reader("train"))
        if not indices:
            raise InputError(f"expected `classes`, as {self.reader!r} does not name them")
        return [str(name) for name, _ in sorted(indices.items(), key=lambda item: item[1])]

    def setup(self, stage: str | None = None) -> None:
        """Find the files of the splits that this stage takes."""
        wanted = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
        class_map = {name: index for index, name in enumerate(self.classes)}
        if stage == "fit" and not self.reader and not Path(self.root, self.names["test"]).exists():
            _log.warning(
                "%s: there is no %r, of which `pyg-avig test` would measure; data.test_split names "
                "another",
                *(self.root, self.names["test"]),
            )
        for split in wanted.get(stage or "", ("train", "val", "test")):
            if self._streams():
                mode = MODES[self.channels]
                self.splits[split] = ImageStream(partial(self._open, split, input_img_mode=mode))
                continue
            reader = self._plain_reader(split)
            indices = _indices(reader)
            empty = getattr(reader, "empty", [])
            unknown = sorted(indices.keys() - class_map.keys() - set(empty))
            if unknown:
                raise InputError(
                    f"{self.root}: expected no other classes in {self.names[split]!r} than those "
                    f"{len(class_map)} that are known (got {unknown[0]!r})"
                )
            lacking = sorted(class_map.keys() - (indices.keys() - set(empty))) if indices else []
            if lacking:
                _log.warning(
                    "%s: no images of %d of %d classes in %r: %s",
                    *(self.root, len(lacking), len(class_map), self.names[split]),
                    ", ".join(map(repr, lacking[:5])) + ", ..." * (len(lacking) > 5),
                )
            if indices and indices != class_map:  # Each split is numbered by what it has.
                reader = self._reader(split, class_map)
            self.splits[split] = ImageFiles(reader, self.channels, self.bad_share)
            if stage == "fit":
                self.splits[split].look_through()  # type: ignore[union-attr]

    def _streams(self) -> bool:
        return self.reader.split("/")[0] in ("wds", "tfds", "hfids")

    def _plain_reader(self, split: str) -> Any:
        """The reader of a split, with classes numbered as timm finds them."""
        name = self.names[split]
        if name not in self._readers:
            self._readers[name] = self._reader(split)
        return self._readers[name]

    def _reader(self, split: str, class_map: dict[str, int] | None = None) -> Any:
        root, name = Path(self.root), self.names[split]
        there = (root / name).is_dir() or (root / name).is_file()
        if not self.reader and not root.is_dir():
            raise InputError(f"expected data.root as a folder (there is none at {self.root!r})")
        if not self.reader and not there:
            raise InputError(
                f"{root}: expected a folder {name!r} with one folder a class (there is none); "
                "OwnImages, of `--config own_images`, takes other layouts"
            )
        if not self.reader and (root / name).is_dir():
            return ImageTree(root / name, class_map)
        reader = getattr(self._open(split, class_map=class_map or {}), "reader", None)
        if not self.reader:
            return tar_reader(reader, renumber=class_map is None)
        if reader is None or not hasattr(reader, "__getitem__"):
            raise InputError(
                f"expected a reader of timm that gives files (got that of {self.reader!r})"
            )
        return reader

    def _open(self, split: str, **args: Any) -> Any:
        """timm's data set of a split."""
        name = self.names[split]
        try:
            with all_endings():
                return create_dataset(self.reader, self.root, split=name, **args)
        except (
            RuntimeError,
            AssertionError,
            ValueError,
            ImportError,
            OSError,
            AttributeError,
        ) as error:
            raise InputError(f"{self.root}: timm cannot read {name!r} ({error})") from None


def _indices(reader: Any) -> dict[str, int]:
    """The classes that a reader of timm knows by name, and their indices."""
    for attribute in ("class_to_idx", "class_name_to_idx"):
        if getattr(reader, attribute, None):
            return getattr(reader, attribute)
    return {}
