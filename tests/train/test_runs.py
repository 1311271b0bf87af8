import csv
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from train.runs import options

from pyg_avig import InputError
from pyg_avig.train.cli import CLI, main
from pyg_avig.train.runs import Run, metrics_until, newest_run, run_to_resume, write_metrics

STOP = f"{{class_path: train.runs.Signal, init_args: {{number: {int(signal.SIGTERM)}, epoch: 2}}}}"


def rows(folder):
    with Path(folder, "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of four epochs that was stopped in the third."""
    folder = tmp_path_factory.mktemp("stopped")
    words = options(folder, "--trainer.max_epochs=4", f"--trainer.callbacks+={STOP}")
    assert main(["fit", *words]) == 128 + signal.SIGTERM
    return folder


@pytest.fixture
def run(stopped, tmp_path):
    """A copy of it, to be resumed."""
    shutil.copytree(stopped, tmp_path / "runs")
    return tmp_path / "runs" / "digits-nano" / "version_0"


@pytest.mark.parametrize("named", [True, False])
def test_a_run_goes_on_in_its_own_folder(named, run, capsys):
    before = rows(run)
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    resumed = ["--resume", str(run)] if named else ["--resume"]
    given = [] if named else options(run.parent.parent)
    words = ["--trainer.max_epochs=4", f"--trainer.logger.init_args.save_dir={run.parent.parent}"]
    assert main(["fit", *given, *words, *resumed]) == 0
    assert [path.name for path in run.parent.iterdir()] == ["version_0"]
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert (last["epoch"], last["global_step"]) == (3, 8)
    after = rows(run)
    done = [(row["epoch"], row["step"]) for row in after if row["val_acc"]]
    assert [epoch for epoch, _ in done] == ["0", "1", "2", "3"]
    steps = [row["step"] for row in after if row["train_loss"]]
    assert steps == sorted(set(steps), key=int)
    assert [row["val_acc"] for row in after if row["val_acc"]][:2] == [
        row["val_acc"] for row in before if row["val_acc"]
    ]
    printed = capsys.readouterr().out
    # The best is the best of all epochs, those before the interruption too.
    score = max(float(row["val_acc"]) for row in after if row["val_acc"])
    assert f"best: {run}/checkpoints/best.ckpt, val_acc {score:.4f}" in printed
    assert f"pyg-avig test --config {run}/config.yaml --ckpt_path best" in printed
    if score == max(float(row["val_acc"]) for row in before if row["val_acc"]):
        kept = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
        assert kept["epoch"] == best["epoch"]


@pytest.mark.parametrize("name", ["best", "last"])
def test_best_and_last_are_those_of_the_run(name, run, capsys):
    words = ["--config", f"{run}/config.yaml", "--ckpt_path", name]
    save_dir = f"--trainer.logger.init_args.save_dir={run.parent.parent}"
    with pytest.warns(UserWarning, match="dirpath has changed"):
        cli = CLI(["validate", *words, save_dir])
    saved = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    for key, value in cli.model.state_dict().items():
        assert torch.equal(value, saved["state_dict"][key]), key


def test_best_is_that_of_the_newest_run(run):
    newer = run.with_name("version_7")
    shutil.copytree(run, newer)
    os.utime(newer / "checkpoints" / "best.ckpt")
    assert newest_run(str(run.parent), "best") == Run(str(newer))
    os.utime(run / "checkpoints" / "best.ckpt", (2e9, 2e9))
    assert newest_run(str(run.parent), "best") == Run(str(run))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume", "{folder}/nowhere"], "expected the folder of a run"),
        (["--resume"], "expected a run with checkpoints/last.ckpt (there is none)"),
        (["--ckpt_path", "best"], "expected a run with checkpoints/best.ckpt (there is none)"),
        (["--resume", "--ckpt_path", "a.ckpt"], "without --ckpt_path"),
        (["--resume", "--trainer.logger=false"], "whose logger says a save_dir"),
    ],
)
def test_what_cannot_be_resumed_is_one_line(words, message, tmp_path, capsys):
    given = options(tmp_path, *(word.format(folder=tmp_path) for word in words))
    if "--trainer.logger=false" in words:
        given = [word for word in given if "logger.init_args" not in word]
    assert main(["fit", *given]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_only_fit_resumes(tmp_path, capsys):
    assert main(["test", *options(tmp_path, "--resume")]) == 2
    assert "expected --resume with fit" in capsys.readouterr().err


def test_a_folder_without_a_checkpoint_is_no_run(tmp_path):
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(InputError, match=r"last\.ckpt"):
        run_to_resume(str(tmp_path))


def test_metrics_are_kept_up_to_an_update(tmp_path):
    table = [{"epoch": "0", "step": str(step), "loss": "1.5"} for step in range(5)]
    write_metrics(str(tmp_path), ["epoch", "loss", "step"], table)
    assert metrics_until(str(tmp_path), 3) == (["epoch", "loss", "step"], table[:3])
    assert metrics_until(str(tmp_path / "nowhere"), 3) == ([], [])


def test_evaluating_leaves_no_empty_folder(run):
    words = ["--config", f"{run}/config.yaml", "--ckpt_path", "best"]
    save_dir = f"--trainer.logger.init_args.save_dir={run.parent.parent}"
    with pytest.warns(UserWarning, match="dirpath has changed"):
        assert main(["test", *words, save_dir]) == 0
    empty = [path for path in run.parent.iterdir() if not any(path.iterdir())]
    assert not empty
