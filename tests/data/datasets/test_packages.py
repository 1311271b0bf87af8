from pathlib import Path

from pyg_avig.data.datasets.packages import cache_folder, default_root


def test_the_cache_is_where_the_user_wants_it(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert default_root("cells") == "/elsewhere/pyg_avig/datasets/cells"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "pyg_avig"


def test_no_test_reads_the_users_cache():
    assert Path.home() not in cache_folder().parents
