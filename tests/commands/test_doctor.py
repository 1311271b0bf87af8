import pytest
import torch

from pyg_avig import __version__
from pyg_avig.commands import doctor
from pyg_avig.ops import kernels


def test_says_what_there_is(capsys):
    doctor.report()
    printed = capsys.readouterr().out
    assert printed.startswith(f"pyg_avig {__version__}, Python ")
    assert f"torch {torch.__version__.split('+')[0]}" in printed
    for topic in ("versions", "devices", "kernels", "extras", "data"):
        assert f"\n{topic}\n" in printed
    assert "  train: " in printed


@pytest.mark.parametrize(("there", "word"), [(True, "ours serve"), (False, "PyTorch's own")])
def test_says_who_computes(there, word, monkeypatch):
    monkeypatch.setattr(kernels, "refusal", lambda *kind: None if there else "none here")
    assert word in next(doctor._kernels())


def test_says_why_kernels_are_off(monkeypatch):
    monkeypatch.setenv("PYG_AVIG_KERNELS", "0")
    assert "PYG_AVIG_KERNELS is 0" in next(doctor._kernels())


def test_says_why_kernels_cannot_be_compiled(monkeypatch):
    def fail(*kind):
        kernels.build._log.warning("found no C++ compiler")
        return "none here"

    monkeypatch.setattr(kernels, "refusal", fail)
    assert "found no C++ compiler" in next(doctor._kernels())


def test_names_missing_packages_and_data(monkeypatch):
    monkeypatch.setattr(doctor, "_installed", lambda name: None)
    assert any(line.startswith("train: lacks ") for line in doctor._extras())
    assert any(line.startswith("digits") for line in doctor._data())
