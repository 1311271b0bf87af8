"""Reading the checkpoints that `pyg-avig fit` writes."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from pyg_avig.errors import InputError
from pyg_avig.train.image_classifier import ImageClassifier


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint of :class:`ImageClassifier`; runs none of its code.

    Raises:
        InputError: If the file is missing, broken, or of something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a checkpoint file (there is none)")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, OSError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: expected a checkpoint file ({reason})") from None
    hparams = content.get("hyper_parameters") if isinstance(content, dict) else None
    if not isinstance(hparams, dict) or not {"classes", "data_config", "name"} <= set(hparams):
        raise InputError(
            f"{path}: expected a checkpoint of `pyg-avig fit`, with the classes and the "
            "input transform among its hyperparameters (got another)"
        )
    return content


def load_classifier(path: str | Path) -> ImageClassifier:
    """The classifier in a checkpoint, in evaluation mode, on the CPU.

    Raises:
        InputError: If the file is missing, broken, or of another model.
    """
    name = read_checkpoint(path)["hyper_parameters"]["name"]
    try:
        classifier = ImageClassifier.load_from_checkpoint(
            path, map_location="cpu", weights_only=True
        )
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: expected the weights of {name} ({reason})") from None
    return classifier.eval()
