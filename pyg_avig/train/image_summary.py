"""Pictures of what a trained classifier gets right and wrong."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from pyg_avig.files import written_whole
from pyg_avig.graphs import graph_images
from pyg_avig.train.checkpoint import load_classifier
from pyg_avig.viz import confusion_matrix, labelled_images

MOST_MISTAKES = 12


class Predicted(NamedTuple):
    """What a classifier says of M images."""

    label: Tensor
    """Their classes, (M,)."""
    predicted: Tensor
    """The most likely class, (M,)."""
    mistakes: list[tuple[Tensor, int, int, float]]
    """The surest wrong ones: image (C, H, W) as the model sees it, class, predicted class and its
    probability."""


class ImageSummary(Callback):
    """At the end of a training on one device, draws what the best checkpoint does on validation.

    ``confusion.png`` and ``mistakes.png`` are written into the folder of the run, and named.
    """

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw them."""
        best, data = trainer.checkpoint_callback, trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(best, ModelCheckpoint) or not best.best_model_path or data is None:
            return
        if trainer.world_size > 1 or not trainer.loggers or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        classifier: Any = load_classifier(best.best_model_path).to(pl_module.device)
        found = predicted_of(classifier, data.val_dataloader())
        hparams, folder = classifier.hparams, str(trainer.log_dir)
        right = int((found.label == found.predicted).sum())
        print(f"\nbest checkpoint on validation: {right} of {len(found.label)} right")
        path = f"{folder}/confusion.png"
        with written_whole(path) as partial:
            confusion_matrix(found.label, found.predicted, hparams["classes"], partial)
        print(f"  which for which: {path}")
        if found.mistakes:
            path = f"{folder}/mistakes.png"
            config, names = hparams["data_config"], hparams["classes"]
            with written_whole(path) as partial:
                labelled_images(
                    [image for image, *_ in found.mistakes],
                    [
                        f"{names[of]}, taken for\n{names[taken]} ({share:.0%})"
                        for _, of, taken, share in found.mistakes
                    ],
                    partial,
                    config["mean"],
                    config["std"],
                )
            print(f"  surest mistakes: {path}")


@torch.inference_mode()
def predicted_of(classifier: Any, batches: Any) -> Predicted:
    """What a classifier says of labelled batches of image graphs."""
    labels, predictions = [], []
    mistakes: list[tuple[Tensor, int, int, float]] = []
    for batch in batches:
        batch = batch.to(classifier.device)
        share, taken = classifier(batch).softmax(-1).max(-1)
        images = graph_images(batch)
        wrong = [
            (images[n].cpu(), int(batch.y[n]), int(taken[n]), float(share[n]))
            for n in (taken != batch.y).nonzero().view(-1).tolist()
        ]
        mistakes = sorted([*mistakes, *wrong], key=lambda one: -one[3])[:MOST_MISTAKES]
        labels.append(batch.y.cpu())
        predictions.append(taken.cpu())
    return Predicted(torch.cat(labels), torch.cat(predictions), mistakes)
