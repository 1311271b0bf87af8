"""What a training says at its start and at its end."""

from __future__ import annotations

import logging
import math
import os
import shlex
import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar

from pyg_avig.errors import InputError
from pyg_avig.train.graph_task import GraphTask
from pyg_avig.train.interruption import LastCheckpoint
from pyg_avig.train.recipe import Recipe

_NO_NEWS = (
    "GPU available:",  # The start line names the device.
    "TPU available:",
    "`Trainer.fit` stopped: `max_",  # As it was told; the lines at the end say more.
    "Restoring states from",  # Another line says that it was done.
    "Tip: For seamless",  # Services that Lightning recommends.
)


def hush_lightning() -> None:
    """Keep lines of Lightning's log that carry no news off the screen."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not any(text in record.getMessage() for text in _NO_NEWS)


class StartReport(Callback):
    """Says at the start what is trained where; refuses to watch metrics that are not logged."""

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look whether the metrics that other callbacks watch are among those of validation."""
        known = sorted(map(str, trainer.callback_metrics))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            name = getattr(callback, "monitor", None)
            watched = isinstance(callback, (EarlyStopping, ModelCheckpoint)) and name is not None
            if watched and known and isinstance(pl_module, Recipe) and "train" not in str(name):
                _check_monitor(type(callback).__name__, str(name), known)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print it."""
        folder = trainer.log_dir if trainer.loggers else None  # Which all processes must ask for.
        if trainer.is_global_zero:
            print(start_line(trainer, pl_module, folder), flush=True)


def _check_monitor(callback: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise InputError(
            f"expected monitor of {callback} as one of {', '.join(known)} (got {name!r})"
        )


def start_line(trainer: pl.Trainer, module: pl.LightningModule, folder: str | None) -> str:
    """Model, device, precision, length and place (if it has one) of a training."""
    hparams = module.hparams
    model = getattr(module, "model", module)
    name = hparams.get("name") or type(model).__name__
    count = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    device = module.device if trainer.world_size == 1 else f"{trainer.world_size} devices"
    parts = [
        f"{name}, {count:,} parameters to train",
        f"on {device} in precision {trainer.precision}",
        f"{trainer.num_training_batches} updates an epoch"
        if trainer.accumulate_grad_batches == 1
        else f"{trainer.num_training_batches} batches an epoch",
    ]
    if trainer.max_epochs not in (None, -1):
        parts.append(f"{trainer.max_epochs} epochs")
    if folder is not None:
        parts.append(f"into {folder}")
    return "training: " + ", ".join(parts)


def end_lines(trainer: pl.Trainer, folder: str | None) -> list[str]:
    """Which checkpoint is best, in which folder all lies (if any), and what to type next."""
    keepers = [
        c
        for c in trainer.checkpoint_callbacks
        if isinstance(c, ModelCheckpoint) and c.best_model_path
    ]
    watching = [c for c in keepers if c.monitor]
    last = next((c.best_model_path for c in keepers if isinstance(c, LastCheckpoint)), "")
    lines, checkpoint = [], last
    if watching:
        best = watching[0]
        checkpoint = best.best_model_path
        lines.append(f"best: {checkpoint}, {best.monitor} {_number(best.best_model_score)}")
    elif last:
        lines.append(f"last: {last}")
    if folder is not None:
        lines.append(f"all of it: {folder}")
    if folder is not None and checkpoint:
        own = f"{folder}/checkpoints/best.ckpt"
        name = "best" if os.path.abspath(checkpoint) == os.path.abspath(own) else checkpoint
        config = f"{folder}/config.yaml"
        words = ["pyg-avig", "test", "--config", config, "--ckpt_path", name]
        lines.append(f"next: {shlex.join(words)}")
        what = "FILE [FILE ...]"
        if isinstance(trainer.lightning_module, GraphTask):
            what = f"--config {shlex.quote(config)} --out predictions.csv"
        lines.append(f"or:   pyg-avig predict {shlex.quote(checkpoint)} {what}")
    return lines


def _number(score: Any) -> str:
    return "unknown" if score is None else f"{float(score):.4f}"


class Progress(RichProgressBar):
    """Lightning's bar, with the time that the rest of the training will take."""

    def __init__(self, leave: bool = False) -> None:
        super().__init__(leave=leave)
        self._began = 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note when, and where in it."""
        super().on_train_start(trainer, pl_module)
        self._began = time.monotonic(), trainer.global_step

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the bar, so that what others print now stands below it."""
        self.teardown(trainer, pl_module, "fit")

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What stands beside the bar."""
        metrics = {k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"}
        start, first = self._began
        done, total = trainer.global_step - first, trainer.estimated_stepping_batches
        if done > 0 and math.isfinite(total):
            seconds = (time.monotonic() - start) / done * (total - trainer.global_step)
            metrics["left"] = str(timedelta(seconds=round(seconds)))
        return metrics
