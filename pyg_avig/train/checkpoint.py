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
from pyg_avig.models.exported import ADDED, NO_EXPORT, is_export, only
from pyg_avig.models.exported_onnx import OnnxGraphs, OnnxModel
from pyg_avig.train.export import (
    NEEDED,
    NEEDED_OF_GRAPHS,
    read_export,
    round_weights,
    write_export,
)
from pyg_avig.train.export_int8 import export_int8
from pyg_avig.train.export_program import export_classifier, export_graph_task
from pyg_avig.train.export_timm import write_timm_folder
from pyg_avig.train.graph_task import GraphTask
from pyg_avig.train.image_classifier import ImageClassifier
from pyg_avig.train.model_card import facts_of_run, run_config
from pyg_avig.train.recipe import Recipe

_PROGRAMS = (".onnx", ".pt2")
_FORMS = (".safetensors", *_PROGRAMS)


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
    if not isinstance(hparams, dict) or not isinstance(content.get("state_dict"), dict):
        raise InputError(_no_checkpoint(path, needed, hparams))
    only(hparams, needed, _no_checkpoint(path, needed, hparams))
    return content


def _no_checkpoint(path: str | Path, needed: Collection[str], hparams: Any) -> str:
    wanted = _KINDS.get(frozenset(needed), "a model")
    return (
        f"{path}: expected a checkpoint of `pyg-avig fit` with {wanted} (got "
        f"{_kind_of_content(hparams)})"
    )


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
    if hparams.keys() >= NEEDED - ADDED:
        return "one with a classifier of images"
    return "one with a detector or segmenter" if "annotation" in hparams else "one of another model"


def read_trained(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint of any task; of an exported file or folder, as one.

    Raises:
        InputError: If the file is missing, broken, or of something else.
    """
    if not is_export(path):
        return read_checkpoint(path, ())
    tensors, description = read_export(path, None)
    weights = {f"model.{name}": value for name, value in tensors.items()}
    return {"state_dict": weights, "hyper_parameters": description}


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


def load_classifier(path: str | Path, content: dict[str, Any] | None = None) -> ImageClassifier:
    """The classifier in a checkpoint or an exported file, in evaluation mode, on the CPU.

    Args:
        path: The file or folder, here or at an address that fsspec knows.
        content: What :func:`read_trained` gives of it, if it has been read.

    Raises:
        InputError: If the file is missing, broken, or of another model.
    """
    content, description = _described(path, NEEDED, content)
    try:
        classifier = ImageClassifier(**description)
    except (TypeError, KeyError) as error:
        raise InputError(f"{path}: expected hyperparameters of ImageClassifier ({error})") from None
    load_weights(classifier, content, path)
    return classifier.eval()


def load_graph_task(path: str | Path, content: dict[str, Any] | None = None) -> GraphTask:
    """The task on graphs in a checkpoint or an exported file, in evaluation mode, on the CPU.

    Args:
        path: As in :func:`load_classifier`.
        content: As there.

    Raises:
        InputError: If the file is missing, broken, or of another model, or its weights are not
            finite.
    """
    content, description = _described(path, NEEDED_OF_GRAPHS, content)
    try:
        task = GraphTask(**description)
    except (TypeError, KeyError) as error:
        raise InputError(f"{path}: expected hyperparameters of GraphTask ({error})") from None
    load_weights(task, content, path)
    weights = (value for value in task.state_dict().values() if value.is_floating_point())
    if not all(value.isfinite().all() for value in weights):
        raise InputError(f"{path}: expected finite weights (some are NaN or infinite)")
    return task.eval()


def graph_task_of(program: OnnxModel) -> GraphTask:
    """A task on graphs whose model is a program, for predictions.

    Args:
        program: An ONNX program of graphs.
    """
    task = GraphTask(**program.said(NEEDED_OF_GRAPHS))
    task.model = OnnxGraphs(program, task.model.edge_dim)
    return task.eval()


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path,
    precision: str | None = None,
    quantize: str | None = None,
    calibration: str | Path | None = None,
    dynamic_size: bool = False,
) -> list[str]:
    """Write the model of a checkpoint in the form that a name asks for.

    Args:
        checkpoint: A checkpoint that `pyg-avig fit` wrote, or an exported file or folder.
        out: ``*.safetensors`` for the weights with their configuration; ``*.onnx`` or ``*.pt2`` for
            a program (:mod:`pyg_avig.train.export_program`); a folder, as ``OUT/``, a
            name without suffix, or one that is there, for
            :func:`~pyg_avig.train.export_timm.write_timm_folder`.
        precision: ``bf16`` keeps weights in bfloat16, and a ``*.pt2`` computes in it; not for
            ``*.onnx``.
        quantize: ``int8`` takes convolutions and linear maps of an ``*.onnx`` to eight bits; see
            :func:`~pyg_avig.train.export_int8.export_int8`.
        calibration: A config of ``pyg-avig fit`` whose data calibrate them; by default the
            ``config.yaml`` of the checkpoint's run.
        dynamic_size: Let an ``*.onnx`` take images of any size; see
            :func:`~pyg_avig.train.export_program.export_classifier`.

    Returns:
        The files that were written.

    Raises:
        InputError: If the checkpoint is no such, ``out`` has another form, the model is not one
            that this form can hold, or an argument is of another form or model; nothing is written.
    """
    form = _form_of(out)
    _check_options(form, precision, quantize, calibration, dynamic_size)
    content = read_trained(checkpoint)
    if content["hyper_parameters"].keys() >= NEEDED_OF_GRAPHS:
        if precision or quantize or dynamic_size:
            raise InputError(
                f"{checkpoint}: expected a classifier of images, for --precision, --quantize and "
                "--dynamic_size (got a model of graphs)"
            )
        if form == "folder":
            raise InputError(
                f"expected out as a file *{', *'.join(_FORMS)}, for a model of graphs (got the "
                f"folder {str(out)!r}: timm has no such models)"
            )
        task = load_graph_task(checkpoint, content)
        if form == ".safetensors":
            write_export(out, *task.in_the_unit_of_targets())
        else:
            export_graph_task(out, task)
        return [str(out)]
    classifier = load_classifier(checkpoint, content)
    if quantize is not None:
        export_int8(out, classifier, calibration or _config_of(checkpoint))
        return [str(out)]
    half = precision == "bf16"
    if form in _PROGRAMS:
        export_classifier(out, classifier, half, dynamic_size)
        return [str(out)]
    if half:
        images = torch.rand(2, *classifier.hparams["data_config"]["input_size"])
        round_weights(classifier.model, images)
    dtype = torch.bfloat16 if half else None
    if form == "folder":
        return write_timm_folder(out, classifier, facts_of_run(checkpoint, content), dtype)
    description = {key: classifier.hparams[key] for key in NEEDED}
    write_export(out, classifier.model.state_dict(), description, dtype)
    return [str(out)]


def _check_options(
    form: str,
    precision: str | None,
    quantize: str | None,
    calibration: str | Path | None,
    dynamic_size: bool,
) -> None:
    """Refuse what a form cannot be, before anything is read."""
    if precision not in (None, "bf16"):
        raise InputError(f"precision must be bf16 (got {precision!r})")
    if quantize not in (None, "int8"):
        raise InputError(f"quantize must be int8 (got {quantize!r})")
    if precision and form == ".onnx":
        raise InputError(
            "expected out as *.pt2, *.safetensors or a folder, for --precision bf16 (got *.onnx: "
            "onnxruntime has no convolutions in bfloat16 on the CPU; --quantize int8 makes it fast)"
        )
    if quantize and form != ".onnx":
        raise InputError(f"expected out as *.onnx, for --quantize (got a {form})")
    if quantize and dynamic_size:
        raise InputError("expected either --quantize or --dynamic_size (got both)")
    if calibration and not quantize:
        raise InputError("expected --quantize int8, for --calibration")
    if dynamic_size and form != ".onnx":
        raise InputError(
            f"expected out as *.onnx, for --dynamic_size (got a {form}; torch.export would hold on "
            "to batches of two images or more)"
        )


def _config_of(checkpoint: str | Path) -> str:
    """The config of a checkpoint's run, whose data are the checkpoint's."""
    config = run_config(checkpoint)
    system, name = place(config)
    if not system.exists(name):
        raise InputError(
            f"{checkpoint}: expected a checkpoint in the folder of its run, or --calibration "
            f"CONFIG, for --quantize (there is no {config})"
        )
    return config


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


def _described(
    path: str | Path, needed: Collection[str], content: dict[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The content of a checkpoint or an export, and what builds the module that it is of.

    Nothing that only training needs, such as a teacher.
    """
    content = read_trained(path) if content is None else content
    hparams = content["hyper_parameters"]
    exported = is_export(path)
    otherwise = f"{path}: {NO_EXPORT}" if exported else _no_checkpoint(path, needed, hparams)
    return content, only(hparams, needed, otherwise)
