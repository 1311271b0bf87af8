import errno

import pytest

from pyg_avig import InputError
from pyg_avig.train.mendable import mendable, one_line_of_a_full_disk, refused


def raised(error, by=None):
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("expected a\n  b"), "expected a b"),
        (raised(ValueError("around it"), InputError("expected a")), "expected a"),
        (FileNotFoundError(2, "No such file", "a.yaml"), "a.yaml: No such file"),
        (OSError("Traceback of a worker\nOSError: disk"), "OSError: disk"),
        (OSError(), "OSError"),
        (ValueError("ours"), None),
        (None, None),
    ],
)
def test_what_a_user_can_mend_is_one_line(error, line):
    assert mendable(error) == line


def test_what_was_not_begun_is_refused_by_what_was_raised_first(monkeypatch):
    with pytest.raises(InputError, match=r"fit each other .got KeyError: 'a'."), refused(lambda: 1):
        raise KeyError("a")
    with pytest.raises(KeyError), refused(lambda: 0):
        raise KeyError("a")
    with pytest.raises(InputError, match="^expected b$"), refused(lambda: 1):
        raise InputError("expected b")
    monkeypatch.setenv("JSONARGPARSE_DEBUG", "1")
    with pytest.raises(KeyError), refused(lambda: 1):
        raise KeyError("a")


def test_a_full_disk_is_that_of_the_folder():
    with pytest.raises(OSError, match="a/b") as error, one_line_of_a_full_disk("a/b"):
        raise OSError(errno.ENOSPC, "No space left")
    assert error.value.filename == "a/b"
