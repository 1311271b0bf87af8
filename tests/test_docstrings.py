import doctest
import importlib
import pkgutil

import pytest

import pyg_avig

MODULES = [m.name for m in pkgutil.walk_packages(pyg_avig.__path__, "pyg_avig.")]
FINDER = doctest.DocTestFinder(exclude_empty=True)
EXAMPLES = [
    pytest.param(example, id=example.name)
    for name in MODULES
    if not name.endswith("__main__")
    for example in FINDER.find(importlib.import_module(name))
    if example.examples
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_give_what_they_show(example):
    assert doctest.DocTestRunner().run(example).failed == 0


@pytest.mark.parametrize("name", pyg_avig.__all__)
def test_what_is_needed_most_has_an_example(name):
    if name not in ("InputError", "__version__"):
        assert ">>> " in getattr(pyg_avig, name).__doc__
