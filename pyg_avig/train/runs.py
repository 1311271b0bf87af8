"""The folders of runs: finding one to go on with, and what its metrics were."""

from __future__ import annotations

import csv
import io
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pyg_avig.errors import InputError
from pyg_avig.files import place, written_whole


class Run(NamedTuple):
    """The folder of a run, ``FOLDER/NAME/VERSION``, here or at an address."""

    path: str

    def checkpoint(self, name: str) -> str:
        """Where its ``best`` or ``last`` checkpoint lies."""
        return f"{self.path}/checkpoints/{name}.ckpt"

    @property
    def config(self) -> str:
        """Where its config lies."""
        return f"{self.path}/config.yaml"

    def has(self, *files: str) -> bool:
        """Whether all of these files are there."""
        return all(place(file)[0].exists(place(file)[1]) for file in files)

    def as_logger(self) -> dict[str, str]:
        """The arguments of a logger that writes into this folder."""
        short = "://" not in self.path and len(Path(self.path).parts) < 3
        path = str(Path(self.path).absolute()) if short else self.path
        folder, name, version = path.rsplit("/", 2)
        return {"save_dir": folder, "name": name, "version": version}


def run_to_resume(path: str) -> Run:
    """The run in a folder.

    Raises:
        InputError: If it has no ``config.yaml`` or no ``last.ckpt``.
    """
    run = Run(path.rstrip("/"))
    for file in (run.config, run.checkpoint("last")):
        if not run.has(file):
            raise InputError(f"{path}: expected the folder of a run (there is no {file})")
    return run


def newest_run(folder: str, checkpoint: str) -> Run:
    """Of the runs in a folder the one whose checkpoint of this name was written last.

    Raises:
        InputError: If none has such a checkpoint.
    """
    system, name = place(folder)
    found = []
    for path in system.ls(name) if system.isdir(name) else ():
        path = path["name"] if isinstance(path, dict) else path
        run = Run(f"{folder}/{PurePosixPath(path).name}")
        if run.has(run.checkpoint(checkpoint)):
            found.append((system.modified(place(run.checkpoint(checkpoint))[1]), run))
    if not found:
        raise InputError(
            f"{folder}: expected a run with checkpoints/{checkpoint}.ckpt (there is none)"
        )
    return max(found)[1]


def metrics_until(folder: str, step: int) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns of a run's ``metrics.csv``, and its rows of the first updates; none if none is
    there.
    """
    system, name = place(f"{folder}/metrics.csv")
    if not system.isfile(name):
        return [], []
    with system.open(name, "r", newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if row.get("step") and int(row["step"]) < step]
    return list(reader.fieldnames or ()), rows


def write_metrics(folder: str, columns: list[str], rows: list[dict[str, Any]]) -> None:
    """Write ``metrics.csv`` anew."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    with written_whole(f"{folder}/metrics.csv") as partial:
        partial.write_text(text.getvalue(), newline="")
