"""Reading the checkpoints that `pyg-avig fit` writes."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from pyg_avig.errors import InputError
from pyg_avig.files import kind_of, local_file, place, written_whole
from pyg_avig.models.exported import is_export
from pyg_avig.models.exported_onnx import OnnxGraphs, OnnxModel
from pyg_avig.train.export import (
    NEEDED,
    NEEDED_OF_GRAPHS,
    read_description,
    read_export,
    write_export,
)
from pyg_avig.train.export_program import export_classifier, export_graph_task
from pyg_avig.train.export_timm import write_timm_folder
from pyg_avig.train.graph_task import GraphTask
from pyg_avig.train.image_classifier import ImageClassifier
from pyg_avig.train.model_card import facts_of_run
from pyg_avig.train.recipe import Recipe

_FORMS = (".safetensors", ".onnx", ".pt2")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it when it is whole.

    Lightning's own writing goes through the temporary folder, from where a file is copied if that
    is on another file system: a kill in the middle would leave half of it. To an address that
    fsspec knows, such as ``s3://bucket/last.ckpt``, a whole file is put.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Save to a path or an address."""
        with written_whole(path) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)


def read_checkpoint(path: str | Path, needed: Collection[str] = NEEDED) -> dict[str, Any]:
    """The content of a checkpoint of a :class:`Recipe`; runs none of its code.

    Args:
        path: The file, here or at an address that fsspec knows.
        needed: Hyperparameters that it must hold; by default those of an
            :class:`ImageClassifier`.

    Raises:
        InputError: If the file is missing, broken, or of something else.
    """
    if Path(path).suffix in (".onnx", ".pt2"):
        raise InputError(
            f"{path}: expected a checkpoint, or an exported *.safetensors or folder (got a program)"
        )
    try:
        with local_file(path) as file:
            content = _loaded(file, path)
    except FileNotFoundError:
        raise InputError(f"{path}: expected a checkpoint file (there is none)") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path}: expected a checkpoint file ({reason})") from None
    hparams = content.get("hyper_parameters") if isinstance(content, dict) else None
    if (
        not isinstance(hparams, dict)
        or not hparams.keys() >= set(needed)
        or not isinstance(content.get("state_dict"), dict)
    ):
        wanted = _KINDS.get(frozenset(needed), "a model")
        raise InputError(
            f"{path}: expected a checkpoint of `pyg-avig fit` with {wanted} (got "
            f"{_kind_of_content(hparams)})"
        )
    return content


_KINDS = {frozenset(NEEDED): "a classifier of images", frozenset(NEEDED_OF_GRAPHS): "a GraphTask"}


def _loaded(file: Path, path: str | Path) -> Any:
    kind = kind_of(file)
    if kind != "a checkpoint or another archive":
        hint = "; the checkpoint comes before the images" * (kind == "an image")
        raise InputError(f"{path}: expected a checkpoint file (got {kind}{hint})")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # Its reader raises whatever a broken file makes it.
        other = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds {other[1]}, whose code is not run" if other else "it is broken"
        raise InputError(f"{path}: expected a checkpoint file ({reason})") from None


def _kind_of_content(hparams: Any) -> str:
    """What a file is that is no such checkpoint."""
    if not isinstance(hparams, dict):
        return "a file without hyperparameters"
    if hparams.keys() >= NEEDED_OF_GRAPHS:
        return "one with a GraphTask"
    if hparams.keys() >= NEEDED:
        return "one with a classifier of images"
    return "one with a detector or segmenter" if "annotation" in hparams else "one of another model"


def load_weights(module: Recipe, content: dict[str, Any], path: str | Path) -> None:
    """Fill a module with a checkpoint's weights.

    Raises:
        InputError: If they are another model's.
    """
    try:
        module.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        name = module.hparams.get("name", type(module.model).__name__)
        raise InputError(f"{path}: expected the weights of {name} ({reason})") from None


def load_classifier(path: str | Path) -> ImageClassifier:
    """The classifier in a checkpoint or an exported file, in evaluation mode, on the CPU.

    Raises:
        InputError: If the file is missing, broken, or of another model.
    """
    content, description = _described(path, NEEDED)
    try:
        classifier = ImageClassifier(**description)
    except (TypeError, KeyError) as error:
        raise InputError(f"{path}: expected hyperparameters of ImageClassifier ({error})") from None
    load_weights(classifier, content, path)
    return classifier.eval()


def load_graph_task(path: str | Path) -> GraphTask:
    """The task on graphs in a checkpoint or an exported file, in evaluation mode, on the CPU.

    Raises:
        InputError: If the file is missing, broken, or of another model, or its weights are not
            finite.
    """
    content, description = _described(path, NEEDED_OF_GRAPHS)
    try:
        task = GraphTask(**description)
    except (TypeError, KeyError) as error:
        raise InputError(f"{path}: expected hyperparameters of GraphTask ({error})") from None
    load_weights(task, content, path)
    weights = (value for value in task.state_dict().values() if value.is_floating_point())
    if not all(value.isfinite().all() for value in weights):
        raise InputError(f"{path}: expected finite weights (some are NaN or infinite)")
    return task.eval()


def load_onnx_graph_task(path: str | Path) -> GraphTask:
    """A task on graphs whose model is a program, for predictions.

    Args:
        path: The ``*.onnx``, here or at an address that fsspec knows.

    Raises:
        InputError: If the file is missing, broken, or of something else, or onnxruntime is not
            installed.
    """
    program = OnnxModel(path, NEEDED_OF_GRAPHS)
    description = {key: program.description[key] for key in NEEDED_OF_GRAPHS}
    task = GraphTask(**description)
    task.model = OnnxGraphs(program, task.model.edge_dim)
    return task.eval()


def export_checkpoint(checkpoint: str | Path, out: str | Path) -> list[str]:
    """Write the model of a checkpoint in the form that a name asks for.

    Args:
        checkpoint: A checkpoint that `pyg-avig fit` wrote, or an exported file or folder.
        out: ``*.safetensors`` for the weights with their configuration; ``*.onnx`` or ``*.pt2`` for
            a program (:mod:`pyg_avig.train.export_program`); a folder, as ``OUT/``, a
            name without suffix, or one that is there, for
            :func:`~pyg_avig.train.export_timm.write_timm_folder`.

    Returns:
        The files that were written.

    Raises:
        InputError: If the checkpoint is no such, ``out`` has another form, or the model is not one
            that this form can hold; nothing is written.
    """
    form = _form_of(out)
    content: dict[str, Any] = {}
    if is_export(checkpoint):
        said = read_description(checkpoint, None)
    else:
        content = read_checkpoint(checkpoint, ())
        said = content["hyper_parameters"]
    if said.keys() >= NEEDED_OF_GRAPHS:
        if form == "folder":
            raise InputError(
                f"expected out as a file *{', *'.join(_FORMS)}, for a model of graphs (got the "
                f"folder {str(out)!r}: timm has no such models)"
            )
        task = load_graph_task(checkpoint)
        if form == ".safetensors":
            write_export(out, *task.in_the_unit_of_targets())
        else:
            export_graph_task(out, task)
        return [str(out)]
    classifier = load_classifier(checkpoint)
    if form == "folder":
        return write_timm_folder(out, classifier, facts_of_run(checkpoint, content))
    if form != ".safetensors":
        export_classifier(out, classifier)
        return [str(out)]
    description = {key: classifier.hparams[key] for key in NEEDED}
    write_export(out, classifier.model.state_dict(), description)
    return [str(out)]


def _form_of(out: str | Path) -> str:
    """The form that a name asks for: its suffix, or 'folder'."""
    system, name = place(out)
    suffix = Path(out).suffix
    if str(out).endswith("/") or not suffix or system.isdir(name):
        return "folder"
    if suffix not in _FORMS:
        known = ", ".join(f"*{form}" for form in _FORMS)
        raise InputError(f"expected out as a file {known}, or a folder OUT/ (got {str(out)!r})")
    return suffix


def _described(path: str | Path, needed: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights of a checkpoint or an exported file, and what builds the module they are of."""
    if is_export(path):
        tensors, description = read_export(path, needed)
        weights = {f"model.{name}": value for name, value in tensors.items()}
        return {"state_dict": weights}, description
    content = read_checkpoint(path, needed)
    # Nothing that only training needs, such as a teacher.
    return content, {key: content["hyper_parameters"][key] for key in needed}
