import csv
import errno
import io
import signal
import socket
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest
import torch
from PIL import Image
from train.runs import last_checkpoint, options

from pyg_avig.train import ImageClassifier
from pyg_avig.train.cli import CLI, main


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
    assert all(row["val_f1"] and row["val_mcc"] for row in logged if row["val_acc"])


def test_checkpoints_load_without_unpickling_code(checkpoint):
    assert "state_dict" in torch.load(checkpoint, weights_only=True)


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_evaluating_a_checkpoint(subcommand, checkpoint, tmp_path, capsys):
    with pytest.warns(UserWarning, match="dirpath has changed"):
        assert main([subcommand, *options(tmp_path), "--ckpt_path", checkpoint]) == 0
    assert "acc" in capsys.readouterr().out


def test_an_interrupted_training_resumes_where_it_was(tmp_path):
    folder = tmp_path / "runs"
    interrupted = options(folder, "--trainer.max_epochs=1")
    assert main(["fit", *interrupted]) == 0
    first = torch.load(last_checkpoint(folder), weights_only=True)
    with pytest.warns(UserWarning, match="dirpath has changed"):
        assert main(["fit", *options(folder, "--ckpt_path", str(last_checkpoint(folder)))]) == 0
    second = torch.load(last_checkpoint(folder), weights_only=True)
    assert (first["epoch"], second["epoch"]) == (0, 1)
    assert second["global_step"] == 2 * first["global_step"]
    # What it learnt at first is where it went on from.
    drift = [
        (second["state_dict"][name] - value).norm() / (value.norm() + 1e-6)
        for name, value in first["state_dict"].items()
        if name.endswith("0.weight")
    ]
    assert max(drift) < 0.5
    # The schedule is that of two epochs, not the first run's.
    (optimizer,) = second["optimizer_states"]
    assert optimizer["param_groups"][0]["lr"] < 2e-3


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
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


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


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model.model_args={channels: [8, 8, 8, 16]}"], "with model_args"),
        (["--model.name=attentionvig_s"], "with name 'attentionvig_s'"),
    ],
)
def test_a_checkpoint_of_another_config_is_one_line(more, message, checkpoint, tmp_path, capsys):
    assert main(["test", *options(tmp_path), *more, "--ckpt_path", checkpoint]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_checkpoint_of_other_classes_is_one_line(checkpoint, tmp_path, capsys):
    path = tmp_path / "other.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"]["classes"] = ["cat", "dog"]
    torch.save(content, path)
    assert main(["test", *options(tmp_path), "--ckpt_path", str(path)]) == 2
    assert "got ['cat', 'dog']" in capsys.readouterr().err.splitlines()[-1]


def test_the_command_line_wins_over_the_checkpoint(checkpoint, tmp_path):
    arguments = options(tmp_path, "--model.lr=1e-5", "--ckpt_path", checkpoint)
    with pytest.warns(UserWarning, match="dirpath has changed"):
        cli = CLI(["fit", *arguments])
    assert cli.model.hparams["lr"] == 1e-5


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_evaluating_needs_a_checkpoint(subcommand, tmp_path, capsys):
    assert main([subcommand, *options(tmp_path)]) == 2
    assert "add --ckpt_path" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--data.batch_size=0", "batch_size must be at least 1 (got 0)"),
        ("--data.batch_size=1", "at least 2 images in a training batch"),
        ("--data.limit=0", "limit must be at least 1"),
        ("--data.num_workers=-1", "num_workers must be at least 0"),
        ("--data.augmentation={foo: 1}", "create_transform"),
        ("--data.image_size=16", "at least 32"),
        ("--model.opt=foo", "opt must be"),
        ("--trainer.accelerator=cuda", "accelerator is not available"),
    ],
)
def test_what_cannot_run_is_one_line_and_leaves_nothing(more, message, tmp_path, capsys):
    assert main(["fit", *options(tmp_path), more]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("pyg-avig: ")
    assert message in error
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_without_a_logger_nothing_is_written(tmp_path, monkeypatch):
    arguments = options(tmp_path, "--trainer.logger=false", "--trainer.fast_dev_run=true")
    arguments[0] = f"--config={Path('configs/digits/nano.yaml').resolve()}"
    arguments = [a for a in arguments if "logger.init_args" not in a]
    monkeypatch.chdir(tmp_path)
    assert main(["fit", *arguments]) == 0
    assert not list(tmp_path.rglob("*.yaml"))


def test_a_missing_checkpoint_is_one_line(tmp_path, capsys):
    assert main(["test", *options(tmp_path), "--ckpt_path", str(tmp_path / "no.ckpt")]) == 2
    assert "no.ckpt" in capsys.readouterr().err.splitlines()[-1]


def test_help_is_useful(capsys):
    with pytest.raises(SystemExit) as error:
        main(["fit", "--help"])
    assert error.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith("usage: pyg-avig ")
    assert "--resume RUN" in printed


@pytest.mark.parametrize("option", ["opt=sgd", "freeze_beta=true", "layer_decay=0.5"])
def test_resuming_with_another_optimiser_is_refused(option, checkpoint, tmp_path, capsys):
    args = options(tmp_path, f"--model.{option}", "--ckpt_path", checkpoint)
    assert main(["fit", *args]) == 2
    assert f"expected a checkpoint with {option.split('=')[0]}" in capsys.readouterr().err


def test_a_test_needs_neither_initial_weights_nor_teacher(checkpoint, tmp_path):
    gone = ["--model.initial_weights=gone.safetensors", "--model.distillation={checkpoint: gone}"]
    with pytest.warns(UserWarning, match="dirpath has changed"):
        assert main(["test", *options(tmp_path, *gone), "--ckpt_path", checkpoint]) == 0


def test_runs_at_an_address(tmp_path, monkeypatch, capsys):
    """Checkpoints, metrics and config are written there, and read from there."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    config = Path("configs/digits/nano.yaml").resolve()
    monkeypatch.chdir(tmp_path)
    given = [f"--config={config}", *options("memory://bucket")[1:]]
    assert main(["fit", *given]) == 0
    run = "memory://bucket/digits-nano/version_0"
    found = {name.removeprefix("/bucket/digits-nano/version_0/") for name in store.find("/")}
    assert found >= {"checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml", "metrics.csv"}
    last = f"{run}/checkpoints/last.ckpt"
    with pytest.warns(UserWarning, match="dirpath has changed"):
        assert main(["fit", *given, "--trainer.max_epochs=3", f"--ckpt_path={last}"]) == 0
    with pytest.warns(UserWarning, match="dirpath has changed"):
        assert main(["test", *given, f"--ckpt_path={last}"]) == 0
    assert main(["export", last, "memory://bucket/model.safetensors"]) == 0
    photo = tmp_path / "photo.png"
    Image.new("L", (32, 32)).save(photo)
    capsys.readouterr()
    assert main(["predict", "memory://bucket/model.safetensors", str(photo)]) == 0
    exported = capsys.readouterr().out
    assert main(["predict", last, str(photo)]) == 0
    assert capsys.readouterr().out == exported
    assert list(tmp_path.iterdir()) == [photo]


def test_checkpoints_at_file_addresses(tmp_path, monkeypatch):
    config = Path("configs/digits/nano.yaml").resolve()
    monkeypatch.chdir(tmp_path)
    saver = "pytorch_lightning.callbacks.ModelCheckpoint"
    folder = f"file://{tmp_path}/elsewhere"
    given = [f"--config={config}", *options(f"file://{tmp_path}/runs")[1:]]
    given += [f"--trainer.callbacks+={{class_path: {saver}, init_args: {{dirpath: '{folder}'}}}}"]
    assert main(["fit", *given, "--trainer.max_epochs=1"]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "runs"]
    assert (tmp_path / "elsewhere" / "last.ckpt").exists()


@pytest.mark.parametrize("address", ["nowhere://a.ckpt", "memory://no.ckpt"])
def test_what_an_address_has_not_is_one_line(address, tmp_path, capsys):
    assert main(["test", *options(tmp_path), "--ckpt_path", address]) == 2
    assert address in capsys.readouterr().err.splitlines()[-1]
    assert main(["predict", address, "a.png"]) == 2
    assert address in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "runs").write_bytes(b"a file")
    assert main(["fit", *options(tmp_path / "runs")]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"pyg-avig: {tmp_path / 'runs'}")
    assert message.endswith("Not a directory")


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "last.ckpt"])
def test_a_full_disk_is_one_line(name, tmp_path, monkeypatch, capsys):
    """Wherever it shows, what was written before stays."""
    assert main(["fit", *options(tmp_path), "--trainer.max_epochs=1"]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    opened = io.open

    def full(file, *args, **kwargs):
        result = opened(file, *args, **kwargs)
        if name in str(file) and result.writable():
            result.close()
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
        return result

    monkeypatch.setattr(io, "open", full)
    monkeypatch.setattr("builtins.open", full)
    monkeypatch.setattr(Path, "open", full)  # Python 3.10's holds io.open from its import.
    capsys.readouterr()
    assert main(["fit", *options(tmp_path), "--trainer.max_epochs=1"]) == 2
    monkeypatch.undo()
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("pyg-avig: ")
    assert name in message
    assert "No space left on device" in message
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not list(tmp_path.rglob("*.partial"))


def test_a_full_disk_that_names_no_file_is_one_line(tmp_path, monkeypatch, capsys):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pytorch_lightning.cli.SaveConfigCallback.setup", full)
    assert main(["fit", *options(tmp_path)]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message == f"pyg-avig: {tmp_path}/digits-nano/version_0: No space left on device"


def test_an_export_that_cannot_be_written_is_one_line(checkpoint, tmp_path, capsys):
    (tmp_path / "a").write_bytes(b"a file")
    assert main(["export", checkpoint, str(tmp_path / "a" / "model.safetensors")]) == 2
    assert str(tmp_path / "a") in capsys.readouterr().err.splitlines()[-1]
    assert main(["export", checkpoint, "nowhere://model.safetensors"]) == 2
    assert "nowhere" in capsys.readouterr().err.splitlines()[-1]


def test_the_next_run_removes_what_a_killed_one_left_half_written(tmp_path):
    first = options(tmp_path, "--trainer.max_epochs=1")
    assert main(["fit", *first]) == 0
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname().replace(".", "-")
    left = last_checkpoint(tmp_path).with_name(f"last.ckpt.{host}.{gone.pid}.partial")
    left.write_bytes(b"half")
    assert main(["fit", *first]) == 0
    assert not left.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_training_says_how_it_goes_on(number, tmp_path, capsys):
    stop = f"{{class_path: train.runs.Signal, init_args: {{number: {int(number)}, epoch: 1}}}}"
    assert main(["fit", *options(tmp_path), f"--trainer.callbacks+={stop}"]) == 128 + number
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"pyg-avig: stopped by {number.name}")
    command = message.partition("pyg-avig fit ")[2].split()
    assert main(["fit", *command]) == 0
    (last,) = tmp_path.rglob("last.ckpt")  # In the same folder.
    assert torch.load(last, weights_only=True)["global_step"] == 4


def test_an_impatient_interruption(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageClassifier, "training_step", interrupt)
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert main(["fit", *options(tmp_path)]) == 130
    finally:
        signal.signal(signal.SIGINT, handler)
