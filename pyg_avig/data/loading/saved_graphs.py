"""Graphs in files that ``torch.save`` wrote, read without running code of theirs."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import EdgeStorage, GlobalStorage, NodeStorage

from pyg_avig.errors import InputError
from pyg_avig.files import local_file

PARTS_OF_DATA = [DataEdgeAttr, DataTensorAttr, EdgeStorage, GlobalStorage, NodeStorage]
"""Classes of PyG that a saved ``Data`` is made of, and PyTorch has to be told to be safe."""


def read_graphs(path: str | Path) -> list[Data]:
    """The ``Data`` in a file, or the several of a list.

    Args:
        path: The file, here or at an address that fsspec knows.

    Raises:
        InputError: If it is missing, broken, or holds anything else.
    """
    expected = f"{path}: expected a Data of PyG, or a list of them, as torch.save writes it"
    try:
        with local_file(path) as file, torch.serialization.safe_globals(PARTS_OF_DATA):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{expected} (there is no such file)") from None
    except Exception as error:  # Its reader raises whatever a foreign file makes it.
        other = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it holds {other[1]}" if other else "it cannot be read"
        raise InputError(f"{expected} ({reason})") from None
    graphs = list(content) if isinstance(content, (list, tuple)) else [content]
    for graph in graphs:
        if not isinstance(graph, Data):
            raise InputError(f"{expected} (it holds {type(graph).__name__})")
    return graphs
