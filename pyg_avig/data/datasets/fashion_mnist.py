"""Fashion-MNIST, from its IDX files."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from pyg_avig.data.datasets.packages import cache_folder
from pyg_avig.data.loading.image_graphs import ArrayImages, ImageGraphDataModule
from pyg_avig.errors import InputError

DEBIAN_ROOT = Path("/usr/share/datasets/fashion-mnist")
_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


class FashionMNIST(ImageGraphDataModule):
    """`Fashion-MNIST <https://arxiv.org/abs/1708.07747>`_.

    70,000 images, 28 x 28 pixels, 10 classes. Card: ``datasets/fashion_mnist/README.md``.
    The 10,000 test images are the published ones; 5,000 of the 60,000 training images,
    the same in every run, are for validation.

    Args:
        root: A folder with the four IDX files, gzipped or not, there or in
            ``FashionMNIST/raw`` as torchvision lays them. ``None`` looks in the place of
            the Debian package ``dataset-fashion-mnist``, then in the user's cache, and
            downloads them there with torchvision if they are in neither.
        download: Download them into ``root`` if they are not there.
        image_size: See :class:`ImageGraphDataModule`.
        batch_size: See :class:`ImageGraphDataModule`.
        num_workers: See :class:`ImageGraphDataModule`.
        augmentation: See :class:`ImageGraphDataModule`.
        limit: Keep this many images of each split, for a quick trial.
        only: Names of the classes to keep, such as half of them for pretraining; ``None`` for all.
    """

    channels = 1
    mean = (0.286,)
    std = (0.353,)
    num_val = 5000

    def __init__(
        self,
        root: str | None = None,
        download: bool = False,
        image_size: int = 32,
        batch_size: int = 128,
        num_workers: int = 0,
        augmentation: dict[str, Any] | None = None,
        limit: int | None = None,
        only: list[str] | None = None,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers, augmentation)
        unknown = sorted(set(only or ()) - set(CLASSES))
        if unknown or (only is not None and len(set(only)) < 2):
            raise InputError(f"only must name two or more of {', '.join(CLASSES)} (got {only})")
        self.classes = [name for name in CLASSES if only is None or name in only]
        self.root = root
        self.download = download
        self.limit = limit

    def prepare_data(self) -> None:
        """Download the files where they are wanted and not there."""
        self._find(download=True)

    def setup(self, stage: str | None = None) -> None:
        """Load and split the images."""
        folder = self._find(download=False)
        arrays = {}
        for split, files in _FILES.items():
            images, labels = (read_idx(_idx_file(folder, name)) for name in files)
            if images.ndim != 3 or len(images) != len(labels):
                raise InputError(
                    f"{folder}: expected images (N, H, W) and as many labels "
                    f"(got {images.shape} and {labels.shape})"
                )
            if labels.max(initial=0) >= len(CLASSES):
                raise InputError(
                    f"{folder}: expected labels below {len(CLASSES)} (got {labels.max()})"
                )
            kept = [CLASSES.index(name) for name in self.classes]
            among = np.isin(labels, kept)
            arrays[split] = images[among], np.searchsorted(kept, labels[among])
        images, labels = arrays["train"]
        order = np.random.default_rng(0).permutation(len(images))
        num_val = min(self.num_val, len(images) // 5)
        val, train = order[:num_val], order[num_val:]
        test_images, test_labels = arrays["test"]
        self.splits = {
            "train": ArrayImages(images[train], labels[train], self.limit),
            "val": ArrayImages(images[val], labels[val], self.limit),
            "test": ArrayImages(test_images, test_labels, self.limit),
        }

    def _find(self, download: bool) -> Path:
        roots = [Path(self.root)] if self.root else [DEBIAN_ROOT, cache_folder()]
        folders = [f for root in roots for f in (root, root / "FashionMNIST" / "raw")]
        for folder in folders:
            if all(
                _idx_file(folder, name).is_file() for names in _FILES.values() for name in names
            ):
                return folder
        if download and (self.download or not self.root):
            _download(roots[-1])
            return self._find(download=False)
        raise InputError(
            f"expected the IDX files of Fashion-MNIST ({_FILES['train'][0]}.gz and so "
            f"on) in one of {', '.join(map(str, folders))} (got none there); install the "
            "Debian package dataset-fashion-mnist, or set download to true"
        )


def _idx_file(folder: Path, name: str) -> Path:
    zipped = folder / f"{name}.gz"
    return zipped if zipped.is_file() else folder / name


def _download(root: Path) -> None:
    from torchvision import datasets

    try:
        datasets.FashionMNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"Fashion-MNIST is not on this machine, and downloading it to {root} failed "
            f"({error}); install the Debian package dataset-fashion-mnist, or name a "
            "folder with its IDX files as root"
        ) from None


def read_idx(path: Path) -> np.ndarray:
    """The array of unsigned bytes in an IDX file, gzipped or not.

    Format: <http://yann.lecun.com/exdb/mnist/>: two zero bytes, the type (8: unsigned
    byte), the number of axes, each axis as a big-endian 32-bit int, the values.

    Raises:
        InputError: If the file is truncated or of another format.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: expected an IDX file ({error})") from None
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise InputError(
            f"{path}: expected an IDX file of unsigned bytes (it begins {content[:4]!r})"
        )
    axes = content[3]
    shape = np.frombuffer(content[4 : 4 + 4 * axes], ">u4").astype(int)
    values = np.frombuffer(content, np.uint8)[4 + 4 * axes :]
    if len(values) != shape.prod():
        raise InputError(
            f"{path}: expected {' x '.join(map(str, shape))} bytes (got {len(values)}: "
            "is it truncated?)"
        )
    return values.reshape(shape)
