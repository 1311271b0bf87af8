"""Trained models as safetensors files, which run no code when they are read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pyg_avig.errors import InputError
from pyg_avig.files import local_file, written_whole

NEEDED = {"name", "model_args", "classes", "data_config"}


def write_export(path: str | Path, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
    """Write a model's tensors and what is needed to build and feed it.

    Args:
        path: The file, here or at an address that fsspec knows; an older one is replaced when the
            new one is whole.
        tensors: The model's state dict.
        description: ``name``, ``model_args``, ``classes`` and ``data_config`` of
            :class:`~pyg_avig.train.ImageClassifier`.

    Raises:
        OSError: If it cannot be written.
    """
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with written_whole(path) as partial:
        try:
            save_file(contiguous, partial, {"pyg_avig": json.dumps(description)})
        except SafetensorError as error:  # Of a full disk, too.
            raise OSError(f"{path}: cannot be written ({error})") from error


def read_export(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description that :func:`write_export` wrote.

    Raises:
        InputError: If the file is missing, broken, or of something else.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _description(path, file)  # noqa: SIM118


def read_description(path: str | Path) -> dict[str, Any]:
    """What :func:`write_export` says of a model, without its tensors.

    Raises:
        InputError: If the file is missing, broken, or of something else.
    """
    with _opened(path) as file:
        return _description(path, file)


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    try:
        with local_file(path) as local, safe_open(local, "pt") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: expected an exported model (there is no such file)") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: expected an exported model ({error})") from None


def _description(path: str | Path, file: Any) -> dict[str, Any]:
    try:
        description = json.loads((file.metadata() or {}).get("pyg_avig", "null"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: expected an exported model ({error})") from None
    if not isinstance(description, dict) or not description.keys() >= NEEDED:
        raise InputError(f"{path}: expected a file that `pyg-avig export` wrote (got another)")
    return {key: description[key] for key in NEEDED}
