"""What functions take, read from their source: nothing is imported for it."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

_PACKAGE = Path(__file__).parents[1]


class _Class(NamedTuple):
    module: str
    body: ast.ClassDef


def trainer_arguments(method: str) -> list[str] | None:
    """What a method of Lightning's Trainer takes; ``None`` if that cannot be said."""
    package = find_spec("pytorch_lightning")  # A submodule's would import the package.
    for folder in (package and package.submodule_search_locations) or ():
        trainer = _class_in(_parsed(Path(folder, "trainer", "trainer.py")), "Trainer")
        function = trainer and _method(trainer, method)
        if function and not function.args.kwarg:
            return _names(function)
    return None


@cache
def arguments_of(path: str) -> list[str] | None:
    """What a class of this package is made from, and what it passes on to those it is built on.

    Args:
        path: Such as ``pyg_avig.data.Digits``.

    Returns:
        ``None`` if that cannot be said, as of classes of other packages.
    """
    module, _, name = path.rpartition(".")
    found = _find(module, name)
    return None if found is None else _made_from(found)


def _made_from(found: _Class) -> list[str] | None:
    function = _method(found.body, "__init__")
    if function is not None and function.args.kwarg is None:
        return _names(function)
    if function is not None and not _only_passes_on(function):
        return None
    bases = [base.id for base in found.body.bases if isinstance(base, ast.Name)]
    base = _find(found.module, bases[0]) if len(bases) == len(found.body.bases) == 1 else None
    inherited = None if base is None else _made_from(base)
    if function is None or inherited is None:
        return inherited
    return _names(function) + inherited


def _only_passes_on(function: ast.FunctionDef) -> bool:
    """Whether ``**kwargs`` go to ``super().__init__`` and nowhere else."""
    assert function.args.kwarg is not None
    name = function.args.kwarg.arg
    uses = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == name]
    passed = [
        keyword.value
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "super().__init__"
        for keyword in call.keywords
        if keyword.arg is None
    ]
    return len(uses) == 1 and uses[0] in passed


def _find(module: str, name: str) -> _Class | None:
    """A class by its name in a module, which may have it from another module of this package."""
    if module.split(".")[0] != _PACKAGE.name:
        return None
    place = _PACKAGE.joinpath(*module.split(".")[1:])
    tree = _parsed(place.with_suffix(".py")) or _parsed(place / "__init__.py")
    body = _class_in(tree, name)
    if body is not None:
        return _Class(module, body)
    origin = _origin(tree, name)
    return None if origin is None else _find(origin, name)


def _origin(tree: ast.Module | None, name: str) -> str | None:
    """The module that a name is imported from."""
    for statement in tree.body if tree else ():
        if isinstance(statement, ast.ImportFrom) and name in [a.name for a in statement.names]:
            return statement.module
    return None


@cache
def _parsed(file: Path) -> ast.Module | None:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None


def _class_in(tree: ast.Module | None, name: str) -> ast.ClassDef | None:
    found = [s for s in tree.body if isinstance(s, ast.ClassDef) and s.name == name] if tree else []
    return found[0] if found else None


def _method(body: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    found = [s for s in body.body if isinstance(s, ast.FunctionDef) and s.name == name]
    return found[0] if found else None


def _names(function: ast.FunctionDef) -> list[str]:
    """The names of a method's arguments, but for the object itself."""
    arguments = function.args
    return [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)][1:]
