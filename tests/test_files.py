import errno
import os
import resource
import signal
import socket
import subprocess
import sys

import fsspec
import pytest
import torch

from pyg_avig.files import kind_of, local_file, remove_partial, written_whole

HERE = socket.gethostname().replace(".", "-")


@pytest.fixture
def memory():
    """The files of fsspec's store in memory."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def no_space():
    """No file of this process may grow past 10 kB, as on a full disk."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_an_address_gets_a_whole_file(memory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content in (b"one", b"two"):
        with written_whole("memory://bucket/run/last.ckpt") as path:
            path.write_bytes(content)
        with local_file("memory://bucket/run/last.ckpt") as path:
            assert path.read_bytes() == content
    assert memory.find("/") == ["/bucket/run/last.ckpt"]
    assert list(tmp_path.iterdir()) == []


def test_an_address_keeps_what_it_has_if_writing_fails(memory):
    memory.pipe("/a", b"old")

    def fail():
        with written_whole("memory://a") as path:
            path.write_bytes(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert memory.cat("/a") == b"old"


def test_file_addresses_are_paths(tmp_path):
    with written_whole(f"file://{tmp_path}/folder/a") as path:
        path.write_bytes(b"a")
    assert (tmp_path / "folder" / "a").read_bytes() == b"a"
    with local_file(f"file://{tmp_path}/folder/a") as path:
        assert path == tmp_path / "folder" / "a"


def test_what_a_store_refuses_is_an_os_error(memory, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("no credentials")

    monkeypatch.setattr(type(memory), "put_file", refuse)
    with (
        pytest.raises(OSError, match="memory://a: no credentials"),
        written_whole("memory://a") as p,
    ):
        p.write_bytes(b"")
    for path in ("memory://nowhere", "nowhere://a"):
        with pytest.raises(OSError, match="nowhere"), local_file(path):
            pass


def test_a_full_disk_names_the_file_and_leaves_the_old_one(no_space, tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")

    def save():
        with written_whole(path) as partial, partial.open("wb") as file:
            torch.save({"a": torch.zeros(10_000)}, file)

    with pytest.raises(OSError) as error:
        save()
    assert error.value.errno == errno.EFBIG
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_modes_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with written_whole(tmp_path / "a") as path:
            path.write_bytes(b"a")
            path.chmod(0o600)  # As safetensors does.
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_who_writes_nothing_leaves_what_was_there(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    path = tmp_path / "a" / "b"
    with pytest.raises(OSError) as error, written_whole(path):
        pass
    assert error.value.filename == str(path)


def test_only_what_a_gone_process_of_this_machine_left_is_removed(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / f"a.{HERE}.{gone.pid}.partial"
    others = [
        tmp_path / f"a.{HERE}.{os.getppid()}.partial",
        tmp_path / f"a.{HERE}.1.partial",
        tmp_path / f"a.elsewhere.{gone.pid}.partial",
        tmp_path / "mine.partial",
    ]
    for path in (left, *others):
        path.write_bytes(b"half")
    remove_partial(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    left.write_bytes(b"half")
    with written_whole(tmp_path / "b") as path:
        path.write_bytes(b"b")
    assert not left.exists()
    remove_partial(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file"),
        (b"hello\nworld", "text"),
        ("\u00e9".encode() * 400, "text"),  # The first bytes end within a letter.
        (b"a" + "\u00e9".encode() * 400, "text"),
        (b"\x89PNG\r\n", "an image"),
        (b"\xff\xd8\xff\xe0", "an image"),
        (b"PK\x03\x04", "a checkpoint or another archive"),
        (b"\x10\0\0\0\0\0\0\0{", "a safetensors file"),
        (b"\x80\x04\x95", "a pickle"),
        (b"\x1f\x8b\x08", "a packed file"),
        (b"\xfe\x00\x01\xff" * 9, "something else"),
    ],
)
def test_a_file_is_known_by_its_first_bytes(content, kind, tmp_path):
    (tmp_path / "file").write_bytes(content)
    assert kind_of(tmp_path / "file") == kind
