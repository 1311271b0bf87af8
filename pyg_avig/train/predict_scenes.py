"""Objects or classes of pixels in image files, from a checkpoint."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_dtype
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from pyg_avig.data.loading.image_files import read_image
from pyg_avig.errors import InputError, of_extra
from pyg_avig.files import written_whole
from pyg_avig.train.checkpoint import load_weights
from pyg_avig.train.dense_task import DenseTask
from pyg_avig.train.detector import Detector
from pyg_avig.train.rate import say_rate
from pyg_avig.train.segmenter import Segmenter

TASKS: dict[str, type[DenseTask]] = {task.annotated: task for task in (Detector, Segmenter)}
"""What a checkpoint's annotation is of, and the module that it is of."""


def load_task(content: dict[str, Any], path: str | Path) -> DenseTask:
    """The detector or segmenter in a checkpoint's content, in evaluation mode, on the CPU.

    Args:
        content: What :func:`~pyg_avig.train.checkpoint.read_checkpoint` gives.
        path: The file, for errors.

    Raises:
        InputError: If it is of something else, or its weights are not finite.
    """
    hparams = content["hyper_parameters"]
    kind = TASKS.get(str((hparams["annotation"] or {}).get("of")))
    if kind is None:
        raise InputError(
            f"{path}: expected annotation of {' or '.join(TASKS)} (got {hparams['annotation']})"
        )
    missing = set(kind.same_in_checkpoints) - hparams.keys()
    if missing:
        raise InputError(f"{path}: expected hyperparameters of {kind.__name__} (no {min(missing)})")
    task = kind(**{key: hparams[key] for key in kind.same_in_checkpoints})
    load_weights(task, content, path)
    weights = (value for value in task.state_dict().values() if value.is_floating_point())
    if not all(value.isfinite().all() for value in weights):  # Nothing would be found.
        raise InputError(f"{path}: expected finite weights (some are NaN or infinite)")
    return task.eval()


def predict_scenes(
    task: DenseTask, images: Sequence[str], out: str | Path, threshold: float = 0.5
) -> int:
    """Write into a folder what is found on each image file.

    ``drawn/NAME.png`` is the image with boxes and masks, or the colours of its classes. Of a
    detector, ``results.json`` has all that is found, whatever its score, as COCO's results: an
    image's id is its name if that is a number, as COCO's are, and its path if not. Of a segmenter,
    ``labels/NAME.png`` holds for each pixel what the data's own label images hold for its class. A
    file that cannot be read is named on standard error, and the others are still done; at the end
    the images a second are printed there.

    Args:
        task: A :class:`Detector` or a :class:`Segmenter`.
        images: Image files, of any size; each goes through the model on its own.
        out: The folder; it is made, and files of these names in it are replaced.
        threshold: Score from which an object is drawn.

    Returns:
        The exit status: 0, or 1 if a file could not be read.

    Raises:
        InputError: If two images have one name, or the threshold is no score.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold must lie in [0, 1] (got {threshold})")
    out, names = Path(out), [Path(path).stem for path in images]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"expected images of different names (got {twice[0]!r} twice)")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder to write to (it is a file)")
    results: list[dict[str, Any]] = []
    failed, start = 0, perf_counter()
    for path, name in zip(images, names, strict=True):
        try:
            picture = pil_to_tensor(read_image(path, channels=3))
            found = _found(task, picture)
        except InputError as error:
            message = str(error)
            print(message if path in message else f"{path}: {message}", file=sys.stderr)
            failed += 1
            continue
        if isinstance(task, Detector):
            results += coco_results(found, task.hparams["annotation"], path)
            drawn = draw_objects(picture, found, task.hparams["annotation"]["classes"], threshold)
        else:
            labels = found.argmax(0)
            values = torch.tensor(task.hparams["annotation"]["values"], dtype=torch.uint8)
            _save(values[labels], out / "labels" / f"{name}.png")
            drawn = draw_classes(picture, labels, len(values))
        _save(drawn, out / "drawn" / f"{name}.png")
    if isinstance(task, Detector):
        with written_whole(out / "results.json") as partial:
            partial.write_text(json.dumps(results))
    say_rate(len(images) - failed, "images", start)
    return 1 if failed else 0


@torch.inference_mode()
def _found(task: DenseTask, picture: Tensor) -> Any:
    (found,) = task([to_dtype(picture, torch.float32, scale=True)])
    return found


def coco_results(
    found: dict[str, Tensor], annotation: dict[str, Any], path: str
) -> list[dict[str, Any]]:
    """The objects of an image in COCO's format of results, the best first.

    Args:
        found: What :class:`Detector` gives.
        annotation: Of the data that it was trained on.
        path: The image file.
    """
    stem = Path(path).stem
    run_lengths = of_extra("faster_coco_eval", "dense").mask
    results = []
    for n, (left, top, right, bottom) in enumerate(found["boxes"].tolist()):
        result = {
            "image_id": int(stem) if stem.isdecimal() else str(path),
            "category_id": annotation["category_ids"][int(found["labels"][n]) - 1],
            "bbox": [left, top, right - left, bottom - top],
            "score": float(found["scores"][n]),
        }
        if "masks" in found:
            mask = np.asfortranarray(found["masks"][n].numpy().astype(np.uint8))
            code = run_lengths.encode(mask)
            counts = code["counts"]
            result["segmentation"] = {
                "size": list(mask.shape),
                "counts": counts.decode() if isinstance(counts, bytes) else counts,
            }
        results.append(result)
    return results


def draw_objects(
    image: Tensor, found: dict[str, Tensor], classes: Sequence[str], threshold: float
) -> Tensor:
    """The image (3, H, W) of bytes with boxes, names and, where there are, masks."""
    shown = {key: value[found["scores"] >= threshold] for key, value in found.items()}
    if not len(shown["boxes"]):
        return image
    names = [
        f"{classes[label - 1]} {score:.2f}"
        for label, score in zip(shown["labels"].tolist(), shown["scores"].tolist(), strict=True)
    ]
    if "masks" in shown:
        image = draw_segmentation_masks(image, shown["masks"], alpha=0.5)
    return draw_bounding_boxes(image, shown["boxes"], names)


def draw_classes(image: Tensor, labels: Tensor, number: int) -> Tensor:
    """The image (3, H, W) of bytes under a colour for each class of its pixels (H, W)."""
    masks = labels == torch.arange(number)[:, None, None]
    return draw_segmentation_masks(image, masks, alpha=0.5)


def _save(image: Tensor, path: Path) -> None:
    """Write an image of bytes (3, H, W) or (H, W) as a PNG."""
    array = image.movedim(0, -1) if image.dim() == 3 else image
    with written_whole(path) as partial:
        Image.fromarray(array.contiguous().numpy()).save(partial, format="PNG")
