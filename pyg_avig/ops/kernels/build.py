"""Compiling the kernels (cpp/) when they are first needed, into the user's cache.

The source knows nothing of Python or PyTorch: it compiles in some ten seconds and serves every
version of both. It is compiled for the best instruction set of the processor at hand, whose
registers decide how wide its vectors are; a cache that machines share keeps a library for each set.

Whoever can write a library can run code as its user, so one is loaded only from a folder that no
one else can write; where the cache is none, a library is compiled for this process alone.
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
import time
from pathlib import Path

import torch

from pyg_avig.errors import InputError

KERNELS = (
    "axial_pairs",
    "axial_spread",
    "csr_pairs",
    "csr_spread",
    "norm_moments",
    "norm_gelu",
    "norm_gelu_backward",
    "norm_backward",
)
TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
_SOURCES = Path(__file__).with_name("cpp")
_FLAGS = ["-O3", "-std=c++17", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi"]
_AVX2 = ["-mavx2", "-mfma", "-mf16c"]
_AVX512 = [*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
_FLAGS_OF = {"sse2": [], "avx2": _AVX2, "avx512": _AVX512, "neon": [], "generic": []}
_OLD = 3600  # Seconds after which a compilation is no longer under way.
_log = logging.getLogger(__name__)


def instruction_sets() -> list[str]:
    """The instruction sets that the kernels can be compiled for and this processor has.

    The last is the best. As PyTorch sees it, so that its ``ATEN_CPU_CAPABILITY`` holds here too.
    """
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        has = {"AVX2": 2, "AVX512": 3}.get(torch.backends.cpu.get_cpu_capability(), 1)
        return ["sse2", "avx2", "avx512"][:has]
    return ["neon"] if machine in ("aarch64", "arm64") else ["generic"]


def instructions() -> str | None:
    """The instruction set in use: the best, or what ``PYG_AVIG_KERNELS`` names; ``None`` if 0.

    Raises:
        InputError: If it names another, or one that the processor does not have.
    """
    chosen = os.environ.get("PYG_AVIG_KERNELS", "")
    if chosen == "0":
        return None
    has = instruction_sets()
    if chosen not in ("", *has):
        raise InputError(f"PYG_AVIG_KERNELS must be 0 or one of {has} here (got {chosen!r})")
    return chosen or has[-1]


def library() -> ctypes.CDLL | None:
    """The compiled kernels; ``None`` where there can be none, and the log says why, once."""
    chosen = instructions()
    return None if chosen is None else _library(chosen)


@functools.cache
def _library(chosen: str) -> ctypes.CDLL | None:
    try:
        return _load(chosen)
    except (AttributeError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        _log.warning("PyTorch serves instead of the C++ kernels: %s", error)
        return None


def _load(chosen: str) -> ctypes.CDLL:
    """The library from the cache, or compiled."""
    command = [*_compiler(), *_FLAGS, *_FLAGS_OF[chosen]]
    name = f"{platform.machine()}-{chosen}-{_key(command)}.so"
    try:
        cache = _cache()
    except PermissionError as error:
        _log.warning("The C++ kernels are compiled for this process alone: %s", error)
        with tempfile.TemporaryDirectory() as folder:  # A loaded file need not stay.
            return _opened(_compiled(command, Path(folder) / name))
    path = cache / name
    if path.exists() and _is_ours(path):
        try:
            return _opened(path)
        except (AttributeError, OSError):  # Broken, perhaps.
            path.unlink(missing_ok=True)
    _remove_leftovers(cache)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        # Whole or not at all, whoever else compiles it now.
        _compiled(command, Path(folder) / name).replace(path)
    return _opened(path)


def _compiler() -> list[str]:
    if os.name != "posix":
        raise RuntimeError(f"they are for POSIX systems (got {os.name})")
    found = shutil.which("c++") or shutil.which("g++")
    compiler = shlex.split(os.environ.get("CXX", "")) or ([found] if found else [])
    if not compiler:
        raise RuntimeError("found no C++ compiler (c++, g++ or $CXX)")
    return compiler


def _key(command: list[str]) -> str:
    """A name for what this source, compiler and flags make."""
    version = subprocess.run([*_compiler(), "--version"], capture_output=True, check=True)
    files = [file.read_bytes() for file in sorted(_SOURCES.iterdir())]
    what = b"\0".join([*files, " ".join(command).encode(), version.stdout])
    return hashlib.sha256(what).hexdigest()[:16]


def _cache() -> Path:
    """The folder of compiled libraries.

    Raises:
        PermissionError: If it cannot be had, or others could write it.
        RuntimeError: If nothing in it may be executed.
    """
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache / "pyg_avig" / "kernels"
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except (OSError, RuntimeError) as error:  # No home, or none that can be written.
        raise PermissionError(str(error)) from error
    if not (_is_ours(folder) and os.access(folder, os.W_OK)):
        raise PermissionError(f"{folder} must be this user's, and no one else may write it")
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise RuntimeError(f"{folder} is mounted noexec; XDG_CACHE_HOME can name another")
    return folder


def _is_ours(path: Path) -> bool:
    """Whether a file or folder is this user's, and no one else may write it."""
    status = path.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def _remove_leftovers(cache: Path) -> None:
    """Remove what killed compilations left."""
    for folder in cache.iterdir():
        if folder.is_dir() and time.time() - folder.stat().st_mtime > _OLD:
            shutil.rmtree(folder, ignore_errors=True)


def _compiled(command: list[str], path: Path) -> Path:
    sources = [str(file) for file in sorted(_SOURCES.glob("*.cpp"))]
    run = subprocess.run([*command, *sources, "-o", str(path)], capture_output=True)
    if run.returncode != 0:
        said = run.stderr.decode(errors="replace")
        raise RuntimeError(f"{' '.join(command)} failed:\n{said}")
    path.chmod(0o700)
    return path


def _opened(path: Path) -> ctypes.CDLL:
    """The library, with every kernel in it.

    Raises:
        OSError: If it cannot be loaded.
        AttributeError: If it lacks a kernel.
    """
    library = ctypes.CDLL(str(path))
    for kernel in KERNELS:
        for number in TYPES.values():
            getattr(library, f"{kernel}_{number}")
    return library
