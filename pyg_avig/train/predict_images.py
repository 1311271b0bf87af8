"""Labels for image files, from a checkpoint."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from io import TextIOWrapper
from itertools import islice
from time import perf_counter
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from pyg_avig.data.loading.image_files import read_image
from pyg_avig.data.loading.image_graphs import eval_transform
from pyg_avig.errors import InputError
from pyg_avig.models.exported_onnx import OnnxModel
from pyg_avig.train.export import NEEDED
from pyg_avig.train.image_classifier import ImageClassifier
from pyg_avig.train.rate import say_rate


def predict_images(
    classifier: ImageClassifier | OnnxModel,
    images: Sequence[str],
    batch_size: int = 64,
    top: int = 1,
    form: str = "tsv",
) -> int:
    """Print the most likely classes of each image file, and their probabilities.

    A line for each readable file goes to standard output; a file that cannot be read is named on
    standard error, and the others are still done. Files are decoded by threads while the model
    runs. At the end the images a second are printed on standard error, where a bar shows how far it
    is if that is a terminal and the lines go elsewhere.

    Args:
        classifier: The classifier, or a program of one.
        images: Image files, of any size.
        batch_size: Images that go through the model at a time.
        top: The number of classes of each image, the most likely first; all if there are fewer.
        form: ``tsv``: path, label and probability, then label and probability of the next;
            ``csv``: the same under a header; ``json``: a list with an object a line, of ``path``
            and ``predictions``, each a ``label`` and its ``probability``.

    Returns:
        The exit status: 0, or 1 if a file could not be read.

    Raises:
        InputError: If an argument is none of these, or the program is of something else.
    """
    if batch_size < 1 or top < 1:
        raise InputError(f"batch_size and top must be at least 1 (got {batch_size} and {top})")
    if form not in FORMS:
        raise InputError(f"format must be one of {', '.join(FORMS)} (got {form!r})")
    if isinstance(sys.stdout, TextIOWrapper):  # File names are bytes, whatever they are written in.
        sys.stdout.reconfigure(errors="surrogateescape")
    said: Any
    said = classifier.said(NEEDED) if isinstance(classifier, OnnxModel) else classifier.hparams
    data_config, classes = said["data_config"], list(map(str, said["classes"]))
    transform, channels = eval_transform(data_config), data_config["input_size"][0]
    top = min(top, len(classes))
    done, start = 0, perf_counter()
    write = FORMS[form](top)
    decoded = _decoded(images, lambda path: transform(read_image(path, channels)), 2 * batch_size)
    with closing(decoded), _bar(len(images)) as shown:
        files = iter(shown(decoded))
        while batch := list(islice(files, batch_size)):
            readable = [(path, image) for path, image in batch if isinstance(image, Tensor)]
            for _, error in batch:
                if isinstance(error, InputError):
                    print(error, file=sys.stderr)
            if not readable:
                continue
            stacked = torch.stack([image for _, image in readable])
            best = _probabilities(classifier, stacked).topk(top)
            for (path, _), values, places in zip(readable, *map(Tensor.tolist, best), strict=True):
                named = [classes[place] for place in places]
                write(path, list(zip(named, values, strict=True)))
            done += len(readable)
    write(None, [])
    say_rate(done, "images", start)
    return 0 if done == len(images) else 1


Ranked = list[tuple[str, float]]


def _tsv(top: int) -> Callable[[str | None, Ranked], None]:
    """Print path, label, probability, and label and probability of the next."""

    def write(path: str | None, ranked: Ranked) -> None:
        if path is not None:
            pairs = (f"{label}\t{probability:.4f}" for label, probability in ranked)
            print(path, *pairs, sep="\t")

    return write


def _csv(top: int) -> Callable[[str | None, Ranked], None]:
    """Print the same under a header."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    suffixes = ("", *(f"_{n}" for n in range(2, top + 1)))
    writer.writerow(["path", *(f"{k}{n}" for n in suffixes for k in ("label", "probability"))])

    def write(path: str | None, ranked: Ranked) -> None:
        if path is not None:
            writer.writerow([path, *(v for label, p in ranked for v in (label, f"{p:.4f}"))])

    return write


def _json(top: int) -> Callable[[str | None, Ranked], None]:
    """Print a list, an object a line."""
    before = "["

    def write(path: str | None, ranked: Ranked) -> None:
        nonlocal before
        if path is None:
            print("[]" if before == "[" else "\n]")
            return
        found = [{"label": label, "probability": round(p, 4)} for label, p in ranked]
        print(before, json.dumps({"path": path, "predictions": found}), sep="\n", end="")
        before = ","

    return write


FORMS = {"tsv": _tsv, "csv": _csv, "json": _json}
"""What prints the lines of each form; without a path, what ends them."""


@contextmanager
def _bar(total: int) -> Generator[Callable[[Iterable[Any]], Iterable[Any]], None, None]:
    """What shows how far an iteration is; lines on the same terminal show it, and break a bar."""
    if sys.stdout.isatty() or not sys.stderr.isatty():
        yield lambda files: files
        return
    console = Console(stderr=True)
    with Progress(console=console, transient=True, redirect_stdout=False) as bar:
        yield lambda files: bar.track(files, total=total, description="images")


def _decoded(
    paths: Sequence[str], read: Callable[[str], Tensor], ahead: int
) -> Generator[tuple[str, Tensor | InputError], None, None]:
    """Each path with its image, or the error; threads read so many ahead, in order."""
    waiting: deque[tuple[str, Future[Tensor]]] = deque()
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        for path in paths:
            waiting.append((path, pool.submit(read, path)))
            if len(waiting) > ahead:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _result(path: str, image: Future[Tensor]) -> tuple[str, Tensor | InputError]:
    try:
        return path, image.result()
    except InputError as error:
        return path, error


@torch.inference_mode()
def _probabilities(logits: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    probability = logits(images).softmax(-1)
    if not probability.isfinite().all():
        raise InputError("expected finite weights in the checkpoint (its logits are NaN)")
    return probability
