import os
import subprocess
import sys
import warnings

import pytest
from train.runs import options

from pyg_avig import __version__
from pyg_avig.__main__ import _be_quiet
from pyg_avig.commands import front
from pyg_avig.commands.front import COMMANDS, main

# Runs a command, and says on standard error whether PyTorch was loaded for it.
PROGRAM = """
import sys
from pyg_avig.__main__ import main
try:
    status = main()
except SystemExit as error:
    status = error.code
print("torch" in sys.modules, file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--help"], 0, "usage: pyg-avig "),
        (["--version"], 0, f"pyg-avig {__version__}"),
        (["configs"], 0, "digits/nano "),
        (["predict", "--help"], 0, "usage: pyg-avig predict"),
        (["export", "--help"], 0, "usage: pyg-avig export"),
        (["explore", "--help"], 0, "usage: pyg-avig explore"),
        ([], 2, "usage: pyg-avig "),
        (["fly"], 2, "(got 'fly')"),
        (["predcit", "a"], 2, "did you mean predict?"),
        (["fit", "--config", "digits/nana"], 2, "did you mean digits/nano?"),
        (["test", "--config=nowhere.yaml"], 2, "nowhere.yaml: expected --config as a file"),
        (["fit"], 2, "expected pyg-avig fit --config FILE"),
        (["predict"], 2, "checkpoint"),
        (["predict", "a.ckpt", "b.png", "--top", "many"], 2, "top"),
        (["export", "a.ckpt"], 2, "out"),
        (["configs", "nothing"], 2, "nothing: expected"),
        (["fit", "--config=digits/nano", "--foo"], 2, "(got --foo)"),
        (["fit", "--config=digits/nano", "--model.lrr", "1"], 2, "did you mean lr?"),
        (["test", "--config=digits/nano", "--data.bath_size=4"], 2, "did you mean batch_size?"),
        (["fit", "--config=digits/nano", "--trainer.max_epoch=3"], 2, "did you mean max_epochs?"),
        (["validate", "--config={modle: {lr: 1}}"], 2, "did you mean model?"),
    ],
    ids=str,
)
def test_answers_at_once(words, status, said, tmp_path):
    """PyTorch alone takes seconds to load."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, *words], capture_output=True, text=True
    )
    assert run.returncode == status
    *_, loaded = run.stderr.splitlines()
    assert said in run.stdout + run.stderr
    assert loaded == "False"
    if status == 2 and words:
        assert len(run.stderr.splitlines()) == 2
        assert run.stderr.startswith("pyg-avig: ")


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.split()[:1] == [name] for line in lines) for name in COMMANDS)
    assert f"{{{','.join(COMMANDS)}}}" in lines[0]


@pytest.mark.parametrize("command", ["configs", "models", "doctor", "completion"])
def test_lists_explain_themselves(command, capsys):
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: pyg-avig {command}")
    assert main([command, "--foo"]) == 2


def test_data_sets_of_the_current_folder_are_found(tmp_path):
    (tmp_path / "my_data.py").write_text("THERE = True")
    program = """
import sys
sys.path = [path for path in sys.path if path]  # As in a script that is installed.
from pyg_avig.__main__ import main
sys.argv = ["pyg-avig", "--version"]
main()
import my_data
"""
    code = [sys.executable, "-W", "ignore", "-c", program]
    assert subprocess.run(code, cwd=tmp_path, capture_output=True).returncode == 0


def test_what_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setattr(front, "find_spec", lambda name: None)
    assert main(["fit", "--config", "digits/nano"]) == 2
    assert "pip install 'pyg_avig[train]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("category", "message", "module", "shown"),
    [
        (FutureWarning, "`torch.jit.script` is deprecated", "torch.jit._script", False),
        (DeprecationWarning, "old", "torch_geometric.nn", False),
        (UserWarning, "The 'train_dataloader' does not have many workers", "any", False),
        (UserWarning, "this GPU is too old", "torch.cuda", True),
        (FutureWarning, "ours", "pyg_avig.nn.grapher", True),
        (DeprecationWarning, "ours", "pyg_avig", True),
    ],
)
def test_what_dependencies_deprecate_is_not_shown(category, message, module, shown, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", [])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        _be_quiet()
        warnings.warn_explicit(message, category, "file.py", 1, module)
    assert bool(said) == shown


def test_who_asks_python_for_warnings_gets_them(monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        _be_quiet()
        warnings.warn_explicit("old", FutureWarning, "file.py", 1, "torch")
    assert said


@pytest.mark.slow
def test_a_training_is_quiet(tmp_path):
    """From the first import on: neither warnings nor advertisements."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    words = ["fit", *options(tmp_path, "--trainer.max_epochs=1")]
    run = subprocess.run(
        [sys.executable, "-m", "pyg_avig", *words], capture_output=True, text=True, env=env
    )
    printed = run.stdout + run.stderr
    assert run.returncode == 0
    for word in ("Warning", "Tip", "litlogger", "FLOPs", "PU available", "stopped"):
        assert word not in printed
    assert "training: attentionvig_nano, " in printed
    assert "best: " in printed
