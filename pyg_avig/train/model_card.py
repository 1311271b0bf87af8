"""Model cards: what a trained classifier is, in Markdown that people and model hubs read."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from fsspec.implementations.local import LocalFileSystem
from huggingface_hub import EvalResult, ModelCardData

from pyg_avig.files import place
from pyg_avig.train.image_classifier import ImageClassifier

MANY_CLASSES = 100  # More are in config.json alone.

_USE = """\
```python
import timm, torch
from PIL import Image
import pyg_avig.models  # lets timm know them

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # or "hf-hub:USER/NAME"
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
image = Image.open("photo.jpg").convert("{mode}")
with torch.no_grad():
    probability = model(transform(image).unsqueeze(0)).softmax(-1)
print(model.pretrained_cfg["label_names"][int(probability.argmax())])
```

```sh
pyg-avig predict FOLDER photo.jpg
```
"""


def model_card(classifier: ImageClassifier, run: dict[str, Any]) -> str:
    """The card of a classifier: classes, data, metrics, use, and how it was trained.

    Args:
        classifier: The classifier.
        run: What is known of its training; see :func:`facts_of_run`.
    """
    config, metrics = run.get("config") or {}, run.get("metrics") or {}
    name, classes = classifier.hparams["name"], list(map(str, classifier.hparams["classes"]))
    data = config.get("data") or {}
    channels, height, width = classifier.hparams["data_config"]["input_size"]
    parameters = sum(p.numel() for p in classifier.model.parameters())
    parts = [
        f"# {name}, {len(classes)} classes",
        f"{parameters:,} parameters, trained with pyg_avig on images of {height} x {width} pixels, "
        f"{'grey' if channels == 1 else f'{channels} channels'}.",
        "## Classes",
        ", ".join(classes[:MANY_CLASSES])
        + (f", ... ({len(classes)} in all, in config.json)" if classes[MANY_CLASSES:] else ""),
        "## Data",
        f"`{data['class_path']}`:" if data.get("class_path") else "It is not known on which.",
        *([_yaml(data["init_args"])] if data.get("init_args") else []),
        "An image becomes the model's input by timm's `create_transform` with",
        _yaml(classifier.hparams["data_config"]),
        "## Metrics",
        _table(metrics, run.get("epoch")) if metrics else "None are known.",
        "## Use",
        _USE.format(mode="L" if channels == 1 else "RGB").rstrip(),
    ]
    if config.get("model"):
        command = "```sh\npyg-avig fit --config config.yaml\n```"
        sections = {key: config[key] for key in ("model", "data") if key in config}
        parts += ["## Training", command, "with, in `config.yaml`,", _yaml(sections)]
    card = ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "pyg_avig"],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=str(data.get("class_path") or "unknown").rsplit(".")[-1].lower(),
                dataset_name=str(data.get("class_path") or "unknown").rsplit(".")[-1],
                dataset_split="validation",
                metric_type={"acc": "accuracy"}.get(key[4:], key[4:]),
                metric_value=round(value, 4),
            )
            for key, value in metrics.items()
        ]
        or None,
    )
    return f"---\n{card.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def facts_of_run(checkpoint: str | Path, content: dict[str, Any]) -> dict[str, Any]:
    """What is known of the training that a checkpoint is of.

    Args:
        checkpoint: The checkpoint; ``config.yaml`` and ``metrics.csv`` of its run are read where
            `pyg-avig fit` puts them, one folder above it.
        content: Its content.

    Returns:
        ``epoch``; ``config``, the run's, ``None`` if it is not there; ``metrics``, those of the
        validation in this epoch by name, or the score that the checkpoint was kept for.
    """
    epoch = content.get("epoch")
    system, name = place(run_config(checkpoint))
    folder = PurePosixPath(name).parent
    config: Any = None
    metrics: dict[str, float] = {}
    try:
        with system.open(name, "r") as file:
            config = yaml.safe_load(file)
        with system.open(str(folder / "metrics.csv"), "r") as file:
            rows = [row for row in csv.DictReader(file) if row.get("epoch") == str(epoch)]
        for row in rows:
            metrics |= {k: float(v) for k, v in row.items() if k and k.startswith("val_") and v}
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError):
        pass  # The card says less.
    for state in content.get("callbacks", {}).values() if not metrics else ():
        monitor, score = (state.get(key) for key in ("monitor", "current_score"))
        if monitor and monitor.startswith("val_") and score is not None:
            metrics[monitor] = float(score)
    known = isinstance(config, dict)
    return {"epoch": epoch, "config": config if known else None, "metrics": metrics}


def run_config(checkpoint: str | Path) -> str:
    """Where `pyg-avig fit` puts the config of the run that a checkpoint is of: a folder above."""
    system, name = place(checkpoint)
    config = str(PurePosixPath(name).parent.parent / "config.yaml")
    return config if isinstance(system, LocalFileSystem) else system.unstrip_protocol(config)


def _table(metrics: dict[str, float], epoch: int | None) -> str:
    lines = [f"| {name} | {value:.4f} |" for name, value in sorted(metrics.items())]
    when = "" if epoch is None else f", behind epoch {epoch} (the first is 0)"
    return "\n".join(
        [f"Of the validation split{when}.\n", "| metric | value |", "|---|---|", *lines]
    )


def _yaml(content: Any) -> str:
    return f"```yaml\n{yaml.safe_dump(_portable(content), sort_keys=False).rstrip()}\n```"


def _portable(content: Any) -> Any:
    """Without what is not given, and where the data lay."""
    if not isinstance(content, dict):
        return content
    kept = {key: value for key, value in content.items() if value is not None and key != "root"}
    return {key: _portable(value) for key, value in kept.items()}
