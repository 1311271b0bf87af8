import csv
import logging
from types import SimpleNamespace

import pytest
import torch
from torch_geometric.data import Data
from train.runs import options

from pyg_avig.train.cli import main
from pyg_avig.train.report import Progress, hush_lightning


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """A folder of rings, and of rings with a chord, told apart by ``y``."""
    folder = tmp_path_factory.mktemp("graphs")
    for n in range(20):
        source = torch.arange(6)
        edges = torch.stack([source, source.roll(1)])
        if n % 2:
            edges = torch.cat([edges, torch.tensor([[0, 3], [3, 0]])], 1)
        torch.save(
            Data(x=torch.ones(6, 2), edge_index=edges, y=torch.tensor([n % 2])), folder / f"{n}.pt"
        )
    return folder


def test_own_graphs_from_a_folder_to_a_table(graphs, tmp_path, capsys):
    """One command trains; the command that it names at its end works."""
    words = ["--config=own_graphs", f"--data.root={graphs}", "--trainer.max_epochs=2"]
    words += [f"--trainer.logger.init_args.save_dir={tmp_path}", "--model.model_args.channels=16"]
    assert main(["fit", *words]) == 0
    printed = capsys.readouterr().out
    (run,) = tmp_path.rglob("version_0")
    assert "training: ViG, " in printed
    assert f"best: {run}/checkpoints/best.ckpt, val_loss " in printed
    assert f"all of it: {run}" in printed
    command = printed.partition("or:   pyg-avig ")[2].splitlines()[0]
    assert command.startswith("predict ")
    command = command.replace("predictions.csv", str(tmp_path / "predictions.csv"))
    assert main(command.split()) == 0
    with (tmp_path / "predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 20


def test_without_validation_the_last_checkpoint_is_named(tmp_path, capsys):
    words = options(tmp_path, "--trainer.max_epochs=1", "--trainer.callbacks=null")
    assert main(["fit", *words]) == 0
    printed = capsys.readouterr().out
    (last,) = tmp_path.rglob("last.ckpt")
    assert f"last: {last}" in printed
    assert f"--ckpt_path {last}" in printed


def test_short_epochs_log_the_training_loss(tmp_path):
    words = options(tmp_path)
    words.remove("--trainer.log_every_n_steps=1")  # Ten of the config; there are two an epoch.
    assert main(["fit", *words]) == 0
    (metrics,) = tmp_path.rglob("metrics.csv")
    with metrics.open() as file:
        epochs = [row["epoch"] for row in csv.DictReader(file) if row["train_loss"]]
    assert epochs == ["0", "1"]


def test_the_bar_says_what_is_left(monkeypatch):
    clock = iter([100.0, 110.0])
    monkeypatch.setattr("pyg_avig.train.report.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("pyg_avig.train.report.RichProgressBar.on_train_start", lambda *args: None)
    monkeypatch.setattr(
        "pyg_avig.train.report.RichProgressBar.get_metrics", lambda *args: {"v_num": 0, "acc": 1}
    )
    bar = Progress()
    trainer = SimpleNamespace(global_step=50, estimated_stepping_batches=100)
    bar.on_train_start(trainer, None)
    assert bar.get_metrics(trainer, None) == {"acc": 1}  # Nothing is known yet.
    trainer.global_step = 60  # Ten updates in ten seconds, and forty to come.
    assert bar.get_metrics(trainer, None) == {"acc": 1, "left": "0:00:40"}


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("GPU available: False, used: False", False),
        ("TPU available: False, using: 0 TPU cores", False),
        ("`Trainer.fit` stopped: `max_epochs=2` reached.", False),
        ("`Trainer.fit` stopped: No training batches.", True),
        ("Restoring states from the checkpoint path at a.ckpt", False),
        ("Loaded model weights from the checkpoint at a.ckpt", True),
    ],
)
def test_lines_of_lightning_without_news_are_kept_back(line, shown):
    hush_lightning()
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    record = logging.LogRecord(logger.name, logging.INFO, __file__, 1, line, (), None)
    assert bool(logger.filter(record)) == shown
