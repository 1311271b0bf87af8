"""Errors that a user can mend: one line of what was expected and what came."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jsonargparse import ArgumentError
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from pyg_avig.errors import InputError
from pyg_avig.train.parser_errors import reason_of


def mendable(error: BaseException | None) -> str | None:
    """What a user can mend, in one line; ``None`` of anything else."""
    of_parser = next((e for e in _causes(error) if isinstance(e, ArgumentError)), None)
    for cause in _causes(error):  # The parser wraps what a constructor raises.
        if isinstance(cause, OSError) and cause.filename is not None:
            return f"{cause.filename}: {cause.strerror}"
        if isinstance(cause, OSError):
            # One of a loader's worker process carries the worker's traceback before it.
            return (str(cause).strip().splitlines() or [type(cause).__name__])[-1]
        if isinstance(cause, (InputError, MisconfigurationException)):
            return " ".join(str(cause).rsplit("InputError: ", 1)[-1].split())
    return None if of_parser is None else reason_of(str(of_parser))


@contextmanager
def refused(when: Callable[[], bool]) -> Iterator[None]:
    """Make errors of whatever kind, in what was not begun yet, a matter of what was asked for."""
    try:
        yield
    except Exception as error:
        if not when() or mendable(error) is not None or "JSONARGPARSE_DEBUG" in os.environ:
            raise
        raise InputError(
            f"expected a config and data that fit each other (got {_reason(error)}); "
            "JSONARGPARSE_DEBUG=1 shows where"
        ) from error


@contextmanager
def one_line_of_a_full_disk(folder: str | None) -> Iterator[None]:
    """Name the folder where an error of a full disk names nothing."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(error.errno, error.strerror, folder) from error
        raise


def _reason(error: Exception) -> str:
    """What was raised first, and what the parser says around it."""
    *_, first = _causes(error)
    name, said = type(first).__name__, reason_of(str(error))
    if not str(first) and first.__traceback__:  # As of an assertion, which has its line alone.
        said = f"{said} {traceback.extract_tb(first.__traceback__)[-1].line}"
    return f"{name}: {said}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
