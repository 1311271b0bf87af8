"""Ending a training before its time, so that it can go on where it was."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint


class Stopped(SystemExit):
    """A signal ended the training; the exit status is 128 and its number, as in shells.

    Args:
        number: The signal.
        checkpoint: Where the training goes on from; empty if nothing was saved.
    """

    def __init__(self, number: int, checkpoint: str) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)
        self.checkpoint = checkpoint


class CarryOn(Callback):
    """Lets a run that goes on in its own folder go on with its best checkpoint.

    Lightning forgets it where the folder is named otherwise than it was: from another working
    directory, or after a move.
    """

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Name the folder of checkpoints as it is named now."""
        now = f"{trainer.log_dir}/checkpoints"
        for state in checkpoint["callbacks"].values():
            before = state.get("dirpath") if isinstance(state, dict) else None
            if before is None or not str(before).rstrip("/").endswith("/checkpoints"):
                continue
            state["dirpath"] = now
            for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
                state[key] = str(state.get(key, "")).replace(str(before), now)
            models = state.get("best_k_models") or {}
            state["best_k_models"] = {
                str(path).replace(str(before), now): score for path, score in models.items()
            }


class LastCheckpoint(ModelCheckpoint):
    """Writes ``last.ckpt`` after each epoch, validated or not, and when a signal ends the training.

    SIGTERM, with which clusters preempt, and SIGINT (Ctrl+C) are heeded after the update at hand,
    or after a validation; by all processes, whichever of them got it. A second one ends the
    process at once.

    Args:
        dirpath: Folder or address; by default the folder ``checkpoints`` of the run.

    Raises:
        Stopped: After a signal.
    """

    def __init__(self, dirpath: Any = None) -> None:
        super().__init__(
            dirpath, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
        )
        self._signal = 0

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up nothing: at an address Lightning would remove the file that is resumed from."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, in the place of Lightning, which puts its handlers back at the end."""
        super().on_train_start(trainer, pl_module)
        self._signal = signal.SIGTERM if trainer.received_sigterm else 0
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Stop if asked to; not before a validation, which would be left out."""
        super().on_train_batch_end(trainer, *args)
        updated = (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if updated and not trainer.is_last_batch:
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, and stop if asked to."""
        super().on_train_epoch_end(trainer, pl_module)
        self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        if not trainer.strategy.reduce_boolean_decision(bool(self._signal), all=False):
            return
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        raise Stopped(self._signal or signal.SIGTERM, self.best_model_path)
