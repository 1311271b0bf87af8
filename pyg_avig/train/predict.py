"""Labels for image files, from a checkpoint."""

from __future__ import annotations

import sys
from io import TextIOWrapper

import torch
from torch_geometric.data import Batch

from pyg_avig.data.loading.image_files import read_image
from pyg_avig.data.loading.image_graphs import ImageGraphs, eval_transform
from pyg_avig.errors import InputError
from pyg_avig.train.checkpoint import load_classifier
from pyg_avig.train.image_classifier import ImageClassifier


def predict_images(checkpoint: str, images: list[str], batch_size: int = 64) -> int:
    """Print the most likely class of each image file, and its probability.

    A line of tab-separated path, label and probability for each readable file goes to
    standard output; a file that cannot be read is named on standard error, and the others
    are still done.

    Args:
        checkpoint: A checkpoint that `pyg-avig fit` wrote, or an exported file; a path or address.
        images: Image files, of any size.
        batch_size: Images that go through the model at a time.

    Returns:
        The exit status: 0, or 1 if a file could not be read.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1 (got {batch_size})")
    if isinstance(sys.stdout, TextIOWrapper):  # File names are bytes, whatever they are written in.
        sys.stdout.reconfigure(errors="surrogateescape")
    classifier = load_classifier(checkpoint)
    data_config, classes = classifier.hparams["data_config"], classifier.hparams["classes"]
    failed = 0
    for first in range(0, len(images), batch_size):
        paths, readable = [], []
        for path in images[first : first + batch_size]:
            try:
                readable.append((read_image(path, data_config["input_size"][0]), 0))
                paths.append(path)
            except InputError as error:
                print(error, file=sys.stderr)
                failed += 1
        if not paths:
            continue
        graphs = ImageGraphs(readable, eval_transform(data_config))
        probability = _probabilities(classifier, graphs)
        for path, row in zip(paths, probability, strict=True):
            best = int(row.argmax())
            print(f"{path}\t{classes[best]}\t{row[best]:.4f}")
    return 1 if failed else 0


@torch.inference_mode()
def _probabilities(classifier: ImageClassifier, graphs: ImageGraphs) -> torch.Tensor:
    batch = Batch.from_data_list([graphs[i] for i in range(len(graphs))])
    probability = classifier(batch).softmax(-1)
    if not probability.isfinite().all():
        raise InputError("expected finite weights in the checkpoint (its logits are NaN)")
    return probability
