"""Accuracy of training recipes, over several seeds."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from pyg_avig.train.cli import CLI


def seeds(configs: list[str], number: int, options: list[str]) -> list[dict[str, Any]]:
    """Fit each config with each seed and test the checkpoint that was best in validation."""
    rows = []
    for config in configs:
        row: dict[str, Any] = {"config": config, "test_acc": [], "seconds": []}
        for seed in range(number):
            start = time.perf_counter()
            cli = CLI(["fit", f"--config={config}", f"--seed_everything={seed}", *options])
            row["seconds"].append(time.perf_counter() - start)
            best = Path(str(cli.trainer.log_dir), "checkpoints", "best.ckpt")
            (metrics,) = cli.trainer.test(cli.model, cli.datamodule, ckpt_path=str(best))
            row["test_acc"].append(metrics["test_acc"])
        rows.append(row)
        print(row, flush=True)
    return rows


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table."""
    lines = ["| config | test accuracy | spread | seeds | seconds a run |", "|---" * 5 + "|"]
    for row in rows:
        values = row["test_acc"]
        spread = stdev(values) if len(values) > 1 else 0.0
        lines.append(
            f"| {Path(row['config']).stem} | {mean(values):.4f} | {spread:.4f} | {len(values)} | "
            f"{mean(row['seconds']):.0f} |"
        )
    return lines
