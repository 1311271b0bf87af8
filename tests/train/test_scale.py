"""Interrupted trainings and trainings on several devices."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from data.trees import CLASSES, imagenet_tree
from train import sharded
from train.runs import fit_elsewhere, last_checkpoint, options

from pyg_avig.train.cli import main


def weights(folder):
    return torch.load(last_checkpoint(folder), weights_only=True)["state_dict"]


@pytest.mark.slow
def test_a_killed_training_ends_where_an_undisturbed_one_does(tmp_path):
    both = ["--trainer.max_epochs=3", "--model.model_args.drop_path_rate=0.2"]
    status, said = fit_elsewhere(*options(tmp_path / "undisturbed", *both))
    assert status == 0, said
    kill = "--trainer.callbacks+={class_path: train.runs.Kill, init_args: {epoch: 1, batch: 0}}"
    status, said = fit_elsewhere(*options(tmp_path / "killed", *both, kill))
    assert status == -signal.SIGKILL, said
    saved = last_checkpoint(tmp_path / "killed")
    assert torch.load(saved, weights_only=True)["epoch"] == 0
    status, said = fit_elsewhere(*options(tmp_path / "killed", *both, f"--ckpt_path={saved}"))
    assert status == 0, said
    expected, found = weights(tmp_path / "undisturbed"), weights(tmp_path / "killed")
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name


def metrics(folder):
    (path,) = Path(folder).rglob("metrics.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    return [
        {key: float(row[key]) for key in ("val_acc", "val_loss")} for row in rows if row["val_acc"]
    ]


@pytest.mark.slow
def test_two_processes_do_what_one_does_with_the_double_batch(tmp_path):
    both = [
        "--trainer.callbacks+=train.runs.FreezeNorm",
        "--trainer.accelerator=cpu",
        "--model.opt=sgd",
        "--model.lr=0.05",
    ]
    for devices in (1, 2):
        more = [f"--trainer.devices={devices}"]
        if devices > 1:
            more.append("--trainer.strategy=ddp")
        status, said = fit_elsewhere(*options(tmp_path / str(devices), *both, *more))
        assert status == 0, said
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=1e-4, msg=name)
    moved = torch.load(last_checkpoint(tmp_path / "1"), weights_only=True)["global_step"]
    assert moved == 2 * (16 // 8)
    for a, b in zip(metrics(tmp_path / "1"), metrics(tmp_path / "2"), strict=True):
        assert a["val_acc"] == pytest.approx(b["val_acc"])
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.sparse
def test_two_processes_share_the_nodes_of_one_graph(tmp_path):
    """With all neighbours, so that nothing is drawn, they do what one does."""
    given = [
        "--model=GraphTask",
        "--model.model_args={channels: 8, num_blocks: 1}",
        "--model.opt=sgd",
        "--model.lr=0.05",
        "--data=GraphData",
        "--data.dataset=data.neighbors.Connected",
        "--data.level=node",
        "--data.num_neighbors=[-1]",
        "--data.batch_size=10",
        "--trainer.max_epochs=2",
        "--trainer.accelerator=cpu",
        "--trainer.logger=CSVLogger",
        "--trainer.callbacks=train.runs.FreezeNorm",
        "--trainer.enable_progress_bar=false",
    ]
    for devices in (1, 2):
        more = ["--trainer.strategy=ddp"] if devices == 2 else []
        folder = f"--trainer.logger.save_dir={tmp_path / str(devices)}"
        status, said = fit_elsewhere(*given, f"--trainer.devices={devices}", folder, *more)
        assert status == 0, said
    one, two = weights(tmp_path / "1"), weights(tmp_path / "2")
    for name in one:
        torch.testing.assert_close(two[name], one[name], atol=1e-5, rtol=1e-4, msg=name)
    assert torch.load(last_checkpoint(tmp_path / "2"), weights_only=True)["global_step"] == 6
    for a, b in zip(metrics(tmp_path / "1"), metrics(tmp_path / "2"), strict=True):
        assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.slow
def test_all_processes_stop_where_one_of_them_is_asked_to(tmp_path):
    stop = "{class_path: train.runs.Signal, init_args: {number: 15, epoch: 1, rank: 1}}"
    devices = ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"]
    given = options(tmp_path, *devices, f"--trainer.callbacks+={stop}")
    status, said = fit_elsewhere(*given)
    assert status == 128 + signal.SIGTERM, said
    assert said.count("stopped by SIGTERM") == 1
    assert f"--resume {Path(last_checkpoint(tmp_path)).parent.parent}" in said
    assert torch.load(last_checkpoint(tmp_path), weights_only=True)["global_step"] == 3


@pytest.mark.slow
def test_a_model_in_shards_learns_what_a_whole_one_does(tmp_path):
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    program = ["--nproc_per_node=2", str(Path(sharded.__file__)), str(tmp_path / "state.pt")]
    run = subprocess.run(
        [*launcher, *program],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    expected = sharded.train(sharded.make(), slice(None))
    assert state.keys() == expected.keys()
    assert all(torch.allclose(state[name], value, atol=1e-6) for name, value in expected.items())
    start = sharded.make().state_dict()
    assert any(not torch.allclose(start[name], value, atol=1e-4) for name, value in state.items())


@pytest.mark.slow
def test_imagenet_from_a_tree_to_a_label(tmp_path, capsys):
    """The config at its real resolution: fit, kill, resume, validate, export, predict."""
    root = imagenet_tree(tmp_path / "imagenet", train=2, val=1, side=256)
    broken = next((root / "train").rglob("*.JPEG"))
    broken.write_bytes(broken.read_bytes()[:100])
    teacher = timm.create_model("mobilenetv3_small_050", num_classes=3)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pth")
    given = [
        "--config=configs/imagenet/s.yaml",
        f"--trainer.logger.init_args.save_dir={tmp_path}/runs",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=2",
        "--trainer.log_every_n_steps=1",
        f"--data.root={root}",
        "--data.batch_size=4",
        "--data.num_workers=0",
        "--data.bad_share=0.2",
        f"--model.distillation={{name: mobilenetv3_small_050, checkpoint: {tmp_path}/teacher.pth}}",
        "--model.warmup_epochs=1",
    ]
    kill = "--trainer.callbacks+={class_path: train.runs.Kill, init_args: {epoch: 1, batch: 0}}"
    status, said = fit_elsewhere(*given, kill)
    assert status == -signal.SIGKILL, said
    assert f"{broken}: expected a readable image file" in said
    saved = last_checkpoint(tmp_path)
    status, said = fit_elsewhere(*given, f"--ckpt_path={saved}")
    assert status == 0, said
    resumed = last_checkpoint(tmp_path)
    content = torch.load(resumed, weights_only=True)
    assert content["epoch"] == 1
    assert content["hyper_parameters"]["data_config"]["input_size"] == [3, 224, 224]
    with pytest.warns(UserWarning, match="."):
        assert main(["validate", *given, f"--ckpt_path={resumed}"]) == 0
    exported = tmp_path / "model.safetensors"
    assert main(["export", str(resumed), str(exported)]) == 0
    photo = next((root / "val").rglob("*.JPEG"))
    capsys.readouterr()
    assert main(["predict", str(exported), str(photo)]) == 0
    path, label, probability = capsys.readouterr().out.strip().split("\t")
    assert path == str(photo)
    assert label in CLASSES
    assert 1 / 3 <= float(probability) <= 1
