"""The Lightning module that trains an image classifier on graphs of images."""

from __future__ import annotations

from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.data import Mixup
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)

import pyg_avig.models  # registers them in timm
import pyg_avig.nn
from pyg_avig.data.loading.sampling import device_share, seeded
from pyg_avig.errors import InputError
from pyg_avig.graphs import graph_images
from pyg_avig.train.distillation import Teacher
from pyg_avig.train.export import read_export
from pyg_avig.train.mixing import mix
from pyg_avig.train.recipe import Recipe, raised

MCC_CLASSES = 2000  # It counts every pair of classes, and 21,841 of them would take gigabytes.


class ImageClassifier(Recipe):
    """A model of timm on batches of image graphs, trained with timm's optimisers.

    Models other than ours, a teacher for instance, get the images that the graphs were made of.
    Its checkpoints carry the class names and the input transform, so that a prediction
    needs nothing else.

    Args:
        classes: Names of the classes, in the order of their indices.
        data_config: How an image becomes the model's input; see
            :func:`pyg_avig.data.loading.image_graphs.eval_transform`.
        name: Name of the model in timm's registry, such as ``attentionvig_nano``.
        model_args: Further arguments of ``timm.create_model``.
        swap_attention: Arguments of :func:`pyg_avig.nn.swap_attention`, such as ``affinity``, for a
            ViT or Swin of timm; ``None`` leaves its attention as it is.
        pretrained: Start from timm's weights of this model, for ``sag_vit`` of its backbone.
        label_smoothing: Share of the target spread over all classes.
        mixup: Arguments of timm's ``Mixup``, such as ``mixup_alpha`` and ``cutmix_alpha``; ``None``
            mixes nothing.
        initial_weights: An exported file (`pyg-avig export`) to start from. Classifiers for other
            classes are drawn anew.
        freeze_beta: Whether every beta stays as it is; by default if there are initial weights.
        grad_checkpointing: Hold no activations within blocks: less memory, more time.
        compile: Let ``torch.compile`` fuse the model's operations: minutes at first, then faster.
        distillation: Arguments of :class:`~pyg_avig.train.distillation.Teacher`, such as ``name``
            and ``checkpoint``; ``None`` for no teacher.
        **recipe: Arguments of :class:`Recipe`.
    """

    same_in_checkpoints = ("name", "model_args", "swap_attention", "classes")
    same_to_resume = (*Recipe.same_to_resume, "freeze_beta")

    def __init__(
        self,
        classes: list[str],
        data_config: dict[str, Any],
        name: str = "attentionvig_nano",
        model_args: dict[str, Any] | None = None,
        swap_attention: dict[str, Any] | None = None,
        pretrained: bool = False,
        label_smoothing: float = 0.0,
        mixup: dict[str, Any] | None = None,
        initial_weights: str | None = None,
        freeze_beta: bool | None = None,
        grad_checkpointing: bool = False,
        compile: bool = False,
        distillation: dict[str, Any] | None = None,
        **recipe: Any,
    ) -> None:
        super().__init__(**recipe)
        if classes is None:
            raise InputError(
                "expected labelled images for an ImageClassifier (got data without classes); for "
                "graphs of any kind take a GraphTask"
            )
        if not timm.is_model(name):
            known = ", ".join(timm.list_models("attentionvig_*"))
            raise InputError(
                f"name must be a model that timm knows, such as {known} (got {name!r})"
            )
        if len(classes) < 2:
            raise InputError(f"expected two classes or more (got {', '.join(map(str, classes))})")
        try:
            model: Any = timm.create_model(
                name,
                pretrained=pretrained,
                num_classes=len(classes),
                in_chans=data_config["input_size"][0],
                **(model_args or {}),
            )
        except TypeError as error:
            raise InputError(f"expected model_args as arguments of {name} ({error})") from None
        if swap_attention is not None:
            try:
                pyg_avig.nn.swap_attention(model, **swap_attention)
            except TypeError as error:
                raise InputError(f"expected swap_attention as its arguments ({error})") from None
        _say_input(model, data_config, classes)
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
            self.mixup = _make_mixup(mixup, len(classes), label_smoothing)
        self.teacher = None
        if distillation is not None:
            if not isinstance(model.get_classifier(), tuple):
                raise InputError(
                    f"expected a model with two classifiers, for distillation (got {name})"
                )
            self.teacher = Teacher(data_config, classes, **distillation)
            model.set_distilled_training()
        metrics = MetricCollection(
            {
                "acc": MulticlassAccuracy(len(classes), average="micro"),
                "f1": MulticlassF1Score(len(classes), average="macro"),
            }
        )
        if len(classes) <= MCC_CLASSES:
            metrics.add_metrics({"mcc": MulticlassMatthewsCorrCoef(len(classes))})
        self.val_metrics = metrics.clone(prefix="val_")
        self.test_metrics = metrics.clone(prefix="test_")

    def forward(self, batch: Batch | Tensor) -> Tensor:
        """Logits (B, number of classes) of a batch of graphs or images."""
        images = graph_images(batch) if isinstance(batch, Data) else batch
        return self.model(images.to(self.dtype))

    def on_fit_start(self) -> None:
        """Refuse at once what the first step would refuse."""
        if self.mixup is None:
            return
        size = device_share(self.batch_size, self.trainer)
        if size % 2:
            raise InputError(
                f"expected an even batch on each device, to mix it (got {size} images)"
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        smoothing = self.hparams["label_smoothing"]
        if self.mixup is not None:
            batch, smoothing = mix(batch, self.mixup), 0.0  # timm's Mixup smooths itself.
        logits = self(batch)
        first = logits if self.teacher is None else logits[0]
        loss = F.cross_entropy(raised(first), batch.y, label_smoothing=smoothing)
        if self.teacher is not None:
            loss = self.teacher.loss(logits, loss, graph_images(batch))
        self.log("train_loss", loss, batch_size=batch.num_graphs, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss, accuracy, macro-F1 and Matthews' correlation on the validation split."""
        self._evaluate(batch, "val", self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on the test split."""
        self._evaluate(batch, "test", self.test_metrics)

    def _evaluate(self, batch: Batch, split: str, metrics: MetricCollection) -> None:
        logits, size = self(batch), batch.num_graphs
        metrics.update(logits, batch.y)
        self.log_loss(split, F.cross_entropy(raised(logits), batch.y), size)
        self.log_dict(metrics, batch_size=size, prog_bar=True)


def _make_mixup(args: dict[str, Any], num_classes: int, label_smoothing: float) -> Mixup:
    """timm's Mixup, tried on two images: it fails only there on some arguments."""
    if args.get("mode", "batch") not in ("batch", "pair", "elem"):  # timm takes batch instead.
        raise InputError(f"mode of mixup must be batch, pair or elem (got {args['mode']!r})")
    try:
        mixup = Mixup(num_classes=num_classes, **{"label_smoothing": label_smoothing, **args})
        with seeded(0):
            mixup(torch.zeros(2, 3, 32, 32), torch.zeros(2, dtype=torch.long))
    except Exception as error:
        raise InputError(
            f"expected mixup as arguments of timm's Mixup (got {args}: {type(error).__name__}: "
            f"{error})"
        ) from None
    return mixup


def _say_input(model: Any, data_config: dict[str, Any], classes: list[str]) -> None:
    """Let timm's configuration of a model say what images it is trained on, and what it knows.

    Who asks timm for a transform (``timm.data.resolve_model_data_config``), or saves the model with
    timm, gets that of the training.
    """
    cfg = dict(model.pretrained_cfg)
    for name in ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"):
        if name in data_config:
            value = data_config[name]
            cfg[name] = tuple(value) if isinstance(value, list) else value
    cfg["num_classes"], cfg["label_names"] = len(classes), tuple(classes)
    of_other_weights = ("test_input_size", "test_crop_pct", "test_pool_size", "pool_size")
    for name in (*of_other_weights, "tag", "label_descriptions", "label_offset"):
        cfg.pop(name, None)
    model.pretrained_cfg = model.default_cfg = cfg


def _load_initial(model: nn.Module, path: str, classes: list[str]) -> None:
    """Fill a model with exported weights, but for classifiers of other classes."""
    tensors, description = read_export(path)
    own, of_classes = model.state_dict(), _classifiers(model)
    unfit = [
        name
        for name in own.keys() | tensors.keys()
        if name not in own
        or name not in tensors
        or own[name].shape != tensors[name].shape
        or (name.startswith(of_classes) and description["classes"] != classes)
    ]
    wrong = [name for name in unfit if not name.startswith(of_classes)]
    if wrong:
        raise InputError(
            f"{path}: expected weights that fit the model (got those of {description['name']}, of "
            f"which {len(wrong)} do not fit, such as {min(wrong)})"
        )
    fit = {name: tensor for name, tensor in tensors.items() if name not in unfit}
    model.load_state_dict(fit, strict=False)


def _classifiers(model: Any) -> tuple[str, ...]:
    """What names of a classifier's weights begin with: of our models, even one that is left out."""
    found = model.get_classifier()
    found = found if isinstance(found, tuple) else (found,)
    names = [name for name, child in model.named_modules() if any(child is one for one in found)]
    return ("head.classifier", *(f"{name}." for name in names))
