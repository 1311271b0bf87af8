import inspect

import pytest
import pytorch_lightning as pl
from jsonargparse import ArgumentParser

import pyg_avig.data
import pyg_avig.train
from pyg_avig.commands import signatures
from pyg_avig.commands.signatures import arguments_of, trainer_arguments

KINDS = (pl.LightningModule, pl.LightningDataModule)
CLASSES = [
    f"{package.__name__}.{name}"
    for package in (pyg_avig.data, pyg_avig.train)
    for name in package.__all__
    if inspect.isclass(kind := getattr(package, name)) and issubclass(kind, KINDS)
]


def as_the_parser_has_them(kind):
    parser = ArgumentParser()
    parser.add_class_arguments(kind, "it", fail_untyped=False)
    names = [action.dest.removeprefix("it.") for action in parser._actions if "." in action.dest]
    return {name for name in names if "." not in name}


def test_there_are_classes():
    assert {"pyg_avig.train.GraphTask", "pyg_avig.data.OwnGraphs"} <= set(CLASSES)


@pytest.mark.parametrize("path", CLASSES)
def test_a_class_takes_what_the_parser_finds(path):
    package, _, name = path.rpartition(".")
    kind = getattr(getattr(pyg_avig, package.removeprefix("pyg_avig.")), name)
    assert set(arguments_of(path)) == as_the_parser_has_them(kind)
    assert arguments_of(f"{kind.__module__}.{name}") == arguments_of(path)


def test_the_trainer_takes_what_the_parser_finds():
    assert set(trainer_arguments("__init__")) == as_the_parser_has_them(pl.Trainer)
    for method in ("fit", "validate", "test"):
        expected = list(inspect.signature(getattr(pl.Trainer, method)).parameters)[1:]
        assert trainer_arguments(method) == expected


@pytest.mark.parametrize(
    "path", ["torch.nn.Linear", "pyg_avig.data.Nothing", "pyg_avig.nowhere.Digits", "Digits", ""]
)
def test_of_others_nothing_is_said(path):
    assert arguments_of(path) is None


SOURCE = """
from other import Foreign

class Base:
    def __init__(self, a, *, b=1): ...

class Child(Base):
    def __init__(self, c, **rest):
        super().__init__(**rest)

class Heir(Child): ...

class Reader(Base):
    def __init__(self, c, **rest):
        super().__init__(**rest)
        self.d = rest.get("d")

class Both(Base, Child):
    def __init__(self, c, **rest):
        super().__init__(**rest)

class Guest(Foreign):
    def __init__(self, c, **rest):
        super().__init__(**rest)
"""


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Base", ["a", "b"]),
        ("Child", ["c", "a", "b"]),
        ("Heir", ["c", "a", "b"]),
        ("Reader", None),
        ("Both", None),
        ("Guest", None),
    ],
)
def test_what_is_passed_on_is_followed_where_it_is_plain(name, arguments, tmp_path, monkeypatch):
    (tmp_path / "some.py").write_text(SOURCE)
    monkeypatch.setattr(signatures, "_PACKAGE", tmp_path)
    assert arguments_of(f"{tmp_path.name}.some.{name}") == arguments


def test_without_lightning_nothing_is_said(monkeypatch):
    monkeypatch.setattr(signatures, "find_spec", lambda name: None)
    assert trainer_arguments("fit") is None
