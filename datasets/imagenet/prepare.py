"""From ImageNet's archives to a tree of folders, one a class.

    python datasets/imagenet/prepare.py ARCHIVES imagenet

ARCHIVES is a folder with ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and
ILSVRC2012_devkit_t12.tar.gz (which knows the classes of the validation images). A class is in the
tree whole or not at all: run it again after an interruption.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scipy.io import loadmat

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
COUNTS = {"train": 1_281_167, "val": 50_000}


def prepare(archives: Path, tree: Path, counts: dict[str, int] | None = None) -> None:
    """Unpack both archives and check the numbers of images.

    Args:
        archives: The folder with the three files.
        tree: The folder to fill.
        counts: The images that each split must have; by default ImageNet-1K's.

    Raises:
        SystemExit: If a file is missing, or a number is not the right one.
    """
    for name in (TRAIN, VAL, DEVKIT):
        if not (archives / name).is_file():
            sys.exit(f"expected {archives / name} (there is none)")
    unpack_train(archives / TRAIN, tree / "train")
    unpack_val(archives / VAL, archives / DEVKIT, tree / "val")
    for split, wanted in (counts or COUNTS).items():
        found = sum(1 for _ in (tree / split).glob("*/*.JPEG"))
        if found != wanted:
            sys.exit(f"{tree / split}: expected {wanted} images (got {found})")
        print(f"{tree / split}: {found} images")


def unpack_train(archive: Path, folder: Path) -> None:
    """The training archive: one archive a class within it."""
    with tarfile.open(archive) as outer:
        for member in outer:
            name = Path(member.name).stem
            if (folder / name).exists():
                continue
            inner = outer.extractfile(member)
            if inner is None:
                sys.exit(f"{archive}: expected an archive for each class (got {member.name})")
            with tarfile.open(fileobj=inner) as images:
                _write(folder / name, _images(images))
                inner.seek(images.offset)
                if inner.read(512) != bytes(512):  # The mark of an archive's end.
                    shutil.rmtree(folder / name)
                    sys.exit(f"{archive}: {member.name} in it is truncated")
            print(folder / name)


def unpack_val(archive: Path, devkit: Path, folder: Path) -> None:
    """The validation archive: images in one heap, sorted by the classes in the devkit."""
    classes = validation_classes(devkit)
    with tempfile.TemporaryDirectory(dir=folder.parent) as heap:
        with tarfile.open(archive) as images:
            for name, content in _images(images):
                (Path(heap) / name).write_bytes(content)
        names = sorted(path.name for path in Path(heap).iterdir())
        if len(names) != len(classes):
            sys.exit(f"{archive}: expected {len(classes)} images (got {len(names)})")
        for wanted in sorted(set(classes)):
            if not (folder / wanted).exists():
                mine = [n for n, c in zip(names, classes, strict=True) if c == wanted]
                _write(folder / wanted, ((n, (Path(heap) / n).read_bytes()) for n in mine))
    print(folder)


def validation_classes(devkit: Path) -> list[str]:
    """The class of each validation image, in the order of their names."""
    with tarfile.open(devkit) as archive, tempfile.TemporaryDirectory() as folder:
        files = {Path(member.name).name: member for member in archive.getmembers()}
        try:
            meta, truth = files["meta.mat"], files["ILSVRC2012_validation_ground_truth.txt"]
        except KeyError as error:
            sys.exit(f"{devkit}: expected a file {error} in it (there is none)")
        path = Path(folder) / "meta.mat"
        path.write_bytes(_content(archive, meta))
        synsets = loadmat(path, squeeze_me=True)["synsets"]
        names = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        return [names[int(line)] for line in _content(archive, truth).split()]


def _images(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Names, without folders, and contents of an archive's images."""
    for member in archive:
        if member.isfile() and member.name.endswith(".JPEG"):
            yield Path(member.name).name, _content(archive, member)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def _write(folder: Path, images: Iterator[tuple[str, bytes]]) -> None:
    """Fill a folder, which gets its name when it is whole."""
    partial = folder.with_name(f".{folder.name}.partial")  # Hidden, so that it is no class.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, content in images:
        (partial / name).write_bytes(content)
    partial.rename(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("archives", type=Path, help="Folder with the three archives.")
    parser.add_argument("tree", type=Path, help="Folder to fill with train/ and val/.")
    prepare(**vars(parser.parse_args()))
