"""Accuracy of training recipes, over several seeds."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.timing import spread
from pyg_avig.train.cli import CLI


def seeds(configs: list[str], number: int, options: list[str]) -> list[dict[str, Any]]:
    """Fit each config with each seed and test the checkpoint that was best in validation."""
    rows = []
    for config in configs:
        row: dict[str, Any] = {"config": config, "metrics": [], "seconds": []}
        for seed in range(number):
            start = time.perf_counter()
            cli = CLI(["fit", f"--config={config}", f"--seed_everything={seed}", *options])
            row["seconds"].append(time.perf_counter() - start)
            best = Path(str(cli.trainer.log_dir), "checkpoints", "best.ckpt")
            (metrics,) = cli.trainer.test(cli.model, cli.datamodule, ckpt_path=str(best))
            row["metrics"].append(metrics)
        rows.append(row)
        print(row, flush=True)
    return rows


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table: means, with the standard deviation over the seeds."""
    names = [name for name in rows[0]["metrics"][0] if name != "test_loss"]
    lines = [
        f"| config | {' | '.join(names)} | seeds | seconds a run |",
        "|---" * (len(names) + 3) + "|",
    ]
    for row in rows:
        cells = [spread([run[name] for run in row["metrics"]], 4) for name in names]
        lines.append(
            f"| {Path(row['config']).stem} | {' | '.join(cells)} | {len(row['metrics'])} | "
            f"{mean(row['seconds']):.0f} |"
        )
    return lines
