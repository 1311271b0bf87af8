import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import pyg_avig

MODULES = [m.name for m in pkgutil.walk_packages(pyg_avig.__path__, "pyg_avig.")]
MODULES = [name for name in MODULES if not name.endswith("__main__")]


def test_importing_the_package_needs_torch_and_pyg_alone():
    program = """
import sys
for name in ("timm", "torchvision", "pytorch_lightning", "torchmetrics", "jsonargparse",
             "matplotlib", "sklearn", "PIL"):
    sys.modules[name] = None
import pyg_avig, pyg_avig.transforms, pyg_avig.ops, pyg_avig.graphs, pyg_avig.nn
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)


def test_the_command_line_says_which_extra_is_missing():
    program = """
import sys
sys.modules["pytorch_lightning"] = None
from pyg_avig.__main__ import main
sys.argv = ["pyg-avig", "fit", "--config=digits/nano"]
sys.exit(main())
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True
    )
    assert run.returncode == 2
    assert "pyg_avig[train]" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("name", MODULES)
def test_public_names_exist_and_are_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for public in getattr(module, "__all__", []):
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, public
