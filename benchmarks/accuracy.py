"""Aggregations side by side in the same ViG, on graphs that are not images."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from benchmarks.recipes import QUIET_TRAINER
from benchmarks.timing import spread
from pyg_avig.train.cli import CLI

RIVALS: dict[str, dict[str, Any]] = {
    "CrossAttnConv": {"aggregation": "cross_attention"},
    "CrossAttnConv, softmax": {
        "aggregation": "cross_attention",
        "aggregation_args": {"affinity": "softmax"},
    },
    "GATv2Conv": {"aggregation": "gatv2"},
    "TransformerConv": {"aggregation": "transformer"},
    "EdgeConv": {"aggregation": "edge_conv"},
    "GraphSAGE": {"aggregation": "sage"},
    "Max-Relative": {"aggregation": "max_relative"},
    "no edges": {"aggregation": "none"},
}


def accuracy(
    config: str | Path, number: int, rivals: list[str], max_epochs: int | None = None
) -> list[dict[str, Any]]:
    """Train and test each rival with each seed; run n takes the n-th split too.

    Tested is the model after the last epoch, so that nothing is chosen by the test.

    Args:
        config: A config for `pyg-avig fit` with a :class:`~pyg_avig.train.GraphTask`.
        number: Number of seeds, or of folds.
        rivals: Keys of ``RIVALS``.
        max_epochs: In place of the config's.
    """
    recipe = yaml.safe_load(Path(config).read_text())
    recipe["trainer"] |= {
        **QUIET_TRAINER,
        "max_epochs": max_epochs or recipe["trainer"]["max_epochs"],
    }
    rows = []
    for name in rivals:
        row: dict[str, Any] = {"rival": name, "metrics": [], "seconds": []}
        for seed in range(number):
            run = copy.deepcopy(recipe)
            run["seed_everything"] = seed
            run["model"]["init_args"]["model_args"] |= RIVALS[name]
            split = run["data"]["init_args"].get("split") or {}
            drawn = {key: seed for key in ("seed", "fold") if key in split}
            run["data"]["init_args"]["split"] = {**split, **drawn}
            cli = CLI(run, run=False)
            start = time.perf_counter()
            cli.trainer.fit(cli.model, cli.datamodule)
            row["seconds"].append(time.perf_counter() - start)
            (metrics,) = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
            row["metrics"].append(metrics)
        row["parameters"] = sum(p.numel() for p in cli.model.parameters())
        rows.append(row)
        print(row["rival"], row["metrics"], row["seconds"], flush=True)
    return rows


def report(rows: list[dict[str, Any]], metrics: list[str] | None = None) -> list[str]:
    """The rows as a Markdown table: means, with the standard deviation over the runs."""
    names = [name for name in rows[0]["metrics"][0] if not name.endswith("loss")]
    if metrics is not None:
        names = [f"test_{name}" for name in metrics]
    titles = [name.removeprefix("test_") for name in names]
    lines = [
        f"| aggregation | {' | '.join(titles)} | runs | parameters | seconds a run |",
        "|---" * (len(names) + 4) + "|",
    ]
    for row in rows:
        cells = [spread([run[name] for run in row["metrics"]], 3) for name in names]
        lines.append(
            f"| {row['rival']} | {' | '.join(cells)} | {len(row['metrics'])} | "
            f"{row['parameters'] / 1e3:.0f} k | {mean(row['seconds']):.1f} |"
        )
    return lines
