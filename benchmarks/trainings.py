"""Rivals trained by the same config with the same seeds, a run at a time."""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import yaml

from benchmarks.timing import save, saved, spread
from pyg_avig.train.cli import CLI

# No validation either, as nothing is chosen by it.
QUIET_TRAINER: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "callbacks": None,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
}


def trainings(
    name: str,
    config: str | Path,
    number: int,
    rivals: Mapping[str, dict[str, Any]],
    changes: dict[str, Any],
    place: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Train and test each rival with each seed; a row for each run.

    Run n takes the seed n, and the n-th split or fold where the data are dealt into such. Tested is
    the model after the last epoch, so that nothing is chosen by the test. A run is written as it
    ends; those that are written already are not run again, so that what was cut goes on, and
    several processes may share the rivals.

    Args:
        name: Name of the results.
        config: A config for `pyg-avig fit`.
        number: Number of seeds, or of folds.
        rivals: What each changes in the config, by its name.
        changes: What stands in place of the config's values for all of them.
        place: Further changes, such as where the data lie; results do not hang on these.

    Raises:
        ValueError: If what is written under this name is of another config or other changes.
    """
    recipe = yaml.safe_load(Path(config).read_text())
    for change in ({"trainer": QUIET_TRAINER}, changes, place or {}):
        recipe = merged(recipe, change)
    budget = {"config": str(config), "changes": changes}
    for seed in range(number):  # The rivals in turn, so that what is cut can be compared.
        for rival, change in rivals.items():
            rows = _written(name, budget)
            if not any(row["rival"] == rival and row["seed"] == seed for row in rows):
                row = {"rival": rival, "seed": seed, **_run(merged(recipe, change), seed), **budget}
                save(name, torch.device("cpu"), [*_written(name, budget), row])
                print(rival, seed, row["metrics"], row["seconds"], flush=True)
    return [row for row in _written(name, budget) if row["rival"] in rivals]


def merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A nested dictionary with changed values."""
    both = copy.deepcopy(config)
    for key, value in changes.items():
        inner = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merged(both[key], value) if inner else value
    return both


def report(rows: list[dict[str, Any]], title: str, metrics: list[str] | None = None) -> list[str]:
    """The rows as a Markdown table: means, with the standard deviation over the runs.

    Args:
        rows: As :func:`trainings` returns them.
        title: What the rivals are.
        metrics: Names of the columns, such as acc; by default all that the model logs.
    """
    names = [name for name in rows[0]["metrics"] if not name.endswith("loss")]
    if metrics is not None:
        names = [f"test_{name}" for name in metrics]
    titles = [name.removeprefix("test_") for name in names]
    timed = all("processor_seconds" in row for row in rows)  # Results of earlier days are not.
    columns = [title, *titles, "runs", "parameters"]
    columns += ["processor seconds a training"] if timed else []
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for rival in dict.fromkeys(row["rival"] for row in rows):
        runs = [row for row in rows if row["rival"] == rival]
        cells = [spread([run["metrics"][name] for run in runs], 3) for name in names]
        cells += [str(len(runs)), _counted(runs[0]["parameters"])]
        cells += [f"{mean(run['processor_seconds'] for run in runs):.0f}"] if timed else []
        lines.append(f"| {rival} | {' | '.join(cells)} |")
    return lines


def _counted(parameters: float) -> str:
    return f"{parameters / 1e6:.1f} M" if parameters >= 1e6 else f"{parameters / 1e3:.0f} k"


def _written(name: str, budget: dict[str, Any]) -> list[dict[str, Any]]:
    rows = saved(name)
    for row in rows:
        for key, value in budget.items():
            if row[key] != value:
                raise ValueError(f"the results {name!r} have {key} {row[key]} (got {value})")
    return rows


def made(recipe: dict[str, Any], seed: int) -> CLI:
    """What a config makes with a seed, and with the split or fold of this number, if it has any."""
    run: Any = copy.deepcopy(recipe)
    run["seed_everything"] = seed
    split = run["data"]["init_args"].get("split") or {}
    split.update({key: seed for key in ("seed", "fold") if key in split})
    # What is run comes from the config alone.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter is intended")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    return CLI(run, run=False)


def _run(recipe: dict[str, Any], seed: int) -> dict[str, Any]:
    cli = made(recipe, seed)
    start, busy = time.perf_counter(), time.process_time()
    cli.trainer.fit(cli.model, cli.datamodule)
    seconds = {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - busy,  # Whatever else the machine does.
    }
    (metrics,) = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    parameters = sum(p.numel() for p in cli.model.parameters())
    return {"metrics": metrics, "parameters": parameters, **seconds}
