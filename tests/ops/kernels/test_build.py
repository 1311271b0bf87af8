import logging
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from pyg_avig import AxialGraph
from pyg_avig.errors import InputError
from pyg_avig.ops import cross_attention, kernels
from pyg_avig.ops.kernels import build

LIBRARY = build.library()
needs_kernels = pytest.mark.skipif(
    LIBRARY is None, reason="needs the C++ kernels: no compiler, or PYG_AVIG_KERNELS=0"
)


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    build._library.cache_clear()
    yield tmp_path / "cache"
    build._library.cache_clear()


@pytest.fixture
def compilations(tmp_path, monkeypatch):
    """A compiler that copies what a real one made, and a count of its calls."""
    count = tmp_path / "count"
    copy = f"echo >> {count}; for last; do :; done; cp {LIBRARY._name} $last"
    _compiler(tmp_path / "copying", copy, monkeypatch)
    return lambda: len(count.read_text()) if count.exists() else 0


def _compiler(script, command, monkeypatch):
    script.write_text(f"#!/bin/sh\n[ $1 = --version ] && exit 0\n{command}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CXX", str(script))


def folder_of(cache):
    return cache / "pyg_avig" / "kernels"


def serves():
    x = torch.randn(4, 3)
    found = kernels.axial_pairs(x, x, [], 1, [1, 4, 1])[0]
    torch.testing.assert_close(found.squeeze(), x @ x.T)
    return True


def works():
    return build.library() is not None and serves()


@needs_kernels
@pytest.mark.slow
def test_the_sources_compile(fresh_cache):
    assert build.library() is not None
    assert works()
    (built,) = fresh_cache.rglob("*.so")
    assert build.instructions() in built.name


@needs_kernels
def test_the_library_is_compiled_once(fresh_cache, compilations):
    for _ in range(2):
        assert build.library() is not None
        build._library.cache_clear()
    assert compilations() == 1
    (built,) = fresh_cache.rglob("*.so")
    assert stat.S_IMODE(built.stat().st_mode) == 0o700
    assert os.listdir(folder_of(fresh_cache)) == [built.name]


@pytest.mark.parametrize("compiler", ["broken", "none"])
def test_without_a_compiler_pytorch_serves_and_the_log_says_so(
    fresh_cache, tmp_path, monkeypatch, caplog, compiler
):
    monkeypatch.delenv("PYG_AVIG_KERNELS", raising=False)
    if compiler == "broken":
        _compiler(tmp_path / "broken", "echo no OpenMP >&2; exit 1", monkeypatch)
    else:
        monkeypatch.setenv("CXX", str(tmp_path / "none"))
    graph = AxialGraph((4, 4), 2)
    x = torch.randn(16, 1, 3)
    with caplog.at_level(logging.WARNING):
        out = cross_attention(x, x, x, graph, torch.ones(1))
    assert build.library() is None
    assert ("no OpenMP" if compiler == "broken" else "No such file") in caplog.text
    assert not list(fresh_cache.rglob("*.so"))
    expected = cross_attention(x, x, x, graph.edge_index, torch.ones(1))
    torch.testing.assert_close(out, expected)
    assert len(caplog.records) == 1  # And never tried again.
    assert serves()  # What was compiled with kernels goes on without.
    with pytest.raises(RuntimeError, match="norm_gelu: there are no kernels here"):
        kernels.norm_gelu(x.squeeze(1), torch.ones(3), torch.zeros(3))


def test_the_kernels_can_be_switched_off(fresh_cache, monkeypatch):
    monkeypatch.setenv("PYG_AVIG_KERNELS", "0")
    assert build.instructions() is None
    assert build.library() is None
    assert not fresh_cache.exists()


def test_instructions_that_the_processor_lacks_are_refused(monkeypatch):
    monkeypatch.setattr(build.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setenv("PYG_AVIG_KERNELS", "")
    assert build.instructions() == "avx2"
    monkeypatch.setenv("PYG_AVIG_KERNELS", "sse2")
    assert build.instructions() == "sse2"
    for wrong in ("avx512", "256"):
        monkeypatch.setenv("PYG_AVIG_KERNELS", wrong)
        with pytest.raises(InputError, match=f"0 or one of .'sse2', 'avx2'. here .got '{wrong}'"):
            build.library()


@pytest.mark.parametrize(
    ("machine", "found"), [("aarch64", "neon"), ("arm64", "neon"), ("riscv64", "generic")]
)
def test_other_processors_have_instructions_of_their_own(monkeypatch, machine, found):
    monkeypatch.setattr(build.platform, "machine", lambda: machine)
    assert build.instruction_sets() == [found]
    assert build._FLAGS_OF[found] == []


@needs_kernels
def test_a_broken_library_in_the_cache_is_built_again(
    fresh_cache, compilations, monkeypatch, tmp_path
):
    build.library()
    build._library.cache_clear()
    (built,) = fresh_cache.rglob("*.so")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    folder = folder_of(tmp_path / "another")
    folder.mkdir(mode=0o700, parents=True)
    (folder / built.name).write_bytes(b"broken")
    assert build.library() is not None
    assert works()
    assert compilations() == 2


@needs_kernels
def test_a_library_that_others_could_write_is_built_again(fresh_cache, compilations):
    build.library()
    build._library.cache_clear()
    (built,) = fresh_cache.rglob("*.so")
    built.chmod(0o770)
    assert build.library() is not None
    assert compilations() == 2
    assert stat.S_IMODE(built.stat().st_mode) == 0o700


@needs_kernels
@pytest.mark.parametrize("reason", ["writable by others", "another's", "cannot be made"])
def test_without_a_folder_of_its_own_the_library_is_for_one_process(
    fresh_cache, compilations, monkeypatch, tmp_path, caplog, reason
):
    monkeypatch.setattr(build.tempfile, "tempdir", str(tmp_path))
    if reason == "cannot be made":
        fresh_cache.write_text("a file")
    else:
        folder_of(fresh_cache).mkdir(parents=True)
        folder_of(fresh_cache).chmod(0o775 if reason == "writable by others" else 0o755)
    if reason == "another's":
        someone = os.getuid() + 1
        monkeypatch.setattr(build.os, "getuid", lambda: someone)
    before = set(tmp_path.rglob("*"))
    assert build.library() is not None
    assert works()
    assert compilations() == 1
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "count"}  # Nothing stays.
    assert build.library() is not None
    assert len(caplog.records) == compilations() == 1
    assert "for this process alone" in caplog.text


@needs_kernels
def test_a_cache_where_nothing_runs_leaves_the_work_to_pytorch(
    fresh_cache, compilations, monkeypatch, caplog
):
    monkeypatch.setattr(
        build.os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_NOEXEC | os.ST_NOSUID)
    )
    assert build.library() is None
    assert build.library() is None
    assert len(caplog.records) == 1
    assert "is mounted noexec" in caplog.text
    assert compilations() == 0


@needs_kernels
def test_a_library_that_lacks_a_kernel_leaves_the_work_to_pytorch(
    fresh_cache, compilations, monkeypatch, caplog
):
    build.library()
    build._library.cache_clear()
    monkeypatch.setattr(build, "KERNELS", (*build.KERNELS, "of_tomorrow"))
    assert build.library() is None
    assert build.library() is None
    assert compilations() == 2  # Once more, as the cached one might have been broken.
    assert len(caplog.records) == 1
    assert "of_tomorrow_float" in caplog.text


@needs_kernels
def test_leftovers_of_killed_compilations_are_removed(fresh_cache, compilations):
    build.library()
    build._library.cache_clear()
    (built,) = fresh_cache.rglob("*.so")
    built.unlink()
    killed, under_way = built.parent / "killed", built.parent / "under_way"
    for folder in (killed, under_way):
        folder.mkdir()
        (folder / "half.so").write_bytes(b"half")
    long_ago = time.time() - 2 * build._OLD
    os.utime(killed, (long_ago, long_ago))
    assert build.library() is not None
    assert set(built.parent.iterdir()) == {built, under_way}


@needs_kernels
def test_several_may_compile_at_once(fresh_cache, compilations):
    chosen = build.instructions()
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: build._load(chosen), range(4)))
    assert len(os.listdir(folder_of(fresh_cache))) == 1
