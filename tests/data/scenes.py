"""Small data sets of COCO's layout and of images with label images."""

import json

import numpy as np
from faster_coco_eval import mask
from PIL import Image


def picture(path, size, seed=0):
    """Noise of a size (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def run_lengths(box, size):
    """A box (x, y, w, h) as the mask of an image of a size (width, height)."""
    pixels = np.zeros(size[::-1], dtype=np.uint8)
    x, y, w, h = box
    pixels[y : y + h, x : x + w] = 1
    code = mask.encode(np.asfortranarray(pixels))
    counts = code["counts"]
    return {
        "size": list(pixels.shape),
        "counts": counts.decode() if isinstance(counts, bytes) else counts,
    }


def coco_content():
    """Three images: of a polygon and a crowd, of run lengths, without objects; ids with holes."""
    size = (48, 40)
    images = [
        {"id": n, "file_name": f"{n}.png", "width": size[0], "height": size[1]} for n in (2, 5, 9)
    ]
    square = [4, 6, 20, 6, 20, 26, 4, 26]
    annotations = [
        {
            "id": 1,
            "image_id": 2,
            "category_id": 3,
            "bbox": [4, 6, 16, 20],
            "area": 320,
            "iscrowd": 0,
            "segmentation": [square],
        },
        {
            "id": 2,
            "image_id": 2,
            "category_id": 7,
            "bbox": [24, 0, 10, 10],
            "area": 100,
            "iscrowd": 1,
            "segmentation": run_lengths((24, 0, 10, 10), size),
        },
        {
            "id": 3,
            "image_id": 5,
            "category_id": 7,
            "bbox": [8, 8, 30, 20],
            "area": 600,
            "iscrowd": 0,
            "segmentation": run_lengths((8, 8, 30, 20), size),
        },
    ]
    categories = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_tree(root, splits=("train", "val"), content=None):
    """``train.json``, ``train/`` and so on."""
    for n, split in enumerate(splits):
        found = content or coco_content()
        for image in found["images"]:
            picture(root / split / image["file_name"], (image["width"], image["height"]), n)
        (root / f"{split}.json").write_text(json.dumps(found))
    return root


def labels_tree(root, splits=("train", "val"), number=3, classes=2, void=255):
    """``images/SPLIT/n.jpg`` and ``labels/SPLIT/n.png`` , the first row of no class."""
    for split in splits:
        for n in range(number):
            size = (40 + 8 * n, 48)
            picture(root / "images" / split / f"{n}.jpg", size, n)
            labels = np.arange(size[0] * size[1]).reshape(size[::-1]) // 8 % classes
            labels[0] = void
            path = root / "labels" / split / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(labels.astype(np.uint8)).save(path)
    return root
