"""Which files of a folder or tar file are images, and of which class."""

from __future__ import annotations

import glob
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile
from timm.data.readers import get_img_extensions, set_img_extensions
from timm.utils.misc import natural_key

from pyg_avig.errors import InputError

_log = logging.getLogger(__name__)


def image_endings() -> set[str]:
    """The endings of the files that Pillow reads, such as ``.webp``."""
    known = Image.registered_extensions()  # Loads the plugins, which fill OPEN.
    readers = {name: reader for name, (reader, _) in Image.OPEN.items() if name != "MPEG"}
    stubs = {  # These, as MPEG's, know a file by its first bytes and cannot decode it.
        name
        for name, reader in readers.items()
        if isinstance(reader, type) and issubclass(reader, ImageFile.StubImageFile)
    }
    return {ending for ending, name in known.items() if name in readers.keys() - stubs}


class ImageTree:
    """The images of a folder that has one folder a class, read as timm's readers are.

    An image is a file with the ending of a format that Pillow reads, at any depth below the folder
    of its class. Hidden files and folders (``.name``) never count. All else that is there is
    counted in the log: files of other endings, images that lie in no folder of a class, folders
    without images. Those without images are classes too.

    Args:
        root: The folder.
        class_map: The number of each class; others are left out. By default all folders, numbered
            by name, 2 before 10.

    Attributes:
        class_to_idx: The number of each class.
        empty: The folders without images.

    Raises:
        InputError: If there are no images.
    """

    def __init__(self, root: str | Path, class_map: dict[str, int] | None = None) -> None:
        with os.scandir(root) as entries:
            known = [entry for entry in entries if not _hidden(entry.name)]
        folders = in_order(entry.name for entry in known if entry.is_dir())
        endings, others = image_endings(), Counter[str]()
        stray = sum(_ending(entry.name) in endings for entry in known if not entry.is_dir())
        self.class_to_idx = class_map or {name: index for index, name in enumerate(folders)}
        self.empty = []
        self.samples: list[tuple[str, int]] = []
        for name in folders:
            files = list(files_below(os.path.join(root, name)))
            images = [file for file in files if _ending(file) in endings]
            others.update(_ending(file) for file in files if _ending(file) not in endings)
            if not images:
                self.empty.append(name)
            if name in self.class_to_idx:
                self.samples += [(file, self.class_to_idx[name]) for file in images]
        self.samples.sort(key=lambda sample: (natural_key(sample[0]), sample[0]))
        self._report(root, others, stray)
        if not self.samples:
            raise InputError(
                f"{root}: expected one folder a class, with images in them (got {len(folders)} "
                f"folders and {stray} images beside them)"
            )

    def _report(self, root: str | Path, others: Counter[str], stray: int) -> None:
        found = []
        if others:
            kinds = ", ".join(
                f"{count} {kind or 'without'}" for kind, count in others.most_common(5)
            )
            found.append(f"{others.total()} files of other endings ({kinds})")
        if stray:
            found.append(f"{stray} images in no folder of a class")
        if self.empty:
            names = ", ".join(map(repr, self.empty[:5])) + ", ..." * (len(self.empty) > 5)
            found.append(f"{len(self.empty)} folders without images ({names})")
        if found:
            _log.warning(
                "%s: took %d images and left %s", root, len(self.samples), "; ".join(found)
            )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[BinaryIO, int]:
        """The open file of an image, and its class."""
        path, label = self.samples[index]
        return open(path, "rb"), label


def images_among(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """The image files that words of a command line stand for.

    Args:
        words: Files; folders, for the images in them at any depth, in order of their names and
            without hidden ones; patterns, such as ``*.png`` or ``**/*.jpg``, where no file has that
            name.

    Returns:
        The files, and an error for each folder or pattern without any.
    """
    found, errors = [], []
    for word in words:
        matches = [word]
        if glob.has_magic(word) and not os.path.exists(word):
            matches = in_order(glob.glob(word, recursive=True))
        files = [file for match in matches for file in _images_at(match)]
        if not files:
            kind = "folder with images" if os.path.isdir(word) else "pattern that images match"
            errors.append(f"{word}: expected a {kind} (there are none)")
        found += files
    return found, errors


def _images_at(path: str) -> list[str]:
    """The images in a folder; of anything else the path itself."""
    if not os.path.isdir(path):
        return [path]
    endings = image_endings()
    return in_order(file for file in files_below(path) if _ending(file) in endings)


@contextmanager
def all_endings() -> Iterator[None]:
    """Within, timm takes the files of every ending that Pillow reads."""
    before = get_img_extensions()
    try:
        set_img_extensions(sorted(image_endings()))
        yield
    finally:
        set_img_extensions(before)


def tar_reader(reader: Any, renumber: bool) -> Any:
    """timm's reader of a tar file, without what is hidden or in no folder of a class.

    A class is the innermost folder of an image, or the tar file within the tar file.

    Args:
        reader: timm's ``ReaderImageInTar``, changed.
        renumber: Number the classes that stay anew, by name.

    Raises:
        InputError: If there are no images, or two folders have the name of one class.
    """
    names = [reader.class_idx_to_name[int(target)] for target in reader.targets]
    paths = [
        [
            part
            for member in (child, image)
            if member is not None
            for part in Path(member.path).parts
        ]
        for image, _, child in reader.samples
    ]
    hidden = [any(_hidden(part) for part in path) for path in paths]
    stray = [name in ("", ".") for name in names]
    keep = [not (a or b) for a, b in zip(hidden, stray, strict=True)]
    if any(stray):
        _log.warning("%s: left %d images in no folder of a class", reader.root, sum(stray))
    folders: dict[str, tuple[str, ...]] = {}
    for name, path, kept in zip(names, paths, keep, strict=True):
        other = folders.setdefault(name, tuple(path[:-1])) if kept else ()
        if kept and other != tuple(path[:-1]):
            raise InputError(
                f"{reader.root}: expected one folder a class (got {'/'.join(other)} and "
                f"{'/'.join(path[:-1])})"
            )
    if not folders:
        raise InputError(f"{reader.root}: expected one folder a class, with images in them")
    if renumber:
        reader.class_name_to_idx = {name: n for n, name in enumerate(in_order(folders))}
    reader.samples = reader.samples[np.array(keep)]
    kept_names = [name for name, kept in zip(names, keep, strict=True) if kept]
    reader.targets = np.array([reader.class_name_to_idx[name] for name in kept_names])
    return reader


def _hidden(name: str) -> bool:
    return name.startswith(".") and name not in (".", "..")


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def in_order(names: Iterable[str]) -> list[str]:
    """Names as people order them, 2 before 10."""
    return sorted(names, key=lambda name: (natural_key(name), name))


def files_below(folder: str) -> Iterator[str]:
    """The files below a folder that are not hidden; links to folders around it are left out."""
    root = os.path.realpath(folder)
    around = {folder: {root, *map(str, Path(root).parents)}}
    for place, folders, files in os.walk(folder, followlinks=True):
        real = {name: os.path.realpath(os.path.join(place, name)) for name in folders}
        above = around.pop(place)
        folders[:] = [name for name in folders if not _hidden(name) and real[name] not in above]
        around |= {os.path.join(place, name): above | {real[name]} for name in folders}
        yield from (os.path.join(place, name) for name in files if not _hidden(name))
