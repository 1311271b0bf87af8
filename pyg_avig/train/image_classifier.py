"""The Lightning module that trains an image classifier on graphs of images."""

from __future__ import annotations

from typing import Any, cast

import pytorch_lightning as pl
import timm
import torch.nn.functional as F
from timm.data import Mixup
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.data import Batch, Data
from torchmetrics.classification import MulticlassAccuracy

import pyg_avig.models  # registers them in timm
import pyg_avig.nn
from pyg_avig.data.sampling import run_seed, set_seed
from pyg_avig.errors import InputError
from pyg_avig.graphs import graph_images
from pyg_avig.train.distillation import Teacher
from pyg_avig.train.export import read_export
from pyg_avig.train.mixing import mix

SCHEDULES = ("cosine", "tanh", "poly", "step", "multistep", "constant", "wsd", "rsqrt")


class ImageClassifier(pl.LightningModule):
    """A model of timm on batches of image graphs, trained with timm's optimisers.

    Models other than ours, a teacher for instance, get the images that the graphs were made of.
    Its checkpoints carry the class names and the input transform, so that a prediction
    needs nothing else.

    Args:
        classes: Names of the classes, in the order of their indices.
        data_config: How an image becomes the model's input; see
            :func:`pyg_avig.data.image_graphs.eval_transform`.
        name: Name of the model in timm's registry, such as ``attentionvig_nano``.
        model_args: Further arguments of ``timm.create_model``.
        opt: Name of an optimiser of timm.
        lr: Highest learning rate, for updates of ``lr_batch_size`` images.
        lr_batch_size: The learning rates are in proportion to the data's ``batch_size`` over
            this; ``None`` takes them as they are.
        weight_decay: Weight decay; none on biases, norms, layer scale and beta.
        opt_args: Further arguments of timm's ``create_optimizer_v2``.
        sched: Name of a schedule of timm, stepped at every update.
        warmup_epochs: Epochs of linear warm-up.
        warmup_lr: Learning rate at the start of the warm-up.
        min_lr: Learning rate at the end.
        label_smoothing: Share of the target spread over all classes.
        mixup: Arguments of timm's ``Mixup``, such as ``mixup_alpha`` and ``cutmix_alpha``; ``None``
            mixes nothing.
        initial_weights: An exported file (`pyg-avig export`) to start from. Classifiers for other
            classes are drawn anew.
        freeze_beta: Whether every beta stays as it is; by default if there are initial weights.
        layer_decay: Each layer's learning rate over that of the layer behind it; ``None`` for 1.
        grad_checkpointing: Hold no activations within blocks: less memory, more time.
        compile: Let ``torch.compile`` fuse the model's operations: minutes at first, then faster.
        distillation: Arguments of :class:`~pyg_avig.train.distillation.Teacher`, such as ``name``
            and ``checkpoint``; ``None`` for no teacher.
    """

    def __init__(
        self,
        classes: list[str],
        data_config: dict[str, Any],
        name: str = "attentionvig_nano",
        model_args: dict[str, Any] | None = None,
        opt: str = "adamw",
        lr: float = 2e-3,
        lr_batch_size: int | None = None,
        weight_decay: float = 0.05,
        opt_args: dict[str, Any] | None = None,
        sched: str = "cosine",
        warmup_epochs: int = 0,
        warmup_lr: float = 1e-6,
        min_lr: float = 1e-5,
        label_smoothing: float = 0.0,
        mixup: dict[str, Any] | None = None,
        initial_weights: str | None = None,
        freeze_beta: bool | None = None,
        layer_decay: float | None = None,
        grad_checkpointing: bool = False,
        compile: bool = False,
        distillation: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if not timm.is_model(name):
            known = ", ".join(timm.list_models("attentionvig_*"))
            raise InputError(
                f"name must be a model that timm knows, such as {known} (got {name!r})"
            )
        if opt not in list_optimizers():
            raise InputError(f"opt must be an optimiser of timm (got {opt!r})")
        if sched not in SCHEDULES:
            raise InputError(f"sched must be one of {', '.join(SCHEDULES)} (got {sched!r})")
        try:
            model: Any = timm.create_model(
                name,
                num_classes=len(classes),
                in_chans=data_config["input_size"][0],
                **(model_args or {}),
            )
        except TypeError as error:
            raise InputError(f"expected model_args as arguments of {name} ({error})") from None
        if grad_checkpointing:
            model.set_grad_checkpointing()
        if compile:
            model.compile()
        self.model: Any = model
        if initial_weights is not None:
            _load_initial(model, initial_weights, classes)
        if freeze_beta or (freeze_beta is None and initial_weights is not None):
            pyg_avig.nn.freeze_beta(model)
        self.mixup = None
        if mixup is not None:
            args = {"num_classes": len(classes), "label_smoothing": label_smoothing, **mixup}
            self.mixup = Mixup(**args)
        self.teacher = None
        if distillation is not None:
            if not isinstance(model.get_classifier(), tuple):
                raise InputError(
                    f"expected a model with two classifiers, for distillation (got {name})"
                )
            self.teacher = Teacher(data_config, classes, **distillation)
            model.set_distilled_training()
        self.val_acc = MulticlassAccuracy(len(classes), average="micro")
        self.test_acc = MulticlassAccuracy(len(classes), average="micro")

    def forward(self, batch: Batch | Tensor) -> Tensor:
        """Logits (B, number of classes) of a batch of graphs or images."""
        return self.model(graph_images(batch) if isinstance(batch, Data) else batch)

    def on_fit_start(self) -> None:
        """Refuse at once what the first step would refuse."""
        size = cast(Any, self.trainer).datamodule.device_batch_size
        if self.mixup is not None and size % 2:
            raise InputError(
                f"expected an even batch on each device, to mix it (got {size} images)"
            )

    def on_train_start(self) -> None:
        """Take the learning rate from this run's schedule, should it differ from the saved one."""
        self.lr_scheduler_step(self.lr_schedulers(), None)

    def on_train_epoch_start(self) -> None:
        """Draw what the model draws from the epoch's seed, so that a resumed run draws the same."""
        set_seed(run_seed() + 1000 * self.current_epoch + self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        smoothing = self.hparams["label_smoothing"]
        if self.mixup is not None:
            batch, smoothing = mix(batch, self.mixup), 0.0  # timm's Mixup smooths itself.
        logits = self(batch)
        first = logits if self.teacher is None else logits[0]
        loss = F.cross_entropy(first, batch.y, label_smoothing=smoothing)
        if self.teacher is not None:
            loss = self.teacher.loss(logits, loss, graph_images(batch))
        self.log("train_loss", loss, batch_size=batch.num_graphs, prog_bar=True)
        return loss

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

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and accuracy on the validation split."""
        self._evaluate(batch, "val", self.val_acc)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and accuracy on the test split."""
        self._evaluate(batch, "test", self.test_acc)

    def _evaluate(self, batch: Batch, split: str, accuracy: MulticlassAccuracy) -> None:
        logits, size = self(batch), batch.num_graphs
        accuracy.update(logits, batch.y)
        loss = F.cross_entropy(logits, batch.y)
        self.log(f"{split}_loss", loss, batch_size=size, sync_dist=True)
        self.log(f"{split}_acc", accuracy, batch_size=size, prog_bar=True)

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


def _load_initial(model: nn.Module, path: str, classes: list[str]) -> None:
    """Fill a model with exported weights, but for classifiers of other classes."""
    tensors, description = read_export(path)
    own = model.state_dict()
    unfit = [
        name
        for name in own.keys() | tensors.keys()
        if name not in own
        or name not in tensors
        or own[name].shape != tensors[name].shape
        or (name.startswith("head.classifier") and description["classes"] != classes)
    ]
    wrong = [name for name in unfit if not name.startswith("head.classifier")]
    if wrong:
        raise InputError(
            f"{path}: expected weights that fit the model (got those of {description['name']}, of "
            f"which {len(wrong)} do not fit, such as {min(wrong)})"
        )
    fit = {name: tensor for name, tensor in tensors.items() if name not in unfit}
    model.load_state_dict(fit, strict=False)
