"""The data of a config, without its model and trainer."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import pytorch_lightning as pl
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from pyg_avig.config_files import config_file
from pyg_avig.errors import InputError
from pyg_avig.files import local_file

DataModule = TypeVar("DataModule", bound=pl.LightningDataModule)


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
    try:
        with local_file(config_file(str(config))) as file:
            content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{config}: expected YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict) or not isinstance(content.get("data"), dict):
        raise InputError(f"{config}: expected a config of `pyg-avig fit` (got one without data)")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(pl.LightningDataModule, "data")
    try:
        data = parser.instantiate_classes(parser.parse_object({"data": content["data"]})).data
    except ArgumentError as error:
        if isinstance(error.__cause__, InputError):
            raise
        raise InputError(f"{config}: expected data ({' '.join(str(error).split())})") from None
    if not isinstance(data, kind):
        raise InputError(f"{config}: expected data {kind.__name__} (got {type(data).__name__})")
    return data
