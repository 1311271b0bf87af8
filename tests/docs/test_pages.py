import json
import re
from pathlib import Path

import pytest

from pyg_avig.graphs import graph_names
from pyg_avig.ops import affinity_names

PAGES = [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
NOTEBOOKS = sorted(Path("docs/notebooks").glob("*.ipynb"))
RUNNING = ["README", "start", "layer", "constructors", "images", "models"]


def python_blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem in RUNNING], ids=str)
def test_the_code_of_a_page_runs(page):
    blocks = python_blocks(page)
    assert blocks
    names = {}
    for block in blocks:  # One after the other, as one reads them.
        exec(block, names)


@pytest.mark.parametrize("page", [*PAGES, Path("CONTRIBUTING.md"), Path("SECURITY.md")], ids=str)
def test_links_lead_somewhere_on_github_too(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
        if "://" not in link:
            assert (page.parent / link).exists(), link


def test_the_page_on_graphs_has_all_of_them():
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", Path("docs/constructors.md").read_text(), re.M)
    assert sorted(name for name, _ in rows) == graph_names()


def test_the_page_on_the_layer_has_all_affinities():
    rows = re.findall(r"^  \| `(\w+)` \|", Path("docs/layer.md").read_text(), re.M)
    assert sorted(rows) == affinity_names()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
