"""The data of a config, without its model and trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytorch_lightning as pl
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from torch_geometric.transforms import BaseTransform

from pyg_avig.config_files import config_file
from pyg_avig.data.loading.own_graphs import OwnGraphs
from pyg_avig.errors import InputError
from pyg_avig.files import local_file

DataModule = TypeVar("DataModule", bound=pl.LightningDataModule)


class Reading(NamedTuple):
    """How :class:`~pyg_avig.data.OwnGraphs` read a file: its column of SMILES, its transforms."""

    smiles: str
    transform: list[BaseTransform]


def data_of(config: str | Path, kind: type[DataModule]) -> DataModule:
    """The data module that a config of ``pyg-avig fit`` names.

    Args:
        config: The config, here or at an address that fsspec knows, or by its name.
        kind: What it must be, or a subclass of that.

    Raises:
        InputError: If there is none, the file is no YAML or no config, or its data are of another
            kind.
        OSError: If it cannot be read.
    """
    section = _section(config)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(pl.LightningDataModule, "data")
    try:
        data = parser.instantiate_classes(parser.parse_object({"data": section})).data
    except ArgumentError as error:
        if isinstance(error.__cause__, InputError):
            raise
        raise InputError(f"{config}: expected data ({' '.join(str(error).split())})") from None
    if not isinstance(data, kind):
        raise InputError(f"{config}: expected data {kind.__name__} (got {type(data).__name__})")
    return data


def reading_of(config: str | Path) -> Reading | None:
    """How the data of a config read files of one's own; none of them is read for it.

    Args:
        config: As for :func:`data_of`.

    Returns:
        ``None`` if its data are no :class:`~pyg_avig.data.OwnGraphs`.

    Raises:
        InputError: If the file is no YAML or no config, or its transforms are none.
        OSError: If it cannot be read.
    """
    section = _section(config)
    names = [f"{module}.OwnGraphs" for module in ("pyg_avig.data", OwnGraphs.__module__)]
    if section.get("class_path") not in names:
        return None
    given = section.get("init_args") or {}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--transform", type=list[BaseTransform])
    try:
        made = parser.parse_object({"transform": given.get("transform") or []})
        transform = parser.instantiate_classes(made).transform
    except ArgumentError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{config}: expected transforms of data ({reason})") from None
    return Reading(given.get("smiles") or "smiles", transform)


def _section(config: str | Path) -> dict[str, Any]:
    """What a config says of its data."""
    try:
        with local_file(config_file(str(config))) as file:
            content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{config}: expected YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not isinstance(content.get("data"), dict):
        raise InputError(f"{config}: expected a config of `pyg-avig fit` (got one without data)")
    return content["data"]
