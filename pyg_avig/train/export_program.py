"""Writing trained models as programs: ``.pt2`` of torch.export, ``.onnx`` for onnxruntime."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves

from pyg_avig.errors import InputError, of_extra
from pyg_avig.files import written_whole
from pyg_avig.models.exported_onnx import OnnxModel
from pyg_avig.train.export import NEEDED, check_alike
from pyg_avig.train.image_classifier import ImageClassifier

OPSET = 18


def export_classifier(out: str | Path, classifier: ImageClassifier) -> None:
    """Write a classifier as a program from images (B, C, H, W) to logits (B, classes).

    The batch is dynamic; C, H and W are those of the training.

    Args:
        out: ``*.pt2`` or ``*.onnx``, here or at an address that fsspec knows.
        classifier: The classifier, in evaluation mode.

    Raises:
        InputError: As :func:`write_program`.
    """
    size = classifier.hparams["data_config"]["input_size"]
    write_program(
        out,
        classifier.model,
        ["images"],
        ({0: Dim("batch", min=1)},),
        [(torch.rand(number, *size),) for number in (2, 1, 5)],
        {key: classifier.hparams[key] for key in NEEDED},
        "logits",
    )


def write_program(
    out: str | Path,
    model: nn.Module,
    inputs: Sequence[str],
    dynamic: tuple[Any, ...],
    examples: Sequence[tuple[Any, ...]],
    description: dict[str, Any],
    output: str,
) -> None:
    """Write a model as a program, after a look at what the program gives.

    Args:
        out: ``*.pt2`` or ``*.onnx``, here or at an address that fsspec knows.
        model: The model, in evaluation mode: from tensors, or a dict of them, to a tensor.
        inputs: The names of the tensors that it takes.
        dynamic: Which of their sizes are dynamic, as torch.export takes it.
        examples: Arguments: the first to trace the model, all to compare program and model.
        description: What is said of the model, as in an exported ``*.safetensors``. In a ``.pt2``
            it is the extra file ``pyg_avig.json``, in an ``.onnx`` the metadata ``pyg_avig``.
        output: The name of the result.

    Raises:
        InputError: If a package is not installed, the model has operations that such a program
            cannot hold, or the program gives another result; nothing is written.
        OSError: If the file cannot be written.
    """
    suffix = Path(out).suffix
    if suffix == ".onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            of_extra(module, "onnx")
    said = json.dumps(description)
    with torch.no_grad():
        expected = [model(*example) for example in examples]
        with _told(out):
            program = torch.export.export(model, examples[0], dynamic_shapes=dynamic)
        with TemporaryDirectory() as folder:
            path = Path(folder, f"model{suffix}")
            if suffix == ".onnx":
                with _told(out):
                    _save_onnx(path, program, inputs, output, said)
                onnx = OnnxModel(path)
                found = [onnx(*tree_leaves(example)) for example in examples]
            else:
                torch.export.save(program, path, extra_files={"pyg_avig.json": said})
                run = torch.export.load(path).module()
                found = [run(*example) for example in examples]
            for ours, theirs in zip(expected, found, strict=True):
                check_alike(theirs, ours, _RUNS[suffix])
            with written_whole(out) as partial:
                shutil.copyfile(path, partial)


_RUNS = {".onnx": "onnxruntime", ".pt2": "torch.export"}


def _save_onnx(
    path: Path, program: ExportedProgram, inputs: Sequence[str], output: str, said: str
) -> None:
    with _quiet("onnxscript", "onnx_ir", "torch.onnx"):
        made: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            verbose=False,
        )
    made.model.metadata_props["pyg_avig"] = said
    made.save(str(path))


@contextmanager
def _told(out: str | Path) -> Iterator[None]:
    """Say in one line what an exporter cannot do."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # Each exporter has its own, and raises others' too.
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        text = " ".join((str(reason).strip().splitlines() or [type(reason).__name__])[:2])
        raise InputError(
            f"{out}: expected a model that {_RUNS[Path(out).suffix]} can take ({text}); nothing "
            "was written"
        ) from None


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep loggers from telling what they did not simplify."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
