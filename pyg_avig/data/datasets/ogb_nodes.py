"""Graphs of nodes of the Open Graph Benchmark, through its own package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch_geometric.data import InMemoryDataset

from pyg_avig.data.loading.saved_graphs import PARTS_OF_DATA
from pyg_avig.errors import InputError


def ogb_nodes(
    name: str, root: str = "data", transform: Callable[..., Any] | None = None
) -> InMemoryDataset:
    """A data set for node property prediction with its published split.

    From `"Open Graph Benchmark: Datasets for Machine Learning on Graphs"
    <https://arxiv.org/abs/2005.00687>`_, whose package downloads and reads it. It is the package's
    ``PygNodePropPredDataset``; the package stores graphs that PyTorch has to be told to be safe.

    Args:
        name: Of the benchmark, such as ``ogbn-arxiv``.
        root: Where it is kept.
        transform: Applied to its one ``Data`` at each access.

    Raises:
        InputError: If the package is not installed, or knows no such data set.
    """
    try:
        from ogb.nodeproppred import PygNodePropPredDataset
    except ModuleNotFoundError as error:
        raise InputError(f"{name} needs {error.name}: pip install 'pyg_avig[ogb]'") from None
    with torch.serialization.safe_globals(PARTS_OF_DATA):
        try:
            return PygNodePropPredDataset(name, root, transform)
        except ValueError as error:
            raise InputError(
                f"expected a data set of OGB ({' '.join(str(error).split())})"
            ) from None
