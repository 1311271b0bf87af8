"""Compiling the kernels (cpp/) when they are first needed, into the user's cache.

The source knows nothing of Python or PyTorch: it compiles in a few seconds and serves every version
of both. Its threads are PyTorch's, as the OpenMP library that PyTorch has loaded serves it too.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

_SOURCES = Path(__file__).with_name("cpp")
_FLAGS = ["-O3", "-std=c++17", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi"]
_log = logging.getLogger(__name__)


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; ``None`` where there can be none, and the log says why."""
    if os.environ.get("PYG_AVIG_KERNELS") == "0":
        return None
    try:
        path = _compiled()
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # Broken in the cache, perhaps.
            path.unlink()
            return ctypes.CDLL(str(_compiled()))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        _log.warning("PyTorch's products serve instead of the C++ kernels: %s", error)
        return None


def _compiled() -> Path:
    """The library for this source and compiler, taken from the cache if it is there."""
    found = shutil.which("c++") or shutil.which("g++")
    compiler = shlex.split(os.environ.get("CXX", "")) or ([found] if found else [])
    if not compiler:
        raise RuntimeError("found no C++ compiler (c++, g++ or $CXX)")
    command = [*compiler, *_FLAGS]
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True)
    files = sorted(_SOURCES.iterdir())
    what = [*(file.read_bytes() for file in files), " ".join(command).encode(), version.stdout]
    key = hashlib.sha256(b"\0".join(what)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "pyg_avig" / "kernels" / f"{platform.machine()}-{key}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = Path(folder) / path.name
            command += [str(file) for file in files if file.suffix == ".cpp"]
            run = subprocess.run([*command, "-o", str(built)], capture_output=True)
            if run.returncode != 0:
                said = run.stderr.decode(errors="replace")
                raise RuntimeError(f"{' '.join(command)} failed:\n{said}")
            built.replace(path)  # Whole or not at all, whoever else compiles it now.
    return path
