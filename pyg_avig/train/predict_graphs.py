"""Tables of predictions for graphs, their nodes or pairs of nodes, from a checkpoint."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.transforms import BaseTransform

from pyg_avig.data.loading.graph_data import GraphData
from pyg_avig.data.loading.image_trees import in_order
from pyg_avig.data.loading.own_graphs import read_molecules
from pyg_avig.data.loading.saved_graphs import read_graphs
from pyg_avig.data.loading.splits import SPLITS
from pyg_avig.errors import InputError
from pyg_avig.files import written_whole
from pyg_avig.train.config_data import Reading, data_of
from pyg_avig.train.graph_task import GraphTask
from pyg_avig.train.rate import say_rate
from pyg_avig.train.recipe import raised

Columns = dict[str, np.ndarray]
SAME_IN_DATA = ("level", "in_channels", "edge_dim", "pos_dim")


def predict_files(
    task: GraphTask, files: Sequence[str], out: str | Path, reading: Reading | None = None
) -> int:
    """Write what a task predicts of graphs in files: a line a graph, node or pair of nodes.

    The columns are ``file`` and ``graph``, the number in the file; ``smiles``, if all files are
    tables of molecules; ``node``, or ``source`` and ``target`` of ``edge_label_index``; then for
    classes ``class`` and ``probability_NAME`` of each, for several labels ``probability_NAME``, for
    numbers ``value_N`` in the unit of the targets. A file that cannot be read, or whose graphs are
    not as the model takes them, is named on standard error, and the others are still done; so are
    SMILES that rdkit cannot parse. At the end the predictions a second are printed there.

    Args:
        task: The task.
        files: Files of ``Data`` that ``torch.save`` wrote, behind the transforms of the training;
            folders of them, ``*.pt``; and with ``reading`` tables of molecules, ``*.csv``.
        out: The table, ``*.csv`` or ``*.parquet``; the latter needs pyarrow.
        reading: How a training on files of one's own read them; its transforms are applied here.

    Returns:
        The exit status: 0, or 1 if a file or molecule was left out.

    Raises:
        InputError: If the table is no such, or no file could be used.
    """
    write = _writer(out)
    tables: list[Columns] = []
    failed, start = 0, perf_counter()
    files = [file for path in files for file in _files_at(path)]
    named = all(map(_is_table, files))
    for path in files:
        errors: list[str] = []
        try:
            graphs, errors = _graphs_in(path, reading)
            tables += [
                {
                    **_filled(len(found), file=str(path), graph=n),
                    **(_filled(len(found), smiles=graph.get("smiles") or "") if named else {}),
                    **_places(graph, task.hparams["facts"]["level"]),
                    **_predictions(task, found),
                }
                for n, graph in graphs
                for found in [_outputs(task, graph, f"{path}, graph {n}")]
            ]
        except InputError as error:
            errors = [*errors, str(error)]
        if errors:
            print("\n".join(errors), file=sys.stderr)
        failed += len(errors)
    if not tables:
        raise InputError(f"expected graphs to predict (got none in {len(files)} files)")
    write(tables)
    _say_rate(tables, start)
    return 1 if failed else 0


def _files_at(path: str) -> list[str]:
    """The files of graphs in a folder; of anything else the path itself."""
    if not Path(path).is_dir():
        return [path]
    files = in_order(map(str, Path(path).rglob("*.pt")))
    if not files:
        raise InputError(f"{path}: expected files *.pt with Data of PyG (there are none)")
    return files


def _is_table(path: str) -> bool:
    return Path(path).suffix.lower() == ".csv"


def _graphs_in(path: str, reading: Reading | None) -> tuple[list[tuple[int, Data]], list[str]]:
    """The graphs of a file with their numbers; and an error for each that is none."""
    if not _is_table(path):
        found: Sequence[Data | InputError] = read_graphs(path)
    elif reading is None:
        raise InputError(
            f"{path}: expected the config of a training on own graphs, to read a table as it did "
            "(there is none beside the checkpoint); --config FILE names it"
        )
    else:
        found = read_molecules(path, reading.smiles)
    steps = reading.transform if reading else ()
    graphs = [
        (n, _transformed(graph, steps, f"{path}, graph {n}"))
        for n, graph in enumerate(found)
        if isinstance(graph, Data)
    ]
    broken = [(n, error) for n, error in enumerate(found) if isinstance(error, InputError)]
    return graphs, [f"{path}, graph {n}: {error}" for n, error in broken]


def _transformed(graph: Data, steps: Sequence[BaseTransform], name: str) -> Data:
    for step in steps:
        try:
            graph = step(graph)
        except Exception as error:  # Whatever it finds lacking in a graph that may be anything.
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(
                f"{name}: expected a graph that {type(step).__name__} takes (got {reason})"
            ) from None
    return graph


def predict_data(
    task: GraphTask, config: str | Path, out: str | Path, split: str | None = None
) -> None:
    """Write what a task predicts of a data set, as :func:`predict_files` does.

    In place of ``file`` there is ``split``, and ``graph`` is the number in the data set. Batches
    are those of the config, with all neighbours where it samples them.

    Args:
        task: The task.
        config: A config of ``pyg-avig fit`` whose data are :class:`GraphData`.
        out: The table.
        split: ``train``, ``val`` or ``test``; ``None`` for all.

    Raises:
        InputError: If the config has no such data, or others than the task takes.
    """
    if split is not None and split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)} (got {split!r})")
    write = _writer(out)
    data = data_of(config, GraphData)
    theirs, start = task.hparams["facts"], perf_counter()
    for name in SAME_IN_DATA:
        if data.facts[name] != theirs[name]:
            raise InputError(
                f"{config}: expected data with {name} {theirs[name]!r}, as the checkpoint's (got "
                f"{data.facts[name]!r})"
            )
    tables = [
        {**_filled(len(found), split=name), **places, **_predictions(task, found)}
        for name in (SPLITS if split is None else (split,))
        for places, found in _of_batches(task, data, name)
    ]
    if not tables:
        raise InputError(f"{config}: expected graphs to predict (got none in {split})")
    write(tables)
    _say_rate(tables, start)


def _say_rate(tables: list[Columns], start: float) -> None:
    say_rate(sum(len(next(iter(table.values()))) for table in tables), "predictions", start)


def _of_batches(task: GraphTask, data: GraphData, split: str) -> Iterator[tuple[Columns, Tensor]]:
    """What is predicted in each batch of a split, and of what."""
    numbers = np.array(data.parts[split][1])
    for batch in data.loader(split):
        found = _inferred(task, batch)
        if batch.get("batch_size") is not None:  # Seed nodes and their neighbours.
            found = found[: batch.batch_size]
            graphs, places = numbers.repeat(len(found)), {"node": batch.n_id[: len(found)].numpy()}
        else:
            graphs, numbers = numbers[: batch.num_graphs], numbers[batch.num_graphs :]
            of_rows, places = _rows(batch, data.level)
            mask = batch.get(f"{split}_mask") if data.level == "node" else None
            kept = slice(None) if mask is None else mask.numpy()
            graphs, found = graphs[of_rows][kept], found if mask is None else found[mask]
            places = {name: column[kept] for name, column in places.items()}
        yield {"graph": graphs, **places}, found


def _rows(batch: Batch, level: str) -> tuple[np.ndarray, Columns]:
    """Which graph of a batch each output is of, and where in it."""
    if level == "graph":
        return np.arange(batch.num_graphs), {}
    places = _places(batch, level)
    first = next(iter(places.values()))
    of_rows = batch.batch.numpy()[first]
    starts = batch.ptr.numpy()[of_rows]
    return of_rows, {name: column - starts for name, column in places.items()}


def _places(graph: Data, level: str) -> Columns:
    if level == "node":
        return {"node": np.arange(graph.num_nodes or 0)}
    if level == "edge":
        return dict(zip(("source", "target"), graph.edge_label_index.numpy(), strict=True))
    return {}


def _filled(number: int, **values: Any) -> Columns:
    return {name: np.full(number, value) for name, value in values.items()}


@torch.inference_mode()
def _inferred(task: GraphTask, batch: Data) -> Tensor:
    return task(batch)


def _outputs(task: GraphTask, graph: Data, name: str) -> Tensor:
    """What a model gives for a graph that may be anything."""
    try:
        _check(graph, task)
        return _inferred(task, graph)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _check(graph: Data, task: GraphTask) -> None:
    """Refuse a graph on which the model would fail."""
    width, x = task.hparams["facts"]["in_channels"], graph.get("x")
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.shape[1:] != (width,):
        raise InputError(
            f"expected node features x of shape (N, {width}) and a floating dtype (got {_kind(x)})"
        )
    for field in ("edge_index", "edge_label_index"):
        edges = graph.get(field)
        if edges is None:
            continue
        integral = isinstance(edges, Tensor) and not edges.is_floating_point()
        if not integral or edges.dim() != 2 or len(edges) != 2:
            raise InputError(f"expected {field} as pairs of nodes (2, E) (got {_kind(edges)})")
        if edges.numel() and not 0 <= edges.min() <= edges.max() < len(x):
            raise InputError(
                f"expected {field} in 0 to {len(x) - 1} (got {edges.min()} to {edges.max()})"
            )
    edge_dim, edge_attr = task.model.edge_dim, graph.get("edge_attr")
    if edge_dim is not None and isinstance(edge_attr, Tensor):
        features = edge_attr.view(-1, 1) if edge_attr.dim() == 1 else edge_attr
        if features.shape != (graph.num_edges, edge_dim):
            raise InputError(
                f"expected edge features edge_attr of shape ({graph.num_edges}, {edge_dim}) (got "
                f"{tuple(edge_attr.shape)})"
            )


def _kind(value: Any) -> str:
    """What came, in a few words."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)}, {value.dtype}"
    return type(value).__name__


def _predictions(task: GraphTask, out: Tensor) -> Columns:
    """The columns of outputs (M, O)."""
    facts = task.hparams["facts"]
    names = facts["classes"] or range(out.size(1))
    if task.task == "regression":
        return {f"value_{n}": column.numpy() for n, column in enumerate(out.unbind(1))}
    out = raised(out)
    probability = out.softmax(-1) if task.task == "multiclass" else out.sigmoid()
    columns = {
        f"probability_{name}": column.numpy()
        for name, column in zip(names, probability.unbind(1), strict=True)
    }
    if task.task == "multiclass":
        columns = {"class": np.array(list(map(str, names)))[out.argmax(-1).numpy()], **columns}
    return columns


def _writer(out: str | Path) -> Any:
    """What writes a table to a file, by its suffix."""
    suffix = Path(out).suffix
    if suffix == ".csv":
        return lambda tables: _write_csv(tables, out)
    if suffix != ".parquet":
        raise InputError(f"expected out as a file *.csv or *.parquet (got {str(out)!r})")
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise InputError(f"a table *.parquet needs {error.name}: pip install pyarrow") from None

    def write(tables: list[Columns]) -> None:
        with written_whole(out) as partial:
            pq.write_table(pa.concat_tables(map(pa.table, tables)), partial)

    return write


def _write_csv(tables: list[Columns], out: str | Path) -> None:
    with written_whole(out) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(tables[0])
        for table in tables:
            columns = [
                [f"{value:.6g}" for value in column]
                if column.dtype.kind == "f"
                else column.tolist()
                for column in table.values()
            ]
            writer.writerows(zip(*columns, strict=True))
