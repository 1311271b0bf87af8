"""The Lightning module that trains a ViG on graphs of any kind."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Batch, Data
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError

from pyg_avig.errors import InputError
from pyg_avig.models.vig import ViG
from pyg_avig.train.recipe import Recipe, raised

_UNKNOWN = -1  # A label that was not measured, for torchmetrics.


class GraphTask(Recipe):
    """A :class:`~pyg_avig.models.vig.ViG` on batches of graphs, for one of three tasks.

    Logged for each split are, for ``multiclass``, accuracy (``acc``) and macro-F1 (``f1``); for
    ``multilabel``, macro average precision (``ap``) and micro-F1 (``f1``); for ``regression``, root
    mean squared and mean absolute error (``rmse``, ``mae``) in the unit of the targets, which the
    model itself sees standardised. Targets that are NaN are left out.

    Args:
        facts: What the data say of themselves; see :attr:`pyg_avig.data.GraphData.facts`.
        model_args: Further arguments of the model.
        label_smoothing: Share of the target spread over all classes.
        balance: Weigh each class by one over its share of the training labels.
        **recipe: Arguments of :class:`Recipe`.
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
        **recipe: Any,
    ) -> None:
        super().__init__(**recipe)
        if facts is None:
            raise InputError("expected GraphData for a GraphTask (got data that say no facts)")
        args = {"pos_dim": facts["pos_dim"] or 1, **(model_args or {})}
        if args.get("graph") is None:
            args = {"edge_dim": facts["edge_dim"], **args}
        try:
            self.model = ViG(
                facts["in_channels"], facts["out_channels"], level=facts["level"], **args
            )
        except TypeError as error:
            raise InputError(f"expected model_args as arguments of ViG ({error})") from None
        self.task = facts["task"]
        if balance and self.task != "multiclass":
            raise InputError(f"expected a multiclass task, to balance classes (got {self.task})")
        for name in ("weight", "mean", "std"):
            self.register_buffer(name, None, persistent=False)
        self._take(facts, self.device)
        metrics = MetricCollection(_metrics(self.task, facts["out_channels"]))
        self.val_metrics = metrics.clone(prefix="val_")
        self.test_metrics = metrics.clone(prefix="test_")

    def _take(self, facts: dict[str, Any], device: torch.device) -> None:
        """Weigh classes and standardise targets by what is known of the data."""
        self.hparams["facts"] = facts
        shares = torch.tensor(facts["shares"]) if self.hparams["balance"] else None
        # A class that training lacks has no weight.
        weight = None if shares is None else (1 / (shares * len(shares))).nan_to_num(posinf=0)
        self.weight = None if weight is None else weight.to(device)
        self.mean, self.std = (torch.tensor(facts[n], device=device) for n in ("mean", "std"))

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

    def _evaluate(self, batch: Data, split: str, metrics: MetricCollection) -> None:
        out, target = self._of_split(self.model(self.in_precision(batch)), batch, split)
        size = len(target)
        self.log_loss(split, self._loss(out, target), size)
        if self.task == "multilabel":
            metrics.update(out.float().sigmoid(), target.nan_to_num(nan=_UNKNOWN).long())
        elif self.task == "regression":
            known = ~target.isnan()
            metrics.update((out.float() * self.std + self.mean)[known], target[known])
        else:
            metrics.update(out, target)
        self.log_dict(metrics, batch_size=size, prog_bar=True)

    def _of_split(self, out: Tensor, batch: Data, split: str) -> tuple[Tensor, Tensor]:
        """Outputs and targets, of the nodes of this split where several share a graph."""
        target = batch.edge_label if self.hparams["facts"]["level"] == "edge" else batch.y
        mask = batch.get(f"{split}_mask")
        if mask is not None:
            out, target = out[mask], target[mask]
        if self.task == "multiclass":
            return out, target.view(-1).long()
        return out, target.view_as(out).float()

    def _loss(self, out: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
        if self.task == "multiclass":
            out = raised(out)
            weight = None if self.weight is None else self.weight.to(out)
            return F.cross_entropy(out, target, weight, label_smoothing=smoothing)
        known = ~target.isnan()  # Public data sets mark what was not measured so.
        if self.task == "multilabel":
            return F.binary_cross_entropy_with_logits(out.float()[known], target[known])
        return F.mse_loss(out.float()[known], ((target - self.mean) / self.std)[known])


def _metrics(task: str, outputs: int) -> dict[str, Metric | MetricCollection]:
    if task == "multiclass":
        return {
            "acc": MulticlassAccuracy(outputs, average="micro"),
            "f1": MulticlassF1Score(outputs, average="macro"),
        }
    if task == "multilabel":
        return {
            "ap": MultilabelAveragePrecision(outputs, ignore_index=_UNKNOWN),
            "f1": MultilabelF1Score(outputs, average="micro", ignore_index=_UNKNOWN),
        }
    return {"rmse": MeanSquaredError(squared=False), "mae": MeanAbsoluteError()}
