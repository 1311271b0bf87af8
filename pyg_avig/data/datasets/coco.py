"""Images with objects, annotated in a JSON of COCO's format."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors

from pyg_avig.data.loading.image_files import ImageFiles
from pyg_avig.data.loading.scenes import InstanceDataModule
from pyg_avig.errors import InputError, of_extra

_log = logging.getLogger(__name__)


class CocoInstances(InstanceDataModule):
    """Folders of images, and for each a JSON in `COCO's format <https://cocodataset.org>`_.

    Card: ``datasets/coco/README.md``. Objects are boxes, with masks as polygons or run lengths,
    crowds among them; images may be without objects, and ids of categories may have holes. A box
    that reaches beyond its image is cut at its borders.

    Args:
        root: Folder of the data.
        images: Folder of a split's images, below the root.
        annotations: A split's JSON, below the root.
        train_split: What stands for ``{split}`` there in training; its categories are the classes.
        val_split: The same for validation.
        test_split: The same for the test.
        masks: Whether objects have masks, besides boxes.
        bad_share: The share of files that may be missing or broken, and of objects whose box has
            no area or lies outside the image; see :class:`ImageFiles`.
        **loading: Arguments of :class:`SceneDataModule`.
    """

    def __init__(
        self,
        root: str,
        images: str = "{split}",
        annotations: str = "{split}.json",
        train_split: str = "train",
        val_split: str = "val",
        test_split: str = "val",
        masks: bool = True,
        bad_share: float = 1e-3,
        **loading: Any,
    ) -> None:
        super().__init__(**loading)
        self.root = root
        self.images = images
        self.annotations = annotations
        self.names = {"train": train_split, "val": val_split, "test": test_split}
        self.masks = masks
        self.bad_share = bad_share
        self._read: dict[str, Any] = {}  # COCO's own takes half a minute to parse.
        categories = self._coco("train").dataset["categories"]
        self.annotation = {
            "of": "instances",
            "masks": masks,
            "classes": [category["name"] for category in categories],
            "category_ids": [category["id"] for category in categories],
        }

    def scenes_of(self, split: str) -> CocoScenes:
        """The images of a split."""
        return CocoScenes(
            self._coco(split),
            Path(self.root, self.images.format(split=self.names[split])),
            dict(zip(self.annotation["category_ids"], self.annotation["classes"], strict=True)),
            self.masks,
            self.bad_share,
        )

    def _coco(self, split: str) -> Any:
        name = self.names[split]
        if name not in self._read:
            if not Path(self.root).is_dir():
                raise InputError(f"expected data.root as a folder (there is none at {self.root!r})")
            self._read[name] = read_coco(Path(self.root, self.annotations.format(split=name)))
        return self._read[name]


def read_coco(path: Path) -> Any:
    """A JSON of COCO's format, as a ``COCO`` of faster-coco-eval.

    Raises:
        InputError: If it is missing, broken, or refers to what it does not have, or
            faster-coco-eval is not installed.
    """
    faster_coco_eval = of_extra("faster_coco_eval", "dense")
    if not path.is_file():
        raise InputError(f"{path}: expected a JSON of COCO's format (there is no such file)")
    try:
        coco = faster_coco_eval.COCO(str(path))
        _check(path, coco)
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{path}: expected a JSON of COCO's format (it lacks {error})") from None
    except (ValueError, TypeError, AssertionError, OSError) as error:
        raise InputError(f"{path}: expected a JSON of COCO's format ({error})") from None
    return coco


def _check(path: Path, coco: Any) -> None:
    """Raise an InputError if an entry has not what it must, or refers to one that is not there."""
    _check_entries(path, "image", coco.dataset["images"])
    _check_entries(path, "category", coco.dataset["categories"])
    _check_entries(path, "annotation", coco.dataset["annotations"])
    if not coco.cats:
        raise InputError(f"{path}: expected categories (got none)")
    for annotation in coco.dataset["annotations"]:
        for name, known in (("image", coco.imgs), ("category", coco.cats)):
            if annotation[f"{name}_id"] not in known:
                raise InputError(
                    f"{path}: annotation {annotation['id']} is of {name} "
                    f"{annotation[f'{name}_id']}, which it lacks"
                )


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and value > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


# Of each kind of entry its fields: what they must be, whether they are, and what stands for none.
_FIELDS: dict[str, dict[str, tuple[str, Callable[[Any], bool], Any]]] = {
    "image": {
        "file_name": ("a string", lambda value: isinstance(value, str), None),
        "width": ("a number of pixels", _is_side, None),
        "height": ("a number of pixels", _is_side, None),
    },
    "category": {"name": ("a string", lambda value: isinstance(value, str), None)},
    "annotation": {
        "bbox": ("four numbers", _is_box, None),
        "iscrowd": ("0 or 1", lambda value: value in (0, 1), 0),
        "area": ("a number", _is_number, 0),
    },
}


def _check_entries(path: Path, name: str, entries: list[dict[str, Any]]) -> None:
    """Raise an InputError if an id stands twice or a field is not what it must be."""
    ids = set()
    for entry in entries:
        if entry["id"] in ids:
            raise InputError(f"{path}: expected {name} ids of their own (got {entry['id']} twice)")
        ids.add(entry["id"])
        for field, (what, fits, default) in _FIELDS[name].items():
            value = entry[field] if default is None else entry.get(field, default)
            if not fits(value):
                raise InputError(
                    f"{path}: expected {what} as {field} of {name} {entry['id']} (got {value!r})"
                )


class CocoScenes:
    """The images of a JSON in their folder, and their objects.

    Args:
        coco: What :func:`read_coco` gives.
        folder: Where the images are.
        categories: Name by id of the category of each class.
        masks: Whether objects have masks.
        bad_share: See :class:`CocoInstances`.

    Raises:
        InputError: If more files are missing or more boxes useless than ``bad_share`` allows, no
            image has an object, categories are others, or a mask is missing or of another size
            than its image. On reading, if an image is, or a mask cannot be decoded.
    """

    def __init__(
        self, coco: Any, folder: Path, categories: dict[int, str], masks: bool, bad_share: float
    ) -> None:
        self.coco = coco
        self.masks = masks
        self.labels = {category_id: i + 1 for i, category_id in enumerate(categories)}
        json = coco.annotation_file
        for number, category in coco.cats.items():
            # An id of another name would be another class without a word.
            if categories.get(number) != category["name"]:
                raise InputError(
                    f"{json}: expected no other categories than the training split's (got "
                    f"{number}, {category['name']!r}, where it has {categories.get(number)!r})"
                )
        self.ids = sorted(coco.imgs)
        paths = [folder / coco.imgs[i]["file_name"] for i in self.ids]
        missing = [str(path) for path in paths if not path.is_file()]
        _allow(f"images of {json} are missing", missing, len(paths), bad_share)
        flat = {a["id"]: a["bbox"] for a in coco.anns.values() if not self._has_area(a)}
        _allow(
            f"boxes of {json} have no area within their image",
            [f"annotation {ident}, {box}" for ident, box in flat.items()],
            len(coco.anns),
            bad_share,
        )
        self.objects = {
            i: [a for a in coco.imgToAnns.get(i, []) if a["id"] not in flat] for i in self.ids
        }
        if not any(self.objects.values()):
            raise InputError(f"{json}: expected objects (none of {len(paths)} images has any)")
        if masks:
            for annotation in coco.anns.values():
                self._check_mask(annotation)
        self.files = ImageFiles(_Numbered(paths), channels=3, bad_share=bad_share)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[tv_tensors.Image, dict[str, Any]]:
        picture, index = self.files[index]  # A broken file's neighbour has another index.
        image_id = self.ids[index]
        image = tv_tensors.Image(picture)
        height, width = self._size(image_id)
        if image.shape[1:] != (height, width):
            raise InputError(
                f"{self.files.reader.paths[index]}: expected {width} x {height} pixels, as the "
                f"JSON says (got {image.shape[2]} x {image.shape[1]})"
            )
        objects = self.objects[image_id]
        boxes = torch.tensor([self._box(a) for a in objects]).view(-1, 4)
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width)),
            "labels": torch.tensor(
                [self.labels[a["category_id"]] for a in objects], dtype=torch.long
            ),
            "iscrowd": torch.tensor([a.get("iscrowd", 0) for a in objects], dtype=torch.long),
            "area": torch.tensor(
                [float(a.get("area", a["bbox"][2] * a["bbox"][3])) for a in objects]
            ),
        }
        if self.masks:
            masks = [self._mask(a) for a in objects]
            stacked = np.stack(masks) if masks else np.zeros((0, height, width), np.uint8)
            target["masks"] = tv_tensors.Mask(torch.from_numpy(stacked))
        return image, target

    def _mask(self, annotation: dict[str, Any]) -> np.ndarray:
        try:
            return self.coco.annToMask(annotation)
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"{self.coco.annotation_file}: annotation {annotation['id']}: expected a mask that "
                f"can be decoded ({error})"
            ) from None

    def _size(self, image_id: int) -> tuple[int, int]:
        image = self.coco.imgs[image_id]
        return image["height"], image["width"]

    def _box(self, annotation: dict[str, Any]) -> list[float]:
        """Left, top, right and bottom, within the image."""
        height, width = self._size(annotation["image_id"])
        x, y, w, h = annotation["bbox"]
        return [max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))]

    def _has_area(self, annotation: dict[str, Any]) -> bool:
        left, top, right, bottom = self._box(annotation)
        return right > left and bottom > top

    def _check_mask(self, annotation: dict[str, Any]) -> None:
        where = f"{self.coco.annotation_file}: annotation {annotation['id']}"
        mask, size = annotation.get("segmentation"), list(self._size(annotation["image_id"]))
        if isinstance(mask, dict) and "counts" in mask:
            if list(mask.get("size", ())) != size:
                raise InputError(
                    f"{where}: expected a mask of its image's size {size} (got {mask.get('size')})"
                )
        elif not (isinstance(mask, list) and mask and all(map(_is_polygon, mask))):
            raise InputError(
                f"{where}: expected a mask as polygons or run lengths (got "
                f"{str(mask)[:40]}); for boxes alone set data.masks and model.masks to false"
            )
        elif not any(_reaches(polygon, *size) for polygon in mask):
            raise InputError(
                f"{where}: expected a mask within its image of {size[1]} x {size[0]} pixels (got "
                f"polygons that lie outside: {str(mask)[:40]})"
            )


def _is_polygon(points: Any) -> bool:
    numbers = isinstance(points, list) and all(map(_is_number, points))
    return numbers and len(points) >= 6 and len(points) % 2 == 0


def _reaches(polygon: list[float], height: int, width: int) -> bool:
    """Whether the box around a polygon, x and y in turn, has an area within the image."""
    spans = ((polygon[0::2], width), (polygon[1::2], height))
    return all(min(max(along), side) > max(min(along), 0) for along, side in spans)


class _Numbered:
    """Files, each with its number."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Path, int]:
        return self.paths[index], index


def _allow(what: str, bad: list[str], number: int, bad_share: float) -> None:
    """Log what is bad, and raise an InputError if it is more than a share allows."""
    if not bad:
        return
    message = f"{len(bad)} of {number} {what} (the first: {bad[0]})"
    if len(bad) > bad_share * number:
        raise InputError(f"{message}, and bad_share allows a share of {bad_share:g}")
    _log.warning("%s; they are left out", message)
