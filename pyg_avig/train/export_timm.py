"""Writing trained classifiers as folders that timm loads, here or from a model hub."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import timm
import torch
from timm.models._hub import save_config_for_hf

from pyg_avig.errors import InputError
from pyg_avig.files import place, written_whole
from pyg_avig.models.exported import WEIGHTS, read_description
from pyg_avig.train.export import NEEDED, check_alike, write_export
from pyg_avig.train.image_classifier import ImageClassifier
from pyg_avig.train.model_card import model_card

FILES = ("config.json", "README.md", WEIGHTS)


def write_timm_folder(
    out: str | Path,
    classifier: ImageClassifier,
    run: dict[str, Any],
    dtype: torch.dtype | None = None,
) -> list[str]:
    """Write a folder that ``timm.create_model("local-dir:OUT", pretrained=True)`` loads.

    Its files are timm's ``config.json``, which has the input transform and the names of the
    classes, ``model.safetensors``, which is an exported file of ours, and a model card
    ``README.md``. They are written when timm has loaded them and the model gives the same. What
    else lies in the folder stays.

    Args:
        out: The folder, here or at an address that fsspec knows; it is made.
        classifier: The classifier, in evaluation mode.
        run: What is known of its training; see :func:`pyg_avig.train.model_card.facts_of_run`.
        dtype: That of the weights in the file, which must hold them exactly; by default their own.

    Returns:
        The files that were written.

    Raises:
        InputError: If the folder has files of these names that are none of ours, or if timm cannot
            make the model from what it is told.
        OSError: If the folder cannot be written.
    """
    out = str(out).rstrip("/")
    _check_ours(out)
    if classifier.hparams["swap_attention"] is not None:
        raise InputError(
            "expected a model that timm makes by itself, for a folder (got one with swapped "
            "attention); write it as *.safetensors, *.onnx or *.pt2"
        )
    description = {key: classifier.hparams[key] for key in NEEDED}
    model, args = classifier.model, classifier.hparams["model_args"]
    with TemporaryDirectory() as local:
        try:
            save_config_for_hf(
                model,
                f"{local}/config.json",
                {"label_names": list(classifier.hparams["classes"])},
                model_args=args,
            )
        except (TypeError, ValueError) as error:
            raise InputError(
                f"expected arguments of the model that config.json can hold ({error})"
            ) from None
        Path(local, "README.md").write_text(model_card(classifier, run), encoding="utf-8")
        write_export(f"{local}/{WEIGHTS}", model.state_dict(), description, dtype)
        try:
            loaded: Any = timm.create_model(f"local-dir:{local}", pretrained=True).eval()
        except (KeyError, RuntimeError, TypeError) as error:
            raise InputError(
                f"expected a model that timm makes anew from config.json (got "
                f"{classifier.hparams['name']}: {error})"
            ) from None
        images = torch.rand(2, *classifier.hparams["data_config"]["input_size"])
        with torch.inference_mode():
            check_alike(loaded(images), model(images), "timm")
        paths = [f"{out}/{name}" for name in FILES]
        with ExitStack() as stack:  # All are whole before one takes its place.
            for path, name in zip(paths, FILES, strict=True):
                shutil.copyfile(f"{local}/{name}", stack.enter_context(written_whole(path)))
    return paths


def _check_ours(out: str) -> None:
    """Refuse to write over what others wrote, such as the README.md of a project."""
    system, folder = place(out)
    taken = [name for name in FILES if system.exists(str(PurePosixPath(folder) / name))]
    if not taken:
        return
    try:
        read_description(f"{out}/{WEIGHTS}")
    except InputError:
        raise InputError(
            f"{out}: expected a new folder, or one that `pyg-avig export` wrote (got one with "
            f"{', '.join(taken)} of something else)"
        ) from None
