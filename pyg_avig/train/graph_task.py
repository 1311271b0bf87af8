"""The Lightning module that trains a ViG on graphs of any kind."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Batch, Data
from torchmetrics import MetricCollection

from pyg_avig.errors import InputError
from pyg_avig.models.exported import vig_for
from pyg_avig.train.graph_metrics import UNKNOWN, OfTwoClasses, make_metrics
from pyg_avig.train.recipe import Recipe, raised


class GraphTask(Recipe):
    """A :class:`~pyg_avig.models.vig.ViG` on batches of graphs, for one of three tasks.

    Logged for each split are, by default, for ``multiclass``, accuracy (``acc``) and macro-F1
    (``f1``); for ``multilabel``, macro average precision (``ap``) and micro-F1 (``f1``); for
    ``regression``, root mean squared and mean absolute error (``rmse``, ``mae``) in the unit of the
    targets, which the model itself sees standardised. Targets that are NaN are left out.

    For ``multiclass`` there are also ``class_acc``, the mean over the classes of each one's
    accuracy, and of two classes ``auroc``, the area under the receiver operating characteristic,
    and ``ap``, the average precision of the second. All are over a whole split, not means over its
    batches. A ``ModelCheckpoint`` can monitor any as ``val_NAME``.

    Args:
        facts: What the data say of themselves; see :attr:`pyg_avig.data.GraphData.facts`.
        model_args: Further arguments of the model.
        label_smoothing: Share of the target spread over all classes.
        balance: Weigh each class by one over its share of the training labels.
        metrics: What is logged, by these names; ``None`` for the default.
        **recipe: Arguments of :class:`Recipe`.

    Raises:
        InputError: If an argument is none of these; at the end of an epoch, if ``auroc`` or ``ap``
            of two classes is asked of labels that are all of one.
    """

    same_in_checkpoints = ("facts", "model_args")
    weight: Tensor | None
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        facts: dict[str, Any],
        model_args: dict[str, Any] | None = None,
        label_smoothing: float = 0.0,
        balance: bool = False,
        metrics: list[str] | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(**recipe)
        if facts is None:
            raise InputError("expected GraphData for a GraphTask (got data that say no facts)")
        self.model = vig_for(facts, model_args)
        self.task = facts["task"]
        if balance and self.task != "multiclass":
            raise InputError(f"expected a multiclass task, to balance classes (got {self.task})")
        for name in ("weight", "mean", "std"):
            self.register_buffer(name, None, persistent=False)
        self._take(facts, self.device)
        made = make_metrics(self.task, metrics, facts["out_channels"])
        self.val_metrics = made.clone(prefix="val_")
        self.test_metrics = made.clone(prefix="test_")

    def _take(self, facts: dict[str, Any], device: torch.device) -> None:
        """Weigh classes and standardise targets by what is known of the data."""
        self.hparams["facts"] = facts
        shares = torch.tensor(facts["shares"]) if self.hparams["balance"] else None
        # A class that training lacks has no weight.
        weight = None if shares is None else (1 / (shares * len(shares))).nan_to_num(posinf=0)
        self.weight = None if weight is None else weight.to(device)
        self.mean, self.std = (torch.tensor(facts[n], device=device) for n in ("mean", "std"))

    def setup(self, stage: str) -> None:
        """Refuse batches of neighbours that reach less far than the model."""
        super().setup(stage)
        hops = getattr(getattr(self.trainer, "datamodule", None), "num_neighbors", None)
        if hops is None:
            return
        if any(graph is not None for graph in self.model.graphs):
            raise InputError(
                "expected a model on the edges at hand for num_neighbors (got a graph constructor)"
            )
        if len(hops) < len(self.model.blocks):
            raise InputError(
                f"expected num_neighbors for each of the model's {len(self.model.blocks)} blocks "
                f"(got {len(hops)})"
            )

    def _apply(self, *args: Any, **kwargs: Any) -> GraphTask:
        """Move or convert the model, but leave the statistics of the data in single precision."""
        super()._apply(*args, **kwargs)
        self._take(self.hparams["facts"], self.mean.device)
        return self

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the statistics that the weights were trained with, to the last digit."""
        super().on_load_checkpoint(checkpoint)
        self._take(checkpoint["hyper_parameters"]["facts"], self.mean.device)

    def forward(self, data: Data | Batch) -> Tensor:
        """Logits, or predictions in the unit of the targets: (B, O), (N, O) or (L, O)."""
        out = self.model(self.in_precision(data))
        # In single precision, as targets may be large.
        return out.float() * self.std + self.mean if self.task == "regression" else out

    def in_the_unit_of_targets(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The model's tensors, and what builds it: of a regression one that needs no statistics.

        The last linear map takes up the mean and deviation of the targets, which leave the facts.
        """
        tensors, facts = dict(self.model.state_dict()), dict(self.hparams["facts"])
        if self.task == "regression":
            last = f"head.{len(self.model.head) - 1}"
            weight, bias = tensors[f"{last}.weight"], tensors[f"{last}.bias"]
            tensors[f"{last}.weight"] = weight * self.std[:, None]
            tensors[f"{last}.bias"] = bias * self.std + self.mean
            facts |= {"mean": [0.0] * len(bias), "std": [1.0] * len(bias)}
        return tensors, {"facts": facts, "model_args": self.hparams["model_args"]}

    def training_step(self, batch: Data, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        out, target = self._of_split(self.model(self.in_precision(batch)), batch, "train")
        loss = self._loss(out, target, self.hparams["label_smoothing"])
        self.log("train_loss", loss, batch_size=len(target), prog_bar=True)
        return loss

    def validation_step(self, batch: Data, batch_idx: int) -> None:
        """Loss and metrics on the validation split."""
        self._evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: Data, batch_idx: int) -> None:
        """Loss and metrics on the test split."""
        self._evaluate(batch, "test", self.test_metrics)

    def on_validation_epoch_end(self) -> None:
        """Refuse labels that a metric says nothing of; Lightning's check sees a part of them."""
        if not self.trainer.sanity_checking:
            _check_classes("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Refuse labels that a metric says nothing of."""
        _check_classes("test", self.test_metrics)

    def _evaluate(self, batch: Data, split: str, metrics: MetricCollection) -> None:
        out, target = self._of_split(self.model(self.in_precision(batch)), batch, split)
        size = len(target)
        self.log_loss(split, self._loss(out, target), size)
        if self.task == "multilabel":
            metrics.update(out.float().sigmoid(), target.nan_to_num(nan=UNKNOWN).long())
        elif self.task == "regression":
            known = ~target.isnan()
            metrics.update((out.float() * self.std + self.mean)[known], target[known])
        else:
            metrics.update(out, target)
        self.log_dict(metrics, batch_size=size, prog_bar=True)

    def _of_split(self, out: Tensor, batch: Data, split: str) -> tuple[Tensor, Tensor]:
        """Outputs and targets, of the nodes of this split where others are in the batch too."""
        level = self.hparams["facts"]["level"]
        target = batch.edge_label if level == "edge" else batch.y
        # Graphs whose pairs are learned may have masks of nodes, as Planetoid's.
        mask = batch.get(f"{split}_mask") if level == "node" else None
        seeds = batch.get("batch_size")
        if seeds is not None:  # PyG's NeighborLoader puts them first.
            out, target = out[:seeds], target[:seeds]
        elif mask is not None:
            out, target = out[mask], target[mask]
        if self.task == "multiclass":
            return out, target.view(-1).long()
        return out, target.view_as(out).float()

    def _loss(self, out: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
        known = ~target.isnan()  # Public data sets mark what was not measured so.
        if not known.any():  # The mean of nothing would be NaN, and the gradients with it.
            return 0 * out.sum()
        if self.task == "multiclass":
            out = raised(out)
            weight = None if self.weight is None else self.weight.to(out)
            return F.cross_entropy(out, target, weight, label_smoothing=smoothing)
        if self.task == "multilabel":
            return F.binary_cross_entropy_with_logits(out.float()[known], target[known])
        return F.mse_loss(out.float()[known], ((target - self.mean) / self.std)[known])


def _check_classes(split: str, metrics: MetricCollection) -> None:
    for name, metric in metrics.items(keep_base=True):
        if isinstance(metric, OfTwoClasses) and metric.compute().isnan():
            raise InputError(
                f"expected labels of both classes in the split {split}, for the metric {name} (got "
                "one class alone)"
            )
