"""Train AttentionViG-nano on scikit-learn's digits, test it, and draw what it attends to.

    python examples/digits_demo.py [options of `pyg-avig fit`, such as --trainer.max_epochs 5]

It leaves a checkpoint, the metrics, a picture and a page to explore, and names them at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from pyg_avig.graphs import graph_images
from pyg_avig.train import load_classifier
from pyg_avig.train.cli import CLI
from pyg_avig.viz import explore, neighbor_weights

CONFIG = Path(__file__).parent.parent / "configs" / "digits" / "nano.yaml"


def main(options: Sequence[str] = ()) -> dict[str, Path]:
    """Run the demo; the files it wrote."""
    cli = CLI(["fit", "--config", str(CONFIG), *options])
    trainer, digits = cli.trainer, cli.datamodule
    folder = Path(str(trainer.log_dir))

    # Chosen on the validation digits; the test digits come up here for the first time.
    best = folder / "checkpoints" / "best.ckpt"
    classifier = load_classifier(best)
    (metrics,) = trainer.test(classifier, digits, verbose=False)

    batch = next(iter(digits.test_dataloader()))
    images = graph_images(batch)[:3]
    height, width = images.shape[2:]
    picture = folder / "neighbor_weights.png"
    neighbor_weights(classifier.model, images, (height // 2, width // 2), picture)

    page = folder / "explore.html"
    explore(
        classifier.model,
        images,
        page,
        classes=classifier.hparams["classes"],
        names=[f"a {label}" for label in batch.y[:3].tolist()],
        mean=digits.mean,
        std=digits.std,
        title="attentionvig_nano",
    )

    with torch.inference_mode():
        predicted = classifier(images).argmax(1).tolist()
    files = {
        "checkpoint": best,
        "metrics": folder / "metrics.csv",
        "picture": picture,
        "page": page,
    }
    print(f"\ntest accuracy: {metrics['test_acc']:.4f} on {len(digits.splits['test'])} digits")
    print(f"first test digits: predicted {predicted}, true {batch.y[:3].tolist()}")
    for name, file in files.items():
        print(f"{name + ':':12}{file}")
    return files


if __name__ == "__main__":
    main(sys.argv[1:])
