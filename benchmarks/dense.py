"""Backbones side by side in the same detector or segmenter, from scratch, on given data."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from benchmarks.timing import spread
from pyg_avig.train.cli import CLI

_FROM_SCRATCH = {"layer_scale": 1.0}
_NANO = {**_FROM_SCRATCH, "stem_strides": [2, 2]}
RIVALS: dict[str, tuple[str, dict[str, Any]]] = {
    "attentionvig_nano": ("attentionvig_nano", _NANO),
    "attentionvig_nano, softmax": ("attentionvig_nano", {**_NANO, "affinity": "softmax"}),
    "attentionvig_s": ("attentionvig_s", _FROM_SCRATCH),
    "attentionvig_s, softmax": ("attentionvig_s", {**_FROM_SCRATCH, "affinity": "softmax"}),
}
"""Name and arguments of timm's model; any other rival is a name of timm, without arguments."""


def dense(
    config: str | Path,
    number: int,
    rivals: list[str],
    root: str | None = None,
    max_epochs: int | None = None,
    options: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Train and test each rival with each seed.

    Tested is the model after the last epoch, so that nothing is chosen by the test.

    Args:
        config: A config for `pyg-avig fit` with a Detector or a Segmenter.
        number: Number of seeds.
        rivals: Keys of ``RIVALS``, or names of timm.
        root: Folder of the data, in place of the config's.
        max_epochs: In place of the config's.
        options: Arguments of the data in place of the config's, such as ``classes``.
    """
    recipe = yaml.safe_load(Path(config).read_text())
    recipe["trainer"] |= {
        "accelerator": "cpu",
        "logger": False,
        "callbacks": None,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "max_epochs": max_epochs or recipe["trainer"]["max_epochs"],
    }
    recipe["data"]["init_args"] |= (options or {}) | ({"root": root} if root else {})
    rows = []
    for rival in rivals:
        name, model_args = RIVALS.get(rival, (rival, None))
        row: dict[str, Any] = {"rival": rival, "metrics": [], "seconds": []}
        rows.append(row)
        for seed in range(number):
            run = copy.deepcopy(recipe)
            run["seed_everything"] = seed
            run["model"]["init_args"] |= {"name": name, "model_args": model_args}
            cli = CLI(run, run=False)
            start = time.perf_counter()
            cli.trainer.fit(cli.model, cli.datamodule)
            row["seconds"].append(time.perf_counter() - start)
            (metrics,) = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
            row["metrics"].append(metrics)
            print(rival, seed, metrics, row["seconds"][-1], flush=True)
        row["parameters"] = sum(p.numel() for p in cli.model.parameters())
        row["epochs"] = recipe["trainer"]["max_epochs"]
    return rows


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table: means, with the standard deviation over the seeds."""
    names = [name for name in rows[0]["metrics"][0] if not name.endswith("loss")]
    titles = [name.removeprefix("test_") for name in names]
    lines = [
        f"| backbone | {' | '.join(titles)} | seeds | parameters | seconds a training |",
        "|---" * (len(names) + 4) + "|",
    ]
    for row in rows:
        cells = [spread([run[name] for run in row["metrics"]], 3) for name in names]
        lines.append(
            f"| {row['rival']} | {' | '.join(cells)} | {len(row['metrics'])} | "
            f"{row['parameters'] / 1e6:.1f} M | {mean(row['seconds']):.0f} |"
        )
    return lines
