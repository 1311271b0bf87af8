"""Scripts by which a shell completes commands, options and names of configs."""

from __future__ import annotations

import argparse
from typing import Any

from pyg_avig.config_files import named_configs
from pyg_avig.errors import InputError


def print_completion(shell: str, commands: dict[str, str]) -> None:
    """Print the script of a shell, which knows every option of every command.

    Args:
        shell: Its name, such as ``bash``.
        commands: What each command does, by its name.

    Raises:
        InputError: If shtab is not installed, or does not know the shell.
    """
    try:
        import shtab
    except ModuleNotFoundError:
        raise InputError("expected shtab (it is not installed): pip install shtab") from None
    if shell not in shtab.SUPPORTED_SHELLS:
        known = ", ".join(shtab.SUPPORTED_SHELLS)
        raise InputError(f"expected a shell of {known} (got {shell!r})")
    print(shtab.complete(_parser(commands, shtab.FILE), shell))


def _parser(commands: dict[str, str], file: Any) -> argparse.ArgumentParser:
    from pyg_avig.arguments import PARSERS, options

    parser = argparse.ArgumentParser("pyg-avig")
    parser.add_argument("--version", action="store_true")
    subparsers = parser.add_subparsers()
    for name, line in commands.items():
        command = subparsers.add_parser(name, help=line)
        if name in ("fit", "validate", "test"):
            command.add_argument("-c", "--config", choices=list(named_configs()))
            for option in ("--ckpt_path", "--resume"):
                command.add_argument(option).complete = file  # type: ignore[attr-defined]
            for option in _fields():
                command.add_argument(f"--{option}")
        elif name == "configs":
            command.add_argument("name", nargs="*", choices=list(named_configs()))
        elif name in PARSERS:
            command.add_argument("file", nargs="*").complete = file  # type: ignore[attr-defined]
            for option in options(name):
                command.add_argument(option)
    return parser


def _fields() -> list[str]:
    """The fields of a training on images, as the parser knows them."""
    import pytorch_lightning as pl
    from jsonargparse import ArgumentParser

    from pyg_avig.data import Images
    from pyg_avig.train import ImageClassifier

    parser = ArgumentParser()
    for group, kind in (("trainer", pl.Trainer), ("model", ImageClassifier), ("data", Images)):
        parser.add_class_arguments(kind, group, fail_untyped=False)
    known = {action.dest for action in parser._actions if "." in action.dest}
    return sorted(name for name in known if not name.endswith("help"))
