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
    needed = {"classes", "data_config", "name", "model_args"}
    if (
        not isinstance(hparams, dict)
        or not needed <= hparams.keys()
        or not isinstance(content.get("state_dict"), dict)
    ):
        raise InputError(
            f"{path}: expected a checkpoint of `pyg-avig fit`, with the model's name, its "
            "classes and its input transform among the hyperparameters (got another)"
        )
    return content


def load_weights(classifier: ImageClassifier, content: dict[str, Any], path: str | Path) -> None:
    """Fill a classifier with a checkpoint's weights.

    Raises:
        InputError: If they are another model's.
    """
    try:
        classifier.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        name = classifier.hparams["name"]
        raise InputError(f"{path}: expected the weights of {name} ({reason})") from None


def load_classifier(path: str | Path) -> ImageClassifier:
    """The classifier in a checkpoint, in evaluation mode, on the CPU.

    Raises:
        InputError: If the file is missing, broken, or of another model.
    """
    content = read_checkpoint(path)
    hparams = {k: v for k, v in content["hyper_parameters"].items() if not k.startswith("_")}
    try:
        classifier = ImageClassifier(**hparams)
    except (TypeError, KeyError) as error:
        raise InputError(f"{path}: expected hyperparameters of ImageClassifier ({error})") from None
    load_weights(classifier, content, path)
    return classifier.eval()
