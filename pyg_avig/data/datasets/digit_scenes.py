"""Scenes of the handwritten digits that ship in scikit-learn, composed as they are asked for."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes

from pyg_avig.data.datasets.digits import CLASSES, Digits
from pyg_avig.data.loading.image_graphs import ArrayImages
from pyg_avig.data.loading.scenes import InstanceDataModule, SemanticDataModule
from pyg_avig.errors import InputError

_INK = 85  # A third of full ink.
_TRACE = 25  # Where there is less, another digit may lie.
_TRIES = 20  # To place a digit where there is none.
_SMALLEST, _LARGEST = 0.35, 0.57  # Sizes of digits, as shares of a scene's side.


class DigitComposer:
    """Scenes of several digits on a noisy ground, the same for an index whenever it is asked for.

    Digits have different sizes, greys and places and do not overlap; a pixel belongs to a digit
    where its ink covers more than a third of it. Their sizes are in proportion to the scene's.

    Args:
        digits: The digits.
        number: Scenes.
        seed: Draws other scenes.
        side: Height and width of a scene, in pixels, from 48 on.
    """

    def __init__(self, digits: ArrayImages, number: int, seed: tuple[int, ...], side: int) -> None:
        if number < 1:
            raise InputError(f"expected at least one scene (got {number})")
        if side < 48:
            raise InputError(f"side must be at least 48 (got {side})")
        self.digits = digits
        self.number = number
        self.seed = seed
        self.side = side

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """The scene (3, S, S) of bytes, a mask of each digit (n, S, S), and the digits (n,)."""
        generator = np.random.default_rng([*self.seed, index])
        side = self.side
        canvas = generator.normal(0, 12, (side, side)) + generator.integers(20, 80)
        taken = np.zeros((side, side), dtype=bool)
        masks, labels = [], []
        for _ in range(generator.integers(2, 5)):
            picture, label = self.digits[int(generator.integers(len(self.digits)))]
            size = int(generator.integers(int(_SMALLEST * side), int(_LARGEST * side)))
            digit = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC), np.float64)
            inked = digit > _TRACE
            for _ in range(_TRIES):
                top, left = generator.integers(0, side - size + 1, 2)
                place = np.s_[top : top + size, left : left + size]
                if not (taken[place] & inked).any():
                    break
            else:
                continue
            share = digit / 255
            canvas[place] = (1 - share) * canvas[place] + share * generator.integers(150, 256)
            taken[place] |= inked
            mask = np.zeros((side, side), dtype=np.uint8)
            mask[place] = digit > _INK
            masks.append(mask)
            labels.append(label)
        image = torch.from_numpy(canvas.clip(0, 255).astype(np.uint8)).expand(3, -1, -1)
        return image, torch.from_numpy(np.stack(masks)), torch.tensor(labels)


class DigitInstances(InstanceDataModule):
    """Scenes of digits with a box and a mask for each; nothing to download.

    Card: ``datasets/digit_scenes/README.md``. Each split has its own digits.

    Args:
        side: Height and width of a scene, in pixels.
        scenes: Scenes to train on; a quarter as many are for validation, and for the test.
        seed: Draws other scenes.
        masks: Whether objects have masks, besides boxes.
        **loading: Arguments of :class:`SceneDataModule`.
    """

    def __init__(
        self,
        side: int = 64,
        scenes: int = 1024,
        seed: int = 0,
        masks: bool = True,
        **loading: Any,
    ) -> None:
        super().__init__(**loading)
        self.args = side, scenes, seed
        self.masks = masks
        self.annotation = {
            "of": "instances",
            "masks": masks,
            "classes": list(CLASSES),
            "category_ids": list(range(1, len(CLASSES) + 1)),
        }

    def scenes_of(self, split: str) -> DigitObjects:
        """The scenes of a split's digits."""
        return DigitObjects(_composer(split, *self.args), self.masks)


class DigitPixels(SemanticDataModule):
    """Scenes of digits with a class for each pixel: a digit, or none; nothing to download.

    Card: ``datasets/digit_scenes/README.md``. Each split has its own digits.

    Args:
        side: See :class:`DigitInstances`.
        scenes: See :class:`DigitInstances`.
        seed: See :class:`DigitInstances`.
        **loading: Arguments of :class:`SceneDataModule`.
    """

    def __init__(
        self,
        side: int = 64,
        scenes: int = 1024,
        seed: int = 0,
        **loading: Any,
    ) -> None:
        super().__init__(**loading)
        self.args = side, scenes, seed
        classes = [*CLASSES, "background"]
        self.annotation = {"of": "pixels", "classes": classes, "values": list(range(len(classes)))}

    def scenes_of(self, split: str) -> DigitLabels:
        """The scenes of a split's digits."""
        return DigitLabels(_composer(split, *self.args))


class DigitObjects:
    """Composed scenes with their digits as objects."""

    def __init__(self, composer: DigitComposer, masks: bool = True) -> None:
        self.composer = composer
        self.masks = masks

    def __len__(self) -> int:
        return len(self.composer)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, dict[str, Any]]:
        image, masks, digits = self.composer[index]
        boxes = masks_to_boxes(masks)
        boxes[:, 2:] += 1  # Of the last pixel its far side.
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=image.shape[1:]),
            "labels": digits + 1,
            "iscrowd": torch.zeros(len(digits), dtype=torch.long),
            "area": masks.flatten(1).sum(1).float(),
        }
        if self.masks:
            target["masks"] = tv_tensors.Mask(masks)
        return tv_tensors.Image(image), target


class DigitLabels:
    """Composed scenes with a digit for each pixel, 10 for none."""

    def __init__(self, composer: DigitComposer) -> None:
        self.composer = composer

    def __len__(self) -> int:
        return len(self.composer)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        image, masks, digits = self.composer[index]
        labels = torch.full(image.shape[1:], len(CLASSES), dtype=torch.uint8)
        for mask, digit in zip(masks.bool(), digits, strict=True):
            labels[mask] = digit
        return tv_tensors.Image(image), tv_tensors.Mask(labels)


def _composer(split: str, side: int, scenes: int, seed: int) -> DigitComposer:
    """Scenes of a split's own digits."""
    digits = Digits()
    digits.setup()
    number = scenes if split == "train" else -(-scenes // 4)
    place = ("train", "val", "test").index(split)
    return DigitComposer(cast(ArrayImages, digits.splits[split]), number, (seed, place), side)
