"""How any model is trained: optimisers and schedules of timm, seeds by the epoch."""

from __future__ import annotations

from typing import Any, cast

import pytorch_lightning as pl
import torch
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchmetrics import MeanMetric

from pyg_avig.data.loading.sampling import run_seed, set_seed
from pyg_avig.errors import InputError

SCHEDULES = ("cosine", "tanh", "poly", "step", "multistep", "constant", "wsd", "rsqrt")


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
        sched: Name of a schedule of timm, stepped at every update.
        warmup_epochs: Epochs of linear warm-up.
        warmup_lr: Learning rate at the start of the warm-up.
        min_lr: Learning rate at the end.
    """

    same_in_checkpoints: tuple[str, ...] = ()
    """The hyperparameters that a checkpoint must share with the config."""
    same_to_resume: tuple[str, ...] = ("opt", "layer_decay")
    """Those that the state of the optimiser depends on too."""

    def __init__(
        self,
        opt: str = "adamw",
        lr: float = 2e-3,
        lr_batch_size: int | None = None,
        weight_decay: float = 0.05,
        opt_args: dict[str, Any] | None = None,
        layer_decay: float | None = None,
        sched: str = "cosine",
        warmup_epochs: int = 0,
        warmup_lr: float = 1e-6,
        min_lr: float = 1e-5,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()  # Those of the subclass too.
        if opt not in list_optimizers():
            raise InputError(f"opt must be an optimiser of timm (got {opt!r})")
        if sched not in SCHEDULES:
            raise InputError(f"sched must be one of {', '.join(SCHEDULES)} (got {sched!r})")
        self.model: Any = None
        # Means over items, as batches and the shares of devices may differ in size.
        self.losses = nn.ModuleDict(
            # A loss that is no number must show; torchmetrics' "disable" would drop the weights.
            {split: MeanMetric(nan_strategy=float("nan")) for split in ("val", "test")}
        )

    def log_loss(self, split: str, loss: Tensor, size: int) -> None:
        """Log the mean loss of a batch of ``size`` items of the split ``val`` or ``test``."""
        metric = cast(Any, self.losses[split])
        metric.update(loss, size)
        self.log(f"{split}_loss", metric, batch_size=size)

    def on_train_start(self) -> None:
        """Take the learning rate from this run's schedule, should it differ from the saved one."""
        self.lr_scheduler_step(self.lr_schedulers(), None)

    def on_train_epoch_start(self) -> None:
        """Draw what the model draws from the epoch's seed, so that a resumed run draws the same."""
        seed = run_seed() + 1000 * self.current_epoch + self.global_rank
        set_seed(seed)
        torch.manual_seed(seed)  # The devices' generators too.

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
        """timm's optimiser and schedule."""
        hparams = self.hparams
        scale = 1.0
        if hparams["lr_batch_size"] is not None:
            scale = cast(Any, self.trainer).datamodule.batch_size / hparams["lr_batch_size"]
        optimizer = create_optimizer_v2(
            self.model,
            opt=hparams["opt"],
            lr=scale * hparams["lr"],
            weight_decay=hparams["weight_decay"],
            layer_decay=hparams["layer_decay"],
            **(hparams["opt_args"] or {}),
        )
        updates = int(self.trainer.estimated_stepping_batches)
        epochs = max(self.trainer.max_epochs or 1, 1)
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched=hparams["sched"],
            num_epochs=epochs,
            warmup_epochs=hparams["warmup_epochs"],
            warmup_lr=scale * hparams["warmup_lr"],
            min_lr=scale * hparams["min_lr"],
            step_on_epochs=False,
            updates_per_epoch=max(updates // epochs, 1),
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the schedule follow this run's length, should it differ from the saved one's.

        It is a function of the number of updates alone, which the trainer restores.
        """
        checkpoint["lr_schedulers"] = []

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step timm's schedule, which counts updates itself."""
        scheduler.step_update(self.global_step)
