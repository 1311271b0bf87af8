"""Files that are whole or not there, on this machine or at an address that fsspec knows."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

# Of which process, on which machine: others may write the same file, and be killed while they do.
_PARTIAL = re.compile(r".+\.(?P<host>[^.]+)\.(?P<process>\d+)\.partial")


def place(path: str | Path) -> tuple[Any, str]:
    """The file system of fsspec that a path or an address (``s3://...``) is on, and its name there.

    Raises:
        OSError: If fsspec does not know the protocol, or what reads it is not installed.
    """
    try:
        return url_to_fs(str(path))
    except (ValueError, ImportError) as error:
        raise OSError(f"{path}: {error}") from None


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Give a local name to write to; what is there takes the place of ``path`` when it is whole.

    Args:
        path: A path, or an address that fsspec knows; its folder is made. The file's mode
            is that of any new file, whatever its writer says.

    Raises:
        OSError: With the path, if it cannot be written, also where the writer hides that in another
            error. What was there stays.
    """
    system, name = place(path)
    try:
        if isinstance(system, LocalFileSystem):
            with _renamed(Path(name)) as partial:
                yield partial
        else:
            with tempfile.TemporaryDirectory() as folder:
                partial = Path(folder, PurePosixPath(name).name)
                yield partial
                with _said_of(path):
                    system.makedirs(str(PurePosixPath(name).parent), exist_ok=True)
                    system.put_file(str(partial), name)
    except Exception as error:
        cause = _os_error(error)
        if cause is None or cause.errno is None:
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    """A name beside a local path, that is renamed to it at last."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_partial(path.parent)
    host = socket.gethostname().replace(".", "-")
    partial = path.with_name(f"{path.name}.{host}.{os.getpid()}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode
        partial.unlink()  # Who writes nothing leaves nothing.
        yield partial
        partial.chmod(mode)  # Some writers, as safetensors, let nobody else read what they write.
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def kind_of(path: Path) -> str:
    """What a local file is, by its first bytes, for a message: such as ``an image``."""
    with path.open("rb") as file:
        head = file.read(512)
    for kind, starts in _STARTS.items():
        if head.startswith(starts):
            return kind
    if not head:
        return "an empty file"
    if head[8:9] == b"{":
        return "a safetensors file"
    if head[:1] == b"\x80":
        return "a pickle"
    try:
        return "text" if head.decode().isprintable() or b"\n" in head else "something else"
    except UnicodeDecodeError as error:
        whole = error.start > len(head) - 4 and len(head) == 512  # The cut falls in a letter.
        return "text" if whole else "something else"


_STARTS = {
    "an image": (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF"),
    "a checkpoint or another archive": (b"PK\x03\x04",),
    "a packed file": (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc"),
    "a PDF": (b"%PDF",),
}


def _os_error(error: BaseException | None) -> OSError | None:
    """The error of the operating system in or behind another, such as torch's of a full disk."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def remove_partial(folder: Path) -> None:
    """Remove what killed processes of this machine have left half written in a folder."""
    host = socket.gethostname().replace(".", "-")
    for path in folder.glob("*.partial"):
        left = _PARTIAL.fullmatch(path.name)
        if left and left["host"] == host and not _runs(int(left["process"])):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    if os.name != "posix":
        return True  # Elsewhere signal 0 would end it.
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # Another's.
        pass
    return True


@contextmanager
def local_file(path: str | Path) -> Iterator[Path]:
    """A local file with the content of ``path``: itself, or a copy of what is at an address.

    Raises:
        OSError: If there is none.
    """
    system, name = place(path)
    if isinstance(system, LocalFileSystem):
        yield Path(name)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, PurePosixPath(name).name)
        with _said_of(path):
            system.get_file(name, str(copy))
        yield copy


@contextmanager
def _said_of(path: str | Path) -> Iterator[None]:
    """Turn what a store raises, such as that it knows no credentials, into an OSError."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{path}: {error}") from error
