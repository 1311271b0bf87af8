"""Backbones side by side in the same detector or segmenter, from scratch, on given data."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import yaml

from benchmarks.recipes import QUIET_TRAINER
from benchmarks.timing import save, saved, spread
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
    name: str,
    config: str | Path,
    number: int,
    rivals: list[str],
    changes: dict[str, Any],
    root: str | None = None,
) -> list[dict[str, Any]]:
    """Train and test each rival with each seed; a row for each run.

    Tested is the model after the last epoch, so that nothing is chosen by the test. A run is
    written as it ends; those that are written already are not run again, so that what was cut goes
    on, and several processes may share the rivals.

    Args:
        name: Name of the results.
        config: A config for `pyg-avig fit` with a Detector or a Segmenter.
        number: Number of seeds.
        rivals: Keys of ``RIVALS``, or names of timm.
        changes: What stands in place of the config's values.
        root: Folder of the data, in place of the config's; results do not hang on it.

    Raises:
        ValueError: If what is written under this name is of another config or other changes.
    """
    recipe = merged(yaml.safe_load(Path(config).read_text()), {"trainer": QUIET_TRAINER})
    recipe = merged(recipe, changes)
    if root is not None:
        recipe = merged(recipe, {"data": {"init_args": {"root": root}}})
    budget = {"config": str(config), "changes": changes}
    for seed in range(number):  # The rivals in turn, so that what is cut can be compared.
        for rival in rivals:
            rows = _written(name, budget)
            if not any(row["rival"] == rival and row["seed"] == seed for row in rows):
                row = {"rival": rival, "seed": seed, **_run(recipe, rival, seed), **budget}
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


def report(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as a Markdown table: means, with the standard deviation over the seeds."""
    names = [name for name in rows[0]["metrics"] if not name.endswith("loss")]
    titles = [name.removeprefix("test_") for name in names]
    lines = [
        f"| backbone | {' | '.join(titles)} | seeds | parameters | processor seconds a training |",
        "|---" * (len(names) + 4) + "|",
    ]
    for rival in dict.fromkeys(row["rival"] for row in rows):
        runs = [row for row in rows if row["rival"] == rival]
        cells = [spread([run["metrics"][name] for run in runs], 3) for name in names]
        seconds = mean(run["processor_seconds"] for run in runs)
        lines.append(
            f"| {rival} | {' | '.join(cells)} | {len(runs)} | "
            f"{runs[0]['parameters'] / 1e6:.1f} M | {seconds:.0f} |"
        )
    return lines


def _written(name: str, budget: dict[str, Any]) -> list[dict[str, Any]]:
    rows = saved(name)
    for row in rows:
        for key, value in budget.items():
            if row[key] != value:
                raise ValueError(f"the results {name!r} have {key} {row[key]} (got {value})")
    return rows


def _run(recipe: dict[str, Any], rival: str, seed: int) -> dict[str, Any]:
    name, model_args = RIVALS.get(rival, (rival, None))
    run: Any = copy.deepcopy(recipe)
    run["seed_everything"] = seed
    run["model"]["init_args"] |= {"name": name, "model_args": model_args}
    cli = CLI(run, run=False)
    start, busy = time.perf_counter(), time.process_time()
    cli.trainer.fit(cli.model, cli.datamodule)
    seconds = {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - busy,  # Whatever else the machine does.
    }
    (metrics,) = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    parameters = sum(p.numel() for p in cli.model.parameters())
    return {"metrics": metrics, "parameters": parameters, **seconds}
