"""The configs that come with this library, by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from pyg_avig.errors import InputError

_OPTIONS = ("-c", "--config")


def configs_folder() -> Path:
    """Where they lie: in the package as it is installed, beside it in a clone."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def named_configs() -> dict[str, Path]:
    """The file of each config by its name, such as ``digits/nano``."""
    folder = configs_folder()
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in sorted(folder.rglob("*.yaml"))
    }


def describe(path: Path) -> str:
    """The first sentence of the comment that a config begins with."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.removeprefix("#").strip() or not line.startswith("#"):
            break
        words.append(line.removeprefix("#").strip())
    return " ".join(words).split(". ")[0].rstrip(".")


def config_file(word: str) -> str:
    """The file that a word after ``--config`` stands for: a file, an address, or a name.

    Raises:
        InputError: If there is no such file and no such name.
    """
    if Path(word).is_file() or any(mark in word for mark in ("://", "{", "\n", ": ")):
        return word
    known = named_configs()
    name = word.removeprefix("./").removeprefix("configs/").removesuffix(".yaml")
    if name in known:
        return str(known[name])
    if Path(word).is_dir():
        raise InputError(f"{word}: expected a config (got a folder)")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise InputError(
        f"{word}: expected --config as a file or a name that `pyg-avig configs` lists (there is "
        f"none{hint})"
    )


def with_config_files(words: Sequence[str]) -> list[str]:
    """Arguments of a command, each config as the file that it is.

    Raises:
        InputError: If one is not there.
    """
    found: list[str] = []
    for n, word in enumerate(words):
        option, equals, value = word.partition("=")
        if n and words[n - 1] in _OPTIONS:
            found.append(config_file(word))
        elif equals and option in _OPTIONS:
            found.append(f"{option}={config_file(value)}")
        else:
            found.append(word)
    return found


def list_configs(names: Sequence[str] = ()) -> None:
    """Print each config's name with a line on it; or the content of those that are named.

    Raises:
        InputError: If there is none of a name.
    """
    if names:
        for file in map(config_file, names):
            print(Path(file).read_text(encoding="utf-8"), end="")
        return
    known = named_configs()
    width = max(map(len, known), default=0)
    for name, path in known.items():
        print(f"{name:{width}}  {describe(path)}")
    print("\npyg-avig fit --config NAME trains it; pyg-avig configs NAME prints it.")
