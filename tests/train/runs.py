"""The shipped digits config, cut down to seconds; and what is done to runs."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from pytorch_lightning.callbacks import Callback
from torch.nn import BatchNorm1d, BatchNorm2d


def options(folder, *more):
    return [
        "--config=configs/digits/nano.yaml",
        "--trainer.max_epochs=2",
        f"--trainer.logger.init_args.save_dir={folder}",
        "--trainer.enable_model_summary=false",
        "--trainer.log_every_n_steps=1",
        "--data.init_args.batch_size=8",
        "--data.init_args.limit=16",
        "--model.warmup_epochs=1",
        "--model.model_args={channels: [8, 8, 8, 8], head_hidden_size: 16}",
        *more,
    ]


class Kill(Callback):
    """Ends the process as a power cut would, in the middle of an epoch."""

    def __init__(self, epoch, batch):
        self.place = epoch, batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.place:
            os.kill(os.getpid(), signal.SIGKILL)


class Signal(Callback):
    """Sends one of the processes a signal in a batch."""

    def __init__(self, number: int, epoch: int, batch: int = 0, rank: int = 0):
        self.number = number
        self.place = epoch, batch, rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx, trainer.global_rank) == self.place:
            signal.raise_signal(self.number)


class FreezeNorm(Callback):
    """Leaves BatchNorm's statistics as they are: they see one device's batch only."""

    def on_train_epoch_start(self, trainer, pl_module):
        for module in pl_module.modules():
            if isinstance(module, BatchNorm1d | BatchNorm2d):
                module.eval()


def fit_elsewhere(*options):
    """`pyg-avig fit` in a process of its own; its exit status and what it printed."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pyg_avig", "fit", *options],
        env={**os.environ, "PYTHONPATH": "tests", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    return run.returncode, run.stdout + run.stderr


def last_checkpoint(folder):
    return max(Path(folder).rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
