"""Models as `pyg-avig export` writes them: safetensors files, whose reading runs no code."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from pyg_avig.errors import InputError
from pyg_avig.files import kind_of, local_file, place
from pyg_avig.models.vig import ViG

NEEDED = {"name", "model_args", "swap_attention", "classes", "data_config"}
"""What is said of a model of images."""
ADDED = {"swap_attention"}
"""What earlier versions did not say, as it was ``None``."""
NEEDED_OF_GRAPHS = {"facts", "model_args"}
"""What is said of a model of graphs."""
WEIGHTS = "model.safetensors"
"""The exported file in an exported folder."""


def is_export(path: str | Path) -> bool:
    """Whether a path or address is that of an exported file or folder, by its name or kind."""
    if Path(path).suffix == ".safetensors":
        return True
    system, name = place(path)
    return system.isdir(name)


def load_exported_vig(path: str | Path) -> ViG:
    """The model of graphs in an exported file, in evaluation mode, on the CPU.

    Its outputs are logits, or predictions in the unit of the targets. What the graphs were that it
    was trained on is in ``read_description(path, NEEDED_OF_GRAPHS)["facts"]``.

    Raises:
        InputError: If the file is missing, broken, or of another model.
    """
    tensors, description = read_export(path, NEEDED_OF_GRAPHS)
    model = vig_for(**description)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: expected the weights of ViG ({reason})") from None
    return model.eval()


def vig_for(facts: dict[str, Any], model_args: dict[str, Any] | None) -> ViG:
    """A ViG for data.

    Args:
        facts: What the data say of themselves; see :attr:`pyg_avig.data.GraphData.facts`.
        model_args: Further arguments of :class:`ViG`.

    Raises:
        InputError: If an argument is none of ViG's.
    """
    args = {"pos_dim": facts["pos_dim"] or 1, **(model_args or {})}
    if args.get("graph") is None:
        args = {"edge_dim": facts["edge_dim"], **args}
    try:
        return ViG(facts["in_channels"], facts["out_channels"], level=facts["level"], **args)
    except TypeError as error:
        raise InputError(f"expected model_args as arguments of ViG ({error})") from None


def read_export(
    path: str | Path, needed: Collection[str] | None = NEEDED
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of an exported model, and what is said of it.

    Args:
        path: The file, or an exported folder, here or at an address that fsspec knows.
        needed: What must be said: ``NEEDED`` or ``NEEDED_OF_GRAPHS``; ``None`` gives all that is.

    Raises:
        InputError: If the file is missing, broken, or of something else.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, _description(path, file, needed)


def read_description(path: str | Path, needed: Collection[str] | None = NEEDED) -> dict[str, Any]:
    """What is said of an exported model, without its tensors.

    Args:
        path: The file, or an exported folder, here or at an address that fsspec knows.
        needed: What must be said; ``None`` gives all that is.

    Raises:
        InputError: If the file is missing, broken, or of something else.
    """
    with _opened(path) as file:
        return _description(path, file, needed)


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    if Path(path).suffix != ".safetensors" and is_export(path):
        system, name = place(path)
        if not system.exists(f"{name}/{WEIGHTS}"):
            raise InputError(
                f"{path}: expected a folder that `pyg-avig export` wrote, with {WEIGHTS} (there is "
                "none)"
            )
        path = f"{str(path).rstrip('/')}/{WEIGHTS}"
    try:
        with local_file(path) as local, safe_open(local, "pt") as file:
            yield file
    except FileNotFoundError:
        raise InputError(f"{path}: expected an exported model (there is no such file)") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: expected an exported model ({_reason(path, error)})") from None


def _reason(path: str | Path, error: Exception) -> str:
    try:
        with local_file(path) as file:
            kind = kind_of(file)
    except OSError:
        return str(error)
    if kind == "a safetensors file":
        return str(error)
    hint = "; `pyg-avig export CHECKPOINT model.safetensors` makes one of a checkpoint"
    return f"got {kind}" + hint * ("checkpoint" in kind)


def _description(path: str | Path, file: Any, needed: Collection[str] | None) -> dict[str, Any]:
    try:
        description = json.loads((file.metadata() or {}).get("pyg_avig", "null"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: expected an exported model ({error})") from None
    if not isinstance(description, dict):
        raise InputError(f"{path}: {NO_EXPORT}")
    return description if needed is None else only(description, needed, f"{path}: {NO_EXPORT}")


def only(said: dict[str, Any], needed: Collection[str], otherwise: str) -> dict[str, Any]:
    """What is needed of what is said of a model; an InputError with this text if it is not all."""
    if not said.keys() >= set(needed) - ADDED:
        raise InputError(otherwise)
    return {key: said.get(key) for key in needed}


NO_EXPORT = "expected a file that `pyg-avig export` wrote (got another)"
