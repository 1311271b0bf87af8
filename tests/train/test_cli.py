import csv
from pathlib import Path

import pytest
import torch
from train.runs import options

from pyg_avig.train.cli import main


def rows(trainer):
    return list(csv.DictReader(Path(trainer.log_dir, "metrics.csv").read_text().splitlines()))


def test_fit_leaves_checkpoints_metrics_and_config(trained):
    folder = Path(trained.trainer.log_dir)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files >= {
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "config.yaml",
        "metrics.csv",
    }
    logged = rows(trained.trainer)
    assert [row["epoch"] for row in logged if row["val_acc"]] == ["0", "1"]
    assert all(0 <= float(row["val_acc"]) <= 1 for row in logged if row["val_acc"])


def test_checkpoints_load_without_unpickling_code(checkpoint):
    assert "state_dict" in torch.load(checkpoint, weights_only=True)


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_evaluating_a_checkpoint(subcommand, checkpoint, tmp_path, capsys):
    with pytest.warns(UserWarning, match="dirpath has changed"):
        assert main([subcommand, *options(tmp_path), "--ckpt_path", checkpoint]) == 0
    assert "acc" in capsys.readouterr().out


def test_an_interrupted_training_resumes(tmp_path):
    assert main(["fit", *options(tmp_path / "whole")]) == 0
    half = options(tmp_path / "half")
    # Stop in the middle: one epoch of the two that the schedule spans.
    assert main(["fit", *half, "--trainer.limit_train_batches=2", "--trainer.max_epochs=1"]) == 0
    (last,) = (tmp_path / "half").rglob("last.ckpt")
    before = torch.load(last, weights_only=True)
    with pytest.warns(UserWarning, match="dirpath has changed"):
        assert main(["fit", *half, "--ckpt_path", str(last)]) == 0
    resumed = max((tmp_path / "half").rglob("last.ckpt"), key=lambda p: p.stat().st_mtime)
    after = torch.load(resumed, weights_only=True)
    assert (before["epoch"], after["epoch"]) == (0, 1)
    assert after["global_step"] == 2 * before["global_step"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--config", "configs/digits/nano.yaml", "--model.lrr", "1"], "lrr"),
        (["fit", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (
            ["fit", "--config", "configs/digits/nano.yaml", "--data.batch_size", "many"],
            "many",
        ),
        (["fly"], "fly"),
    ],
)
def test_unknown_keys_and_values_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert "Traceback" not in captured


def test_a_missing_data_root_is_one_line(tmp_path, capsys):
    arguments = ["fit", "--config", "configs/fashion_mnist/nano.yaml"]
    arguments += ["--data.root", str(tmp_path / "nowhere")]
    arguments += [f"--trainer.logger.init_args.save_dir={tmp_path}"]
    assert main(arguments) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("pyg-avig: expected the IDX files of Fashion-MNIST")
    assert not list(tmp_path.rglob("*.ckpt"))


def test_an_unknown_model_is_one_line(tmp_path, capsys):
    assert main(["fit", *options(tmp_path), "--model.name", "attentionvig_xl"]) == 2
    assert "got 'attentionvig_xl'" in capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoint_of_another_model_is_one_line(tmp_path, capsys):
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": {"fc.weight": torch.zeros(3)}}, path)
    assert main(["test", *options(tmp_path), "--ckpt_path", str(path)]) == 2
    assert str(path) in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_checkpoint_is_one_line(tmp_path, capsys):
    assert main(["test", *options(tmp_path), "--ckpt_path", str(tmp_path / "no.ckpt")]) == 2
    assert "no.ckpt" in capsys.readouterr().err.splitlines()[-1]


def test_help_is_useful(capsys):
    for arguments, word in ((["--help"], "predict"), (["predict", "--help"], "checkpoint")):
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert error.value.code == 0
        assert word in capsys.readouterr().out
