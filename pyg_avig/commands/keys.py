"""Mistyped keys of a training, found before PyTorch is loaded."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pyg_avig.commands.signatures import arguments_of, trainer_arguments
from pyg_avig.errors import InputError

_OF_ALL = (
    "help",
    "config",
    "print_config",
    "resume",
    "seed_everything",
    "trainer",
    "model",
    "data",
)
# Arguments of the Trainer's methods that the command line fills in.
_FILLED_IN = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders"}
# What can be of any class, and where classes that are named without a module are looked for.
_HOMES = {"model": "pyg_avig.train", "data": "pyg_avig.data"}
_DEFAULT_MODEL = "pyg_avig.train.ImageClassifier"
_OF_ANY_CLASS = ("class_path", "init_args", "dict_kwargs")


class _Given(NamedTuple):
    """A key with its value, and where it stands: in a file, or an option."""

    file: str | None
    path: tuple[str, ...]
    value: Any


def check_keys(words: Sequence[str]) -> None:
    """Refuse a key that no training has. The parser looks at all that this cannot judge.

    Args:
        words: ``fit``, ``validate`` or ``test`` with its options, configs as files.

    Raises:
        InputError: That names the first such key, and which one was perhaps meant.
    """
    command, *options = words
    if any(word in ("-h", "--help") or ".help" in word for word in options):
        return
    given = list(_of_options(options))
    _check_outer(command, given)
    if any(word.partition("=")[0] == "--resume" for word in options):
        return  # The classes stand in the config of the run.
    for section, home in _HOMES.items():
        _check_class(section, home, command, given)


def _check_outer(command: str, given: Sequence[_Given]) -> None:
    """Look at the outermost keys, and at those of the Trainer."""
    arguments, fields = trainer_arguments(command), trainer_arguments("__init__")
    if arguments is None or fields is None:
        return
    known = [*_OF_ALL, *(name for name in arguments if name not in _FILLED_IN)]
    for key in given:
        if not key.path[0].startswith("__"):  # The parser's notes to itself.
            _look(key, 0, known, f"an option that `pyg-avig {command} --help` lists")
        if key.path[0] == "trainer" and len(key.path) > 1:
            _look(key, 1, fields, "an argument of Lightning's Trainer")


def _check_class(section: str, home: str, command: str, given: Sequence[_Given]) -> None:
    """Look at what the model or the data are made from."""
    own = [key for key in given if key.path[0] == section]
    classes = {
        key.value if "." in key.value else f"{home}.{key.value}"
        for key in own
        if key.path[1:] in ((), ("class_path",)) and isinstance(key.value, str)
    }
    if section == "model":
        classes = classes or {_DEFAULT_MODEL}
    fields = [arguments_of(path) for path in sorted(classes)]
    if not fields or None in fields:
        return
    known = [name for names in fields for name in names or ()]
    helps = " or ".join(f"`pyg-avig {command} --{section}.help={name}`" for name in sorted(classes))
    expected = f"an argument of {' or '.join(sorted(classes))} that {helps} lists"
    for key in own:
        place = 2 if key.path[1:2] == ("init_args",) else 1
        if len(key.path) > place:
            _look(key, place, [*known, *_OF_ANY_CLASS], expected)


def _look(key: _Given, place: int, known: Collection[str], expected: str) -> None:
    name = key.path[place].removesuffix("+")
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    where = f"{key.file}: " if key.file else ""
    whole = ".".join(key.path[: place + 1])
    came = whole if key.file else f"--{whole}"
    raise InputError(f"{where}expected {expected} (got {came}{hint})")


def _of_options(words: Sequence[str]) -> Iterator[_Given]:
    """All keys that options give, those in configs among them."""
    for n, word in enumerate(words):
        option, equals, value = word.partition("=")
        follows = n + 1 < len(words) and not words[n + 1].startswith("--")
        if not equals and follows:
            value = words[n + 1]
        if option in ("-c", "--config"):
            yield from _of_config(value)
        elif option.startswith("--") and len(option) > 2 and " " not in option:
            path = tuple(option.removeprefix("--").split("."))
            yield from _flat(None, path, _read(value) if value.startswith("{") else value)


def _of_config(word: str) -> Iterator[_Given]:
    """The keys of a file, or of what is written in the place of one."""
    file = word if Path(word).is_file() else None
    try:
        content = _read(Path(word).read_bytes() if file else word)
    except OSError:  # The parser will say so.
        return
    if isinstance(content, dict):
        yield from _flat(file or "--config", (), content)


def _flat(file: str | None, path: tuple[str, ...], value: Any) -> Iterator[_Given]:
    """The keys that hold no further ones; the parser takes an empty group of any name."""
    if not isinstance(value, dict):
        yield _Given(file, path, value)
        return
    for key, inner in value.items():
        yield from _flat(file, (*path, *str(key).split(".")), inner)


def _read(text: str | bytes) -> Any:
    """What YAML holds; nothing where the parser will say what is wrong with it."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return None
