"""Labelled images in folders of any layout, with defaults for few of them."""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from pyg_avig.data.loading.image_files import ImageFiles
from pyg_avig.data.loading.image_graphs import ImageGraphDataModule
from pyg_avig.data.loading.image_trees import files_below, image_endings, in_order
from pyg_avig.data.loading.splits import SPLITS
from pyg_avig.errors import InputError
from pyg_avig.files import local_file, written_whole

_log = logging.getLogger(__name__)
_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}
_SHARE = 0.15  # Of validation, and of the test.
_LOOKED_AT = 200  # Images whose size is read.
_SIDES = (64, 160)  # Least and largest side of the input, in pixels, unless it is given.
_GREY = ("1", "L", "I;16")
_SEEN = 30_000  # Images that a training sees in all, unless it is told.


class LabelledFile(NamedTuple):
    """An image file, its class, and the split that its folder says, if one does."""

    path: str
    label: str
    split: str | None


class OwnImages(ImageGraphDataModule):
    """Images of one's own: a folder a class, with or without a split.

    The folders may lie as ``ROOT/CLASS``, ``ROOT/train/CLASS`` or ``ROOT/CLASS/train``, in folders
    around them, and hold images at any depth. A split is taken from folders ``train``, ``val`` (or
    ``valid``, ``validation``) and ``test``; without ``val`` it is drawn from ``train``, and without
    any folders of splits 15 % of each class are drawn for validation and for the test. A training
    writes down which file is in which split, in ``split.csv`` of its run, and the run's config
    names that table.

    Args:
        root: The folder.
        split: A table ``split.csv`` to follow, with the columns ``path`` (below the root),
            ``class`` and ``split``; images that it does not name are left out.
        seed: Of the split that is drawn.
        image_size: Side of the model's input, in pixels; by default the middle one of the images'
            shorter sides, in steps of 32 between 64 and 160.
        batch_size: Images that one update sees; by default a tenth of the training images, from 8
            to 32.
        num_workers: Worker processes a loader.
        augmentation: Arguments of timm's ``create_transform`` for training.
        crop_pct: For evaluation, the middle crop's side over the resized image's.
        interpolation: How images are resized: bilinear or bicubic.
        bad_share: The share of files that may be broken; see :class:`ImageFiles`.
        channels: 3, or 1 for grey; by default 1 if all images are grey.

    Raises:
        InputError: If there are no images of two classes, or an argument is none of these.
    """

    def __init__(
        self,
        root: str,
        split: str | None = None,
        seed: int = 0,
        image_size: int | None = None,
        batch_size: int | None = None,
        num_workers: int = 0,
        augmentation: dict[str, Any] | None = None,
        crop_pct: float = 1.0,
        interpolation: str = "bilinear",
        bad_share: float = 0.05,
        channels: int | None = None,
    ) -> None:
        if not Path(root).is_dir():
            raise InputError(f"expected data.root as a folder (there is none at {root!r})")
        if channels not in (None, 1, 3):
            raise InputError(f"channels must be 1 or 3 (got {channels})")
        self.root, self.bad_share = root, bad_share
        files = labelled_files(root)
        self.files = read_split(split, root) if split else draw_split(files, root, seed)
        self.classes = in_order({file.label for file in self.files["train"]})
        _check(self.files, self.classes, root)
        sizes = _sizes([file.path for file in self.files["train"]])
        self.channels = channels or (1 if all(mode in _GREY for mode, _ in sizes) else 3)
        self.mean = self.std = (0.5,) * self.channels
        if image_size is None:
            side = median(side for _, side in sizes) if sizes else _SIDES[0]
            image_size = min(max(32 * round(side / 32), _SIDES[0]), _SIDES[1])
        if batch_size is None:
            batch_size = min(max(len(self.files["train"]) // 10, 8), 32)
        super().__init__(
            image_size, batch_size, num_workers, augmentation, interpolation, crop_pct=crop_pct
        )

    @property
    def suggested_epochs(self) -> int:
        """Epochs for this many images: so that about 30,000 are seen, from 10 epochs to 100."""
        return min(max(round(_SEEN / len(self.files["train"])), 10), 100)

    def setup(self, stage: str | None = None) -> None:
        """Open the splits; before a training look through all of it, and write the split down."""
        class_map = {name: index for index, name in enumerate(self.classes)}
        for split, files in self.files.items():
            if files:
                self.splits[split] = ImageFiles(
                    _Reader(files, class_map), self.channels, self.bad_share
                )
        if stage == "fit":
            for split in ("train", "val"):
                self.splits[split].look_through()  # type: ignore[union-attr]

    def loader(self, split: str, training: bool = False) -> Any:
        """See :meth:`ImageGraphDataModule.loader`."""
        if not self.files[split]:
            raise InputError(
                f"{self.root}: expected images in a folder {split!r}, beside those of the other "
                "splits (there is none); `pyg-avig validate` measures on validation"
            )
        return super().loader(split, training)

    def write_split(self, path: str | Path) -> None:
        """Write which file is of which class and in which split, as ``split`` reads it."""
        with written_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as f:
            writer = csv.writer(f, lineterminator="\n")
            writer.writerow(["path", "class", "split"])
            for split, files in self.files.items():
                for file in files:
                    writer.writerow([os.path.relpath(file.path, self.root), file.label, split])


class _Reader:
    """Files as timm's readers give them: open, with the number of the class."""

    def __init__(self, files: Sequence[LabelledFile], class_map: dict[str, int]) -> None:
        self.samples = [(file.path, class_map[file.label]) for file in files]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[BinaryIO, int]:
        path, label = self.samples[index]
        return open(path, "rb"), label


def labelled_files(root: str | Path) -> list[LabelledFile]:
    """The images below a folder, each with its class and split, in order of their names.

    Raises:
        InputError: If they lie in no folders of classes.
    """
    folder = Path(root)
    while len(below := _folders(folder)) == 1 and not _images(folder) and _folders(below[0]):
        folder = below[0]  # Around all of them, as archives have it.
    folders = _folders(folder)
    found: list[LabelledFile] = []
    if folders and {path.name.lower() for path in folders} <= _SPLIT_OF.keys():
        for path in folders:
            found += _of_classes(_folders(path), _SPLIT_OF[path.name.lower()])
    else:
        found = list(_of_classes(folders, None))
    if not found:
        stray = sum(len(_images(path)) for path in (folder, *folders))
        raise InputError(
            f"{root}: expected one folder a class, with images in them (got {len(folders)} folders "
            f"and {stray} images in none of a class)"
        )
    return found


def _of_classes(folders: list[Path], split: str | None) -> Iterator[LabelledFile]:
    empty = []
    for path in folders:
        below = _folders(path)
        names = {part.name.lower() for part in below}
        if split is None and below and names <= _SPLIT_OF.keys() and not _images(path):
            parts = [(part, _SPLIT_OF[part.name.lower()]) for part in below]
        else:
            parts = [(path, split)]  # type: ignore[list-item]
        files = [LabelledFile(file, path.name, of) for p, of in parts for file in _images(p, True)]
        if not files:
            empty.append(path.name)
        yield from files
    if empty:
        _log.warning("left out %d folders without images: %s", len(empty), ", ".join(empty[:5]))


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and entry.name[0] != "."]
    return [folder / name for name in in_order(names)]


def _images(folder: Path, deep: bool = False) -> list[str]:
    endings = image_endings()
    if deep:
        files = list(files_below(str(folder)))
    else:
        with os.scandir(folder) as entries:
            files = [e.path for e in entries if e.is_file() and e.name[0] != "."]
    return in_order(file for file in files if os.path.splitext(file)[1].lower() in endings)


def draw_split(
    files: Sequence[LabelledFile], root: str | Path, seed: int = 0
) -> dict[str, list[LabelledFile]]:
    """The files of each split: as their folders say; what they do not say is drawn class by class.

    Of a class of few images at least one each is for training, validation and the test, in this
    order.

    Args:
        files: The files.
        root: Their folder, for the message.
        seed: Of what is drawn.

    Raises:
        InputError: If folders say a split without ``train``.
    """
    said = {file.split for file in files}
    parts: dict[str, list[LabelledFile]] = {
        split: [file for file in files if file.split == split] for split in SPLITS
    }
    if said != {None} and not parts["train"]:
        raise InputError(f"{root}: expected a folder 'train' beside {', '.join(map(repr, said))}")
    source = parts["train"] if said != {None} else list(files)
    wanted = ["val", "test"] if said == {None} else [] if parts["val"] else ["val"]
    drawn: dict[str, list[LabelledFile]] = {split: [] for split in SPLITS}
    random = np.random.default_rng(seed)
    for label in in_order({file.label for file in source}):
        of_class = [file for file in source if file.label == label]
        random.shuffle(of_class)
        share = max(round(_SHARE * len(of_class)), 1)
        for split in wanted:
            number = share if len(of_class) > 1 else 0
            drawn[split] += of_class[:number]
            of_class = of_class[number:]
        drawn["train"] += of_class
    parts["train"] = drawn["train"]
    for split in wanted:
        parts[split] = drawn[split]
    return {split: sorted(part, key=lambda file: file.path) for split, part in parts.items()}


def read_split(path: str | Path, root: str | Path) -> dict[str, list[LabelledFile]]:
    """The files of each split, as a table says that :meth:`OwnImages.write_split` has written.

    Raises:
        InputError: If it is no such table, or a file is not there.
    """
    parts: dict[str, list[LabelledFile]] = {split: [] for split in SPLITS}
    try:
        with local_file(path) as file, file.open(newline="", encoding="utf-8") as f:
            reader = csv.DictReader(f)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a table split.csv ({error})") from None
    if not {"path", "class", "split"} <= set(reader.fieldnames or ()):
        raise InputError(
            f"{path}: expected the columns path, class and split (got {reader.fieldnames})"
        )
    for line, row in enumerate(rows, 2):
        if row["split"] not in parts or not row["path"] or not row["class"]:
            raise InputError(
                f"{path}, line {line}: expected path, class and one of {', '.join(SPLITS)} (got "
                f"{row['path']!r}, {row['class']!r}, {row['split']!r})"
            )
        image = os.path.join(root, row["path"])
        if not os.path.isfile(image):
            raise InputError(f"{path}, line {line}: expected an image (there is none at {image})")
        parts[row["split"]].append(LabelledFile(image, row["class"], row["split"]))
    return parts


def _check(files: dict[str, list[LabelledFile]], classes: list[str], root: str) -> None:
    """Refuse what nothing can be learned of, and say what is odd."""
    if len(classes) < 2:
        raise InputError(
            f"{root}: expected images of two classes or more to train on (got "
            f"{', '.join(map(repr, classes)) or 'none'})"
        )
    if not files["val"]:
        raise InputError(f"{root}: expected at least 2 images of a class, for validation (got 1)")
    for split in ("val", "test"):
        unknown = in_order({file.label for file in files[split]} - set(classes))
        if unknown:
            raise InputError(
                f"{root}: expected no other classes in {split!r} than in 'train' (got "
                f"{unknown[0]!r})"
            )
    counts = Counter(file.label for file in files["train"])
    few = [label for label in classes if counts[label] < 5]
    if few:
        _log.warning("fewer than 5 training images of %s", ", ".join(map(repr, few[:5])))


def _sizes(paths: Sequence[str]) -> list[tuple[str, int]]:
    """Mode and shorter side of some of the images, evenly from all; of those that can be read."""
    found = []
    for path in paths[:: max(len(paths) // _LOOKED_AT, 1)]:
        try:
            with Image.open(path) as image:
                found.append((image.mode, min(image.size)))
        except Exception:  # Broken files are named when all are looked through.
            continue
    return found
