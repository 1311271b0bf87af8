"""The errors that a user can mend."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class InputError(ValueError):
    """Bad input: the message names what was expected and what came.

    A :class:`ValueError`, so library users need not know it; the command line
    prints its message alone, without a traceback.
    """


def of_extra(module: str, extra: str) -> Any:
    """A module that an extra of this package installs.

    Raises:
        InputError: If it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f'expected {error.name} (it is not installed): pip install "pyg_avig[{extra}]"'
        ) from None
