"""What is measured of a model of graphs, by the task and the name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryAveragePrecision,
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)
from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError
from torchmetrics.utilities import dim_zero_cat

from pyg_avig.errors import InputError

UNKNOWN = -1  # A label that was not measured, for torchmetrics.


class OfTwoClasses:
    """A metric of torchmetrics over the probability of the second of two classes.

    It takes logits (N, 2) and classes (N,), and is NaN where one class alone occurs, of which
    torchmetrics would say 0.
    """

    target: list[Tensor]

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take a batch."""
        super().update(preds.float().softmax(-1)[:, 1], target)  # type: ignore[misc]

    def compute(self) -> Any:
        """The value over all batches."""
        if not len(self.target) or len(dim_zero_cat(self.target).unique()) < 2:
            return torch.tensor(torch.nan, device=self.device)  # type: ignore[attr-defined]
        return super().compute()  # type: ignore[misc]


class TwoClassAUROC(OfTwoClasses, BinaryAUROC):
    """Area under the receiver operating characteristic of two classes."""


class TwoClassAveragePrecision(OfTwoClasses, BinaryAveragePrecision):
    """Average precision of the second of two classes."""


METRICS: dict[str, dict[str, Callable[[int], Metric]]] = {
    "multiclass": {
        "acc": partial(MulticlassAccuracy, average="micro"),
        "f1": partial(MulticlassF1Score, average="macro"),
        "class_acc": partial(MulticlassAccuracy, average="macro"),
        "auroc": lambda _: TwoClassAUROC(),
        "ap": lambda _: TwoClassAveragePrecision(),
    },
    "multilabel": {
        "ap": partial(MultilabelAveragePrecision, ignore_index=UNKNOWN),
        "f1": partial(MultilabelF1Score, average="micro", ignore_index=UNKNOWN),
    },
    "regression": {
        "rmse": lambda _: MeanSquaredError(squared=False),
        "mae": lambda _: MeanAbsoluteError(),
    },
}
"""How each is made, from the number of outputs."""

DEFAULT = {"multiclass": ("acc", "f1"), "multilabel": ("ap", "f1"), "regression": ("rmse", "mae")}


def make_metrics(task: str, names: Sequence[str] | None, outputs: int) -> MetricCollection:
    """The metrics of a task.

    Args:
        task: ``multiclass``, ``multilabel`` or ``regression``.
        names: Keys of ``METRICS[task]``; ``None`` takes ``DEFAULT[task]``.
        outputs: Number of classes, labels or targets.

    Raises:
        InputError: If a name is of another task, or not for so many outputs.
    """
    known = METRICS[task]
    if task == "multilabel" and outputs < 2:
        raise InputError("expected two labels or more (got 1, which makes two classes: multiclass)")
    if task == "multiclass" and outputs < 2:
        raise InputError("expected labels of two classes or more (got 1); see `task`")
    made: dict[str, Any] = {}
    for name in DEFAULT[task] if names is None else names:
        if name not in known:
            raise InputError(f"expected metrics among {', '.join(known)} for {task} (got {name!r})")
        made[name] = known[name](outputs)
        if isinstance(made[name], OfTwoClasses) and outputs != 2:
            raise InputError(f"expected two classes, for the metric {name} (got {outputs})")
    return MetricCollection(made)
