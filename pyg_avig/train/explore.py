"""The command `explore`: a page of what a classifier attends to on image files."""

from __future__ import annotations

import sys
from pathlib import Path

from pyg_avig.data.loading.image_files import read_image
from pyg_avig.data.loading.image_graphs import eval_transform
from pyg_avig.errors import InputError
from pyg_avig.explore import explore
from pyg_avig.train.checkpoint import load_classifier


def explore_images(checkpoint: str, images: list[str], out: str) -> int:
    """Write a page on which one sees what a classifier attends to; the exit status.

    Args:
        checkpoint: A checkpoint of an image classifier, or an exported file; a path or address.
        images: Image files, of any size. One that cannot be read is named on standard error, and
            the others are still shown.
        out: The page to write, ``*.html``; a path or address.

    Returns:
        0, or 1 if a file could not be read.

    Raises:
        InputError: If the model has no :class:`~pyg_avig.CrossAttnConv`, or no file can be read.
    """
    if Path(out).suffix not in (".html", ".htm"):
        raise InputError(f"expected out as a page *.html (got {out!r})")
    classifier = load_classifier(checkpoint)
    config = classifier.hparams["data_config"]
    transform = eval_transform(config)
    names, pixels = [], []
    for path in images:
        try:
            pixels.append(transform(read_image(path, config["input_size"][0])))
            names.append(Path(path).name)
        except InputError as error:
            print(error, file=sys.stderr)
    if not pixels:
        raise InputError("expected an image file that can be read (got none)")
    explore(
        classifier.model,
        pixels,
        out,
        classes=classifier.hparams["classes"],
        names=names,
        mean=config["mean"],
        std=config["std"],
        title=classifier.hparams["name"],
    )
    print(out)
    return 0 if len(pixels) == len(images) else 1
