"""The handwritten digits that ship in scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyg_avig.data.loading.image_graphs import ArrayImages, ImageGraphDataModule

CLASSES = tuple(str(digit) for digit in range(10))


class Digits(ImageGraphDataModule):
    """1,797 handwritten digits, 8 x 8 pixels, 10 classes; nothing to download.

    Card: ``datasets/digits/README.md``. A fifth is held out for the test and a tenth of
    the rest for validation, both stratified and the same in every run.

    Args:
        image_size: See :class:`ImageGraphDataModule`.
        batch_size: See :class:`ImageGraphDataModule`.
        num_workers: See :class:`ImageGraphDataModule`.
        augmentation: See :class:`ImageGraphDataModule`.
        limit: Keep this many images of each split, for a quick trial.
    """

    channels = 1

    def __init__(
        self,
        image_size: int = 32,
        batch_size: int = 64,
        num_workers: int = 0,
        augmentation: dict[str, Any] | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers, augmentation)
        self.classes = list(CLASSES)
        self.limit = limit

    def setup(self, stage: str | None = None) -> None:
        """Load and split the digits."""
        from sklearn.datasets import load_digits  # Every command would wait for it.

        pixels, labels = load_digits(return_X_y=True)
        # Grey levels are 0 to 16.
        pixels = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        rest, test = _split(np.arange(len(labels)), labels, 0.2)
        train, val = _split(rest, labels, 0.1)
        self.splits = {
            name: ArrayImages(pixels[index], labels[index], self.limit)
            for name, index in (("train", train), ("val", val), ("test", test))
        }


def _split(index: np.ndarray, labels: np.ndarray, share: float) -> list[np.ndarray]:
    from sklearn.model_selection import train_test_split

    return train_test_split(index, test_size=share, stratify=labels[index], random_state=0)
