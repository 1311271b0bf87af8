"""Configs without sense: a line and exit status 2, or a training; never a traceback."""

import json

import pytest
import pytorch_lightning as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from train.runs import options

from pyg_avig.data import Digits
from pyg_avig.train import ImageClassifier
from pyg_avig.train.cli import main


def fields():
    """Every field that the parser takes, of the trainer, the model and the data."""
    parser = ArgumentParser()
    parser.add_class_arguments(pl.Trainer, "trainer", fail_untyped=False)
    parser.add_class_arguments(ImageClassifier, "model", fail_untyped=False)
    parser.add_class_arguments(Digits, "data", fail_untyped=False)
    known = [action.dest for action in parser._actions if "." in action.dest]
    # Told by the data, or where things are written.
    own = {"model.classes", "model.data_config", "trainer.default_root_dir", "trainer.logger"}
    return sorted(set(known) - own - {name for name in known if name.endswith("help")})


NUMBERS = st.integers(-3, 3) | st.integers(-(10**12), 10**12) | st.floats()
WORDS = st.sampled_from(["", "foo", "auto", "val_acc", "1-1", "rand-m9", "0.5", "a.b", "{", "-"])
LEAVES = st.none() | st.booleans() | NUMBERS | WORDS
VALUES = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(WORDS, LEAVES, max_size=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # What dependencies say of nonsense.
@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(fields()), VALUES, min_size=1, max_size=3))
def test_no_config_ends_in_a_traceback(tmp_path, monkeypatch, capsys, changed):
    """All is built; nothing is trained."""
    monkeypatch.setattr(pl.Trainer, "fit", lambda *args, **kwargs: None)
    words = [f"--{name}={json.dumps(value)}" for name, value in changed.items()]
    capsys.readouterr()
    status = main(["fit", *options(tmp_path), *words])
    assert status in (0, 2)
    if status == 2:
        *_, line = capsys.readouterr().err.splitlines()
        assert line.startswith("pyg-avig: ")
