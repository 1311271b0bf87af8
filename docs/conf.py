"""The site that `make docs` builds into build/docs."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sysconfig
import urllib.request
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import pyg_avig

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build"
CARDS = ROOT / "docs" / "cards"
PAGES_OF_FILES = {
    r"CONTRIBUTING\.md": "contributing.rst",
    r"datasets/(\w+)/README\.md": r"cards/\1.md",
}
log = logging.getLogger(__name__)

project = "pyg_avig"
author = "the authors of pyg_avig"
copyright = "the authors of pyg_avig"
release = version = pyg_avig.__version__
html_theme = "furo"
html_title = f"pyg_avig {release}"
templates_path = ["templates"]
exclude_patterns = ["templates", "figures"]
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]

# Pages of Markdown, which GitHub shows as they are.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Notebooks run in the build, each in a fresh process that finds this environment's commands first.
nb_execution_mode = "force"
nb_execution_timeout = 600  # Of a cell, on a busy machine; a whole notebook takes half a minute.
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("PYTHONWARNINGS", "ignore")  # Of dependencies, of each other.

# The reference: a page for every public name.
autosummary_generate = True
autosummary_imported_members = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = ["Shapes"]


def inventories() -> dict[str, tuple[str, Any]]:
    """The names that other projects document, where their sites can be reached; kept in build/."""
    sites = {
        "python": "https://docs.python.org/3/",
        "torch": "https://docs.pytorch.org/docs/stable/",
        "torch_geometric": "https://pytorch-geometric.readthedocs.io/en/latest/",
        "pytorch_lightning": "https://lightning.ai/docs/pytorch/stable/",
    }
    found = {}
    for name, site in sites.items():
        kept = BUILD / "inventories" / f"{name}.inv"
        try:
            if not kept.exists():
                with urllib.request.urlopen(f"{site}objects.inv", timeout=5) as answer:
                    text = answer.read()
                if text.startswith(b"# Sphinx inventory"):
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_bytes(text)
        except (OSError, HTTPException):
            log.info("%s cannot be reached: names of %s get no links", site, name)
        if kept.exists():
            found[name] = (site, str(kept))
    return found


intersphinx_mapping = inventories()


@cache
def public_names() -> dict[str, Any]:
    """What the ``__all__`` of every module of the package names."""
    modules = ["pyg_avig", *(m.name for m in pkgutil.walk_packages(pyg_avig.__path__, "pyg_avig."))]
    found = {}
    for module_name in modules:
        if not module_name.endswith("__main__"):
            module = importlib.import_module(module_name)
            for name in getattr(module, "__all__", []):
                found[f"{module_name}.{name}"] = getattr(module, name)
    return found


def documented_as(value: Any, env: BuildEnvironment) -> str | None:
    """The name under which a public object has its page."""
    pages = env.get_domain("py").objects
    names = public_names().items()
    return next((name for name, other in names if other is value and name in pages), None)


def miss_no_public_name(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn, which ends the build, of what is public and has no page under any of its names."""
    for name, value in public_names().items():
        if documented_as(value, env) is None and not name.endswith("__version__"):
            log.warning("%s is public and has no page: add it to docs/reference.rst", name)


def lead_to_the_page(app: Sphinx, env: BuildEnvironment, node: Any, text: Any) -> Any:
    """Lead a reference by another of an object's names, such as ``pyg_avig.Grapher``."""
    value = public_names().get(node.get("reftarget"))
    name = None if value is None else documented_as(value, env)
    if name is None or node.get("refdomain") != "py":
        return None
    python = env.get_domain("py")
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, text)


def write_cards(app: Sphinx) -> None:
    """A page for the card of each data set."""
    CARDS.mkdir(exist_ok=True)
    for card in sorted(ROOT.glob("datasets/*/README.md")):
        text = re.sub(r"\]\(\.\./(\w+)/README\.md", r"](\1.md", card.read_text())
        (CARDS / f"{card.parent.name}.md").write_text(text)


def link_to_pages(app: Sphinx, name: str, text: list[str]) -> None:
    """Lead links to files beyond docs/ to the pages that include these."""
    for file, page in PAGES_OF_FILES.items():
        text[0] = re.sub(rf"\]\(\.\./{file}", rf"]({page}", text[0])


def setup(app: Sphinx) -> None:
    """What the build does beside."""
    app.connect("builder-inited", write_cards)
    app.connect("source-read", link_to_pages)
    app.connect("env-check-consistency", miss_no_public_name)
    app.connect("missing-reference", lead_to_the_page)
