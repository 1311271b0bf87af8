"""Graphs of one's own, from files of ``Data`` or a table of molecules, with defaults for few."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.transforms import BaseTransform

from pyg_avig.data.datasets.molecules import molecule_graph
from pyg_avig.data.loading.graph_data import GraphData
from pyg_avig.data.loading.image_trees import in_order
from pyg_avig.data.loading.saved_graphs import read_graphs
from pyg_avig.errors import InputError

_log = logging.getLogger(__name__)
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MOST_CLASSES = 20  # Whole numbers from 0 to fewer than these are taken for classes.
_SEEN = 30_000  # Graphs that a training sees in all, unless it is told.


class OwnGraphs(GraphData):
    """Graphs of one's own: a folder of files ``*.pt``, one such file, or a table of molecules.

    A file holds a ``Data`` of PyG, or a list of them, as ``torch.save`` writes it. In folders
    ``train``, ``val`` and ``test`` they are for that; masks of nodes are followed; else a tenth
    each is drawn for validation and test. A table ``*.csv`` has a column of SMILES, which
    :func:`~pyg_avig.data.molecule_graph` reads, and one or more of targets.

    What is learned follows the labels: whole numbers and words are classes, several columns of 0
    and 1 labels of which many may hold, and all else numbers to be estimated; an empty cell of
    those was not measured.

    Args:
        root: The folder, file or table.
        task: ``multiclass``, ``multilabel`` or ``regression``; by default as the labels are.
        smiles: The column of a table that has SMILES.
        targets: Those that have targets; by default all others.
        split: ``seed`` of what is drawn; see :class:`GraphData`.
        transform: What is done to each graph.
        augment: What is done before that in training.
        batch_size: Graphs that one update sees; by default a tenth of them, from 8 to 64.
        num_workers: Worker processes a loader.

    Raises:
        InputError: If there are no such graphs, or an argument is none of these.
    """

    def __init__(
        self,
        root: str,
        task: str | None = None,
        smiles: str = "smiles",
        targets: list[str] | None = None,
        split: dict[str, Any] | None = None,
        transform: list[BaseTransform] | None = None,
        augment: list[BaseTransform] | None = None,
        batch_size: int | None = None,
        num_workers: int = 0,
    ) -> None:
        path = Path(root)
        if not path.exists():
            raise InputError(
                f"expected data.root as a folder of *.pt, a file *.pt or a table *.csv (there is "
                f"nothing at {root!r})"
            )
        if path.suffix.lower() == ".csv":
            dataset, level = _of_table(path, smiles, targets), "graph"
        else:
            dataset = _of_files(path)
            level = _level_of(root, [dataset[n] for n in range(len(dataset))])
        if task is None:
            task = dataset.task or _task_of(torch.cat([_rows(g.y) for g in dataset]))
            _log.info("%s: %s", root, task)
        super().__init__(
            dataset,
            split=split,
            level=level,
            task=task,
            transform=transform,
            augment=augment,
            batch_size=min(max(len(dataset) // 10, 8), 64) if batch_size is None else batch_size,
            num_workers=num_workers,
        )

    @property
    def suggested_epochs(self) -> int:
        """Epochs for this many graphs: so that about 30,000 are seen, from 20 epochs to 200."""
        return min(max(round(_SEEN / max(len(self.parts["train"][1]), 1)), 20), 200)


class GraphList(InMemoryDataset):
    """Graphs in memory as a data set of PyG.

    Args:
        graphs: The graphs, all with the same fields.
        classes: The names of their classes or targets, if they have any.
        parts: The indices of each split, if they are known.
        task: What they are for, if that is known.
    """

    def __init__(
        self,
        graphs: Sequence[Data],
        classes: Sequence[str] | None = None,
        parts: dict[str, Tensor] | None = None,
        task: str | None = None,
    ) -> None:
        super().__init__()
        fields = set(graphs[0].keys())
        for n, graph in enumerate(graphs):
            if set(graph.keys()) != fields:
                raise InputError(
                    f"expected graphs with the same fields (got {sorted(fields)} in the first, "
                    f"{sorted(graph.keys())} in graph {n})"
                )
        try:
            self._data, self.slices = self.collate(list(graphs))
        except (RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"expected graphs with fields of the same sizes ({reason})") from None
        self.task = task
        if classes is not None:
            self.classes = list(classes)
        if parts is not None:
            self.split_idx = parts


def _of_files(path: Path) -> GraphList:
    """The graphs of a file, or of the files in a folder and its folders."""
    files = [path]
    if path.is_dir():
        files = [Path(file) for file in in_order(map(str, path.rglob("*.pt")))]
    graphs: list[Data] = []
    places: dict[str, list[int]] = {}
    for file in files:
        found = read_graphs(file)
        top = file.relative_to(path).parts[0].lower() if path.is_dir() else ""
        places.setdefault(_SPLITS.get(top, ""), []).extend(
            range(len(graphs), len(graphs) + len(found))
        )
        graphs += found
    if not graphs:
        raise InputError(f"{path}: expected files *.pt with Data of PyG (there are none)")
    if any(graph.get("y") is None for graph in graphs):
        raise InputError(f"{path}: expected graphs with labels y (got some without)")
    split = None
    if "train" in places and "" not in places:
        split = {name: torch.tensor(numbers) for name, numbers in places.items()}
    return GraphList(graphs, parts=split)


def _rows(y: Tensor) -> Tensor:
    """Labels as rows, (number, outputs)."""
    return y.reshape(len(y), -1) if y.dim() else y.reshape(1, 1)


def _level_of(root: str, graphs: Sequence[Data]) -> str:
    """What is labelled, by the number of labels."""
    numbers = [len(_rows(graph.y)) for graph in graphs]
    if all(number == 1 for number in numbers):
        return "graph"
    if all(number == graph.num_nodes for number, graph in zip(numbers, graphs, strict=True)):
        return "node"
    raise InputError(
        f"{root}: expected labels y of shape (1,) or (1, O) for a graph, or (N,) for its N nodes "
        f"(got {tuple(graphs[0].y.shape)} for {graphs[0].num_nodes} nodes)"
    )


def _task_of(labels: Tensor) -> str:
    """What labels (number, outputs) are for."""
    known = labels[~labels.isnan()] if labels.is_floating_point() else labels
    if labels.size(1) > 1:
        return "multilabel" if ((known == 0) | (known == 1)).all() else "regression"
    whole = not labels.isnan().any() and bool((labels == labels.round()).all())
    few = whole and labels.min() == 0 and labels.max() < _MOST_CLASSES
    return "multiclass" if few or not labels.is_floating_point() else "regression"


def _of_table(path: Path, smiles: str, targets: list[str] | None) -> GraphList:
    """The molecules of a table."""
    rows, columns = _read_table(path, smiles, *(targets or ()))
    names = targets or [name for name in columns if name != smiles]
    if not names:
        raise InputError(f"{path}: expected a column of targets beside {smiles!r} (got none)")
    classes, values = _labels_of(path, [[row[name].strip() for name in names] for row in rows])
    task = "multiclass" if classes is not None else _task_of(values)
    if task == "multilabel":
        classes = names
    graphs, broken = [], []
    for row, value in zip(rows, values, strict=True):
        graph = _molecule(row[smiles])
        if isinstance(graph, InputError):
            broken.append(row[smiles])
            continue
        graph.y = value.long() if task == "multiclass" else value.view(1, -1).float()
        graphs.append(graph)
    if 10 * len(broken) > len(rows) or not graphs:
        raise InputError(
            f"{path}: expected SMILES that rdkit can parse in {smiles!r} (got {len(broken)} others "
            f"among {len(rows)}: {', '.join(map(repr, broken[:3]))})"
        )
    if broken:
        _log.warning("%s: skipped %d SMILES: %s", path, len(broken), ", ".join(broken[:5]))
    return GraphList(graphs, classes, task=task)


def read_molecules(path: str | Path, smiles: str = "smiles") -> list[Data | InputError]:
    """The molecules of a table, as :class:`OwnGraphs` reads them, without targets.

    Args:
        path: The table ``*.csv``.
        smiles: The column that has SMILES.

    Returns:
        One a row: its graph, or the error of SMILES that rdkit cannot parse.

    Raises:
        InputError: If there is no such table or column, or rdkit is not installed.
    """
    rows, _ = _read_table(Path(path), smiles)
    return [_molecule(row[smiles]) for row in rows]


def _molecule(smiles: str) -> Data | InputError:
    try:
        return molecule_graph(smiles.strip())
    except InputError as error:
        if "rdkit" in str(error):  # It is not installed.
            raise
        return error


def _read_table(path: Path, *needed: str) -> tuple[list[dict[str, str]], list[str]]:
    """The rows of a table, and its columns, with those that are needed."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            rows, columns = list(reader), list(reader.fieldnames or ())
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a table of comma-separated text ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: expected a table of molecules ({error.strerror})") from None
    for name in needed if rows else ():
        if name not in columns:
            raise InputError(f"{path}: expected a column {name!r} (got {', '.join(columns)})")
    if not rows:
        raise InputError(f"{path}: expected a table with a row a molecule (got none)")
    for line, row in enumerate(rows, 2):
        if "" in row:
            raise InputError(f"{path}, line {line}: expected {len(columns)} cells (got more)")
    return rows, columns


def _labels_of(path: Path, cells: list[list[str]]) -> tuple[list[str] | None, Tensor]:
    """The names of the classes, if cells are words, and labels (number, outputs)."""
    numbers = [[_number(cell) for cell in row] for row in cells]
    if all(number is not None for row in numbers for number in row):
        return None, torch.tensor(numbers, dtype=torch.float)
    if len(cells[0]) > 1:
        line, cell = next(
            (n, cell) for n, row in enumerate(cells, 2) for cell in row if _number(cell) is None
        )
        raise InputError(
            f"{path}, line {line}: expected numbers in several columns of targets (got {cell!r}); "
            "--data.targets '[NAME]' names those that are meant"
        )
    words = [row[0] for row in cells]
    if "" in words:
        raise InputError(f"{path}, line {words.index('') + 2}: expected a class (got nothing)")
    classes = in_order(set(words))
    if len(classes) == len(words):
        raise InputError(f"{path}: expected several molecules of a class (got one of each)")
    return classes, torch.tensor([[float(classes.index(word))] for word in words])


def _number(cell: str) -> float | None:
    """What a cell says: nothing is NaN, and a word ``None``."""
    if not cell:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return None
