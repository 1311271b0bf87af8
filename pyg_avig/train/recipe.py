"""How any model is trained: optimisers and schedules of timm, seeds by the batch."""

from __future__ import annotations

import copy
import inspect
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.data import Data
from torchmetrics import MeanMetric

from pyg_avig.data.loading.sampling import run_seed, seeded, set_seed
from pyg_avig.errors import InputError
from pyg_avig.nn import BetaBounds
from pyg_avig.nn.freeze_beta import log_betas
from pyg_avig.train.processor import say_if_slow

SCHEDULES = ("cosine", "tanh", "poly", "step", "multistep", "constant", "wsd", "rsqrt")
# When those decay that do not follow the length of the training, as shares of it by default.
OWN_TIMES = {"step": ("decay_epochs", 0.3), "multistep": ("decay_milestones", [0.3, 0.6, 0.9])}
# Arguments of timm's schedules that are fields of their own, or not for a schedule by the update.
_OTHERS = {"optimizer", "sched", "num_epochs", "warmup_lr", "warmup_epochs", "min_lr"}
_OTHERS |= {"patience_epochs", "plateau_mode", "step_on_epochs", "updates_per_epoch"}
SCHED_ARGS = sorted(inspect.signature(create_scheduler_v2).parameters.keys() - _OTHERS)
LABELS = ("y", "edge_label")
_log = logging.getLogger(__name__)
# What a number of the recipe may be: least, largest, and whether the least itself is meant.
_RANGES = {
    "lr": (0, 100, False),
    "lr_batch_size": (1, math.inf, True),
    "weight_decay": (0, 100, True),
    "layer_decay": (0, 1, False),
    "beta_lr": (0, math.inf, True),
    "beta_bound": (1, math.inf, True),
    "warmup_epochs": (0, math.inf, True),
    "warmup_lr": (0, 100, True),
    "min_lr": (0, 100, True),
    "label_smoothing": (0, 1, True),
}


def raised(logits: Tensor) -> Tensor:
    """Logits in single precision at least, for losses whose digits count."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def check_ranges(values: dict[str, Any], ranges: Mapping[str, tuple[float, float, bool]]) -> None:
    """Refuse numbers outside of their ranges; ``None`` is left to mean what it does.

    Raises:
        InputError: That names the first of them.
    """
    for name, (least, most, closed) in ranges.items():
        value = values.get(name)
        if value is None:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and (least <= value if closed else least < value) and value <= most:
            continue
        where = f"{'at least' if closed else 'above'} {least:g}"
        where += f" and at most {most:g}" if math.isfinite(most) else ""
        raise InputError(f"{name} must be {where} (got {value!r})")


def _try_optimizer(opt: str, opt_args: dict[str, Any]) -> None:
    """Refuse arguments on which timm's optimiser would fail at the first update."""
    parameter = nn.Parameter(torch.zeros(2, 2))
    try:
        optimizer = create_optimizer_v2([parameter], opt=opt, lr=1e-3, **opt_args)
        parameter.grad = torch.ones_like(parameter)
        if not getattr(optimizer, "is_second_order", False):
            with seeded(0):  # Some draw numbers, of which the training should not hear.
                optimizer.step()
    except Exception as error:  # Of missing packages too, which timm only asserts.
        reason = f"{opt} with opt_args {opt_args} ({type(error).__name__}: {error})"
        raise InputError(f"timm cannot make the optimiser {reason}") from None


def _set_apart(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], lr_scale: float
) -> None:
    """Give parameters groups of their own, whose learning rate is so many times their old one."""
    wanted = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        apart = [p for p in group["params"] if id(p) in wanted]
        if apart:
            group["params"] = [p for p in group["params"] if id(p) not in wanted]
            # timm's schedules multiply by it.
            scale = group.get("lr_scale", 1.0) * lr_scale
            options = {key: value for key, value in group.items() if key != "initial_lr"}
            optimizer.add_param_group({**options, "params": apart, "lr_scale": scale})


class Recipe(pl.LightningModule):
    """A Lightning module that holds a ``model`` and trains it with timm's optimisers.

    Args:
        opt: Name of an optimiser of timm.
        lr: Highest learning rate, for updates of ``lr_batch_size`` items.
        lr_batch_size: The learning rates are in proportion to the data's ``batch_size`` over
            this; ``None`` takes them as they are.
        weight_decay: Weight decay; none on biases, norms, layer scale and beta.
        opt_args: Further arguments of timm's ``create_optimizer_v2``.
        layer_decay: Each layer's learning rate over that of the layer behind it; ``None`` for 1.
        beta_lr: Learning rate of every beta over that of its layer; ``None`` for 1.
        beta_bound: Hold every beta within this factor of its initial value (that of the initial
            weights, if there are any); ``None`` lets it go where it will.
        sched: Name of a schedule of timm, stepped at every update.
        warmup_epochs: Epochs of linear warm-up.
        warmup_lr: Learning rate at the start of the warm-up.
        min_lr: Learning rate at the end.
        sched_args: Further arguments of timm's ``create_scheduler_v2``, such as ``decay_epochs``,
            ``decay_rate``, ``decay_milestones``, ``cycle_limit``. Without them ``step`` decays
            every 0.3 of the training and ``multistep`` at 0.3, 0.6 and 0.9 of it, which in 300
            epochs is timm's default.
    """

    same_in_checkpoints: tuple[str, ...] = ()
    """The hyperparameters that a checkpoint must share with the config."""
    same_to_resume: tuple[str, ...] = ("opt", "layer_decay", "beta_lr")
    """Those that the state of the optimiser depends on too."""

    def __init__(
        self,
        opt: str = "adamw",
        lr: float = 2e-3,
        lr_batch_size: int | None = None,
        weight_decay: float = 0.05,
        opt_args: dict[str, Any] | None = None,
        layer_decay: float | None = None,
        beta_lr: float | None = None,
        beta_bound: float | None = None,
        sched: str = "cosine",
        warmup_epochs: int = 0,
        warmup_lr: float = 1e-6,
        min_lr: float = 1e-5,
        sched_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # Those of the subclass too.
        if opt.removeprefix("lookahead_") not in list_optimizers():
            raise InputError(f"opt must be an optimiser of timm (got {opt!r})")
        if sched not in SCHEDULES:
            raise InputError(f"sched must be one of {', '.join(SCHEDULES)} (got {sched!r})")
        if wrong := sorted((sched_args or {}).keys() - {*SCHED_ARGS}):
            raise InputError(
                f"expected sched_args among {', '.join(SCHED_ARGS)} (got {', '.join(wrong)})"
            )
        check_ranges(dict(self.hparams), _RANGES)
        _try_optimizer(opt, opt_args or {})
        self.model: Any = None
        self._bounds: BetaBounds | None = None
        self._accumulated: dict[str, Tensor] = {}
        # Means over items, as batches and the shares of devices may differ in size.
        self.losses = nn.ModuleDict(
            # A loss that is no number must show; torchmetrics' "disable" would drop the weights.
            {split: MeanMetric(nan_strategy=float("nan")) for split in ("val", "test")}
        )

    def setup(self, stage: str) -> None:
        """Note where every beta begins; what is resumed says so itself."""
        if stage == "fit" and self.hparams["beta_bound"] is not None:
            self._bounds = BetaBounds(self.model, self.hparams["beta_bound"])

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update, and hold every beta within its bounds."""
        super().optimizer_step(*args, **kwargs)
        if self._bounds is not None:
            self._bounds.hold()

    def log_loss(self, split: str, loss: Tensor, size: int) -> None:
        """Log the mean loss of a batch of ``size`` items of the split ``val`` or ``test``."""
        metric = cast(Any, self.losses[split])
        metric.update(loss, size)
        self.log(f"{split}_loss", metric, batch_size=size)

    def on_train_start(self) -> None:
        """Take up a training where it was, with the learning rate of this run's own schedule."""
        say_if_slow(self.trainer)
        fit_loop: Any = self.trainer.fit_loop
        if fit_loop.restarted_mid_epoch and not self.trainer.is_last_batch:
            # Lightning does so when it makes the loader, which here was before it read the state.
            fit_loop._load_combined_loader_states()
        if fit_loop.restarted_on_epoch_end:
            # With max_steps Lightning takes each epoch for unfinished, and would count it twice.
            fit_loop.epoch_progress.increment_completed()
            fit_loop.reset_restart_stage()
            fit_loop.epoch_loop.restarting = False
        for name, gradient in self._accumulated.items():
            self.get_parameter(name).grad = gradient.to(self.device)
        self._accumulated = {}
        for config in self.trainer.lr_scheduler_configs:
            if hasattr(config.scheduler, "step_update"):
                self.lr_scheduler_step(config.scheduler, None)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Draw what the model draws from the batch's seed, so that a resumed run draws the same."""
        place = [run_seed(), self.current_epoch, batch_idx, self.global_rank]
        seed = int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)
        set_seed(seed)
        torch.manual_seed(seed)  # The devices' generators too.

    def in_precision(self, batch: Data) -> Data:
        """A graph whose fields, but for labels, are in the precision of the model."""
        floating = [
            name
            for name, value in batch
            if isinstance(value, Tensor) and value.is_floating_point() and name not in LABELS
        ]
        if not floating:
            return batch
        return copy.copy(batch).apply(lambda value: value.to(self.dtype), *floating)

    def on_validation_start(self) -> None:
        """Let each process evaluate its share on its own."""
        self._sync_buffers(False)

    def on_validation_end(self) -> None:
        """Let processes train together."""
        self._sync_buffers(True)

    def on_test_start(self) -> None:
        """Let each process evaluate its share on its own."""
        self._sync_buffers(False)

    def _sync_buffers(self, enable: bool) -> None:
        # DDP broadcasts buffers at every call, also in evaluation, where shares may differ by one.
        if isinstance(self.trainer.strategy.model, DistributedDataParallel):
            self.trainer.strategy.model.require_forward_param_sync = enable

    def configure_optimizers(self) -> Any:
        """timm's optimiser and schedule.

        Raises:
            InputError: If timm cannot make them, or if the schedule wants a length that nobody
                knows.
        """
        epoch, total = self._updates()
        scale = 1.0
        if self.hparams["lr_batch_size"] is not None:
            scale = self.batch_size / self.hparams["lr_batch_size"]
        optimizer = self._optimizer(scale)
        if self.hparams["beta_lr"] is not None:
            _set_apart(optimizer, log_betas(self.model), self.hparams["beta_lr"])
        scheduler = self._scheduler(optimizer, scale, epoch, total)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    @property
    def batch_size(self) -> int:
        """Items that one update sees: the data module's ``batch_size``, or else by the loader.

        Raises:
            InputError: If neither says.
        """
        trainer = cast(Any, self.trainer)
        if hasattr(trainer.datamodule, "batch_size"):
            return trainer.datamodule.batch_size
        size = getattr(trainer.train_dataloader, "batch_size", None)
        if size is None:
            raise InputError("expected a data module or a loader with a batch_size (got neither)")
        return size * trainer.world_size * trainer.accumulate_grad_batches

    def _log_each_epoch(self) -> None:
        """Let metrics of training be logged in each epoch, however short it is."""
        batches = self.trainer.num_training_batches
        if math.isfinite(batches) and self.trainer.log_every_n_steps > max(batches, 1):  # type: ignore[attr-defined]
            self.trainer.log_every_n_steps = max(int(batches), 1)  # type: ignore[attr-defined]

    def _updates(self) -> tuple[float, float]:
        """The number of updates in an epoch and in all; infinite if not known."""
        trainer: Any = self.trainer
        trainer.fit_loop.setup_data()
        self._log_each_epoch()
        batches = trainer.num_training_batches
        if not batches and trainer.limit_train_batches:
            raise InputError("expected a batch to train on in each epoch (got none)")
        epoch = batches / trainer.accumulate_grad_batches
        epoch = epoch if math.isinf(epoch) else max(math.ceil(epoch), 1)
        epochs = trainer.max_epochs
        total = math.inf if epochs in (None, -1) else epoch * max(epochs, 1)
        return epoch, total if trainer.max_steps == -1 else min(total, max(trainer.max_steps, 1))

    def _optimizer(self, scale: float) -> torch.optim.Optimizer:
        hparams = self.hparams
        try:
            return create_optimizer_v2(
                self.model,
                opt=hparams["opt"],
                lr=scale * hparams["lr"],
                weight_decay=hparams["weight_decay"],
                layer_decay=hparams["layer_decay"],
                **(hparams["opt_args"] or {}),
            )
        except Exception as error:  # Of missing packages too, which timm only asserts.
            raise InputError(f"timm cannot make the optimiser {hparams['opt']} ({error})") from None

    def _scheduler(
        self, optimizer: torch.optim.Optimizer, scale: float, epoch: float, total: float
    ) -> Any:
        hparams = self.hparams
        sched, args = hparams["sched"], dict(hparams["sched_args"] or {})
        self._check_length(epoch, total)
        epoch = epoch if math.isfinite(epoch) else total if math.isfinite(total) else 1
        epochs = total / epoch if math.isfinite(total) else 1.0
        if math.isfinite(total) and hparams["warmup_epochs"] >= epochs:
            _log.warning(
                "warmup_epochs %s lasts as long as the training of %g epochs: the learning rate "
                "never reaches lr",
                *(hparams["warmup_epochs"], epochs),
            )
        if sched in OWN_TIMES:
            name, shares = OWN_TIMES[sched]
            args.setdefault(name, (np.array(shares) * epochs).tolist())
        try:
            scheduler, _ = create_scheduler_v2(
                optimizer,
                sched=sched,
                num_epochs=int(epochs) if epochs.is_integer() else epochs,  # type: ignore[arg-type]
                warmup_epochs=hparams["warmup_epochs"],
                warmup_lr=scale * hparams["warmup_lr"],
                min_lr=scale * hparams["min_lr"],
                step_on_epochs=False,
                updates_per_epoch=int(epoch),
                **args,
            )
            scheduler.step_update(int(epochs * epoch))  # What it cannot do shows when it is asked.
            scheduler.step_update(0)
        except (TypeError, ValueError, AssertionError, ZeroDivisionError) as error:
            reason = f"{sched} with sched_args {args} ({error})"
            raise InputError(f"timm cannot make the schedule {reason}") from None
        return scheduler

    def _check_length(self, epoch: float, total: float) -> None:
        """Refuse a schedule that hangs on a length that is not known."""
        sched, args = self.hparams["sched"], self.hparams["sched_args"] or {}
        own = OWN_TIMES.get(sched, ("",))[0]
        if math.isinf(total) and sched != "constant" and own not in args:
            needed = f"sched_args with {own}" if own else "max_epochs or max_steps"
            raise InputError(
                f"expected {needed} for sched {sched!r}, as the training has no known end; "
                "sched 'constant' needs none"
            )
        if math.isinf(epoch) and (own in args or self.hparams["warmup_epochs"]):
            raise InputError(
                "expected a training loader that knows its length, as warmup_epochs or sched_args "
                "count epochs"
            )

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Keep the graph of the gradients for an optimiser of second order."""
        if any(
            getattr(optimizer, "is_second_order", False) for optimizer in self.trainer.optimizers
        ):
            kwargs["create_graph"] = True
        super().backward(loss, *args, **kwargs)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say truly where in an epoch the training is.

        Between two updates the gradients that were accumulated are kept. A training that ends
        within an epoch, by ``max_steps`` or ``max_time``, goes on within it.
        """
        if self._bounds is not None:
            checkpoint["beta_bounds"] = self._bounds.initial
        trainer: Any = self.trainer
        done = trainer.fit_loop.batch_idx + 1
        if trainer.is_last_batch or not done:
            return
        if done % trainer.accumulate_grad_batches:
            checkpoint["accumulated"] = {  # The mean, as processes have gathered theirs apart.
                name: trainer.strategy.reduce(parameter.grad, reduce_op="mean")
                for name, parameter in self.named_parameters()
                if parameter.grad is not None
            }
        for progress in checkpoint["loops"]["fit_loop"]["epoch_progress"].values():
            progress["processed"] = progress["completed"]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the schedule follow this run's length, should it differ from the saved one's.

        It is a function of the number of updates alone, which the trainer restores.
        """
        if self._bounds is not None and "beta_bounds" in checkpoint:
            self._bounds.initial = checkpoint["beta_bounds"]
        checkpoint["lr_schedulers"] = []
        self._accumulated = checkpoint.get("accumulated", {})

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step timm's schedule, which counts updates itself, or another that took its place."""
        if hasattr(scheduler, "step_update"):
            scheduler.step_update(self.global_step)
        else:
            super().lr_scheduler_step(scheduler, metric)
