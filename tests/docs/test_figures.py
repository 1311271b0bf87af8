import re

import pytest

from docs.figures import house
from docs.figures.drawings import DRAWINGS, svg


def said(drawn):
    """The words of a drawing, and how many shapes it has."""
    words = re.findall(r">([^<>]+)</text>", drawn)
    return sorted(words), len(re.findall(r"<(?:path|use)\b", drawn))


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.stem)
def test_figures_show_the_code_as_it_is(path):
    """If not: python -m docs.figures."""
    words, shapes = said(path.read_text())
    assert len(words) > 5
    assert shapes > 5
    assert said(svg(DRAWINGS[path]())) == (words, shapes)


def test_imports_point_one_way():
    for name, (parts, _) in house.imports().items():
        assert all(house.PLACES[other][1] < house.PLACES[name][1] for other in parts), name


@pytest.mark.parametrize("name", ["graphs", "ops", "nn", "transforms"])
def test_the_layer_and_the_graphs_need_torch_and_pyg_alone(name):
    assert house.imports()[name][1] & set(house.TOLD) == set()


def test_every_part_of_the_package_is_drawn():
    parts = {path.parent.name for path in house.PACKAGE.glob("*/__init__.py")}
    assert parts | {"viz"} == set(house.PLACES)
