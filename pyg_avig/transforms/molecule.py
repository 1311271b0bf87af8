"""Atoms and bonds in categories, as columns."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform
from torch_geometric.utils.smiles import e_map, x_map

from pyg_avig.errors import InputError


@functional_transform("one_hot_molecule")
class OneHotMolecule(BaseTransform):
    """Make one column of each value of a molecule's categorical features.

    Takes a ``Data`` with ``x`` (N, 9) and ``edge_attr`` (E, 3), the categories of
    :func:`torch_geometric.utils.from_smiles`, as in PyG's ``MoleculeNet`` and ``LRGBDataset``.
    Gives ``x`` (N, 177) and ``edge_attr`` (E, 30), floats, with a column for every value of PyG's
    vocabularies, so that any two molecules have the same ones.

    Raises:
        InputError: If there are other columns, or categories that the vocabularies lack.
    """

    def forward(self, data: Data) -> Data:
        """Transform one molecule, or a batch."""
        data.x = _one_hot("x", data.x, x_map)
        data.edge_attr = _one_hot("edge_attr", data.edge_attr, e_map)
        return data


def _one_hot(name: str, values: Tensor | None, vocabularies: dict[str, list[Any]]) -> Tensor:
    if values is None or values.dim() != 2 or values.size(1) != len(vocabularies):
        found = None if values is None else tuple(values.shape)
        raise InputError(f"expected {name} with {len(vocabularies)} columns (got {found})")
    columns = []
    for column, (feature, words) in zip(values.unbind(1), vocabularies.items(), strict=True):
        if len(column) and not 0 <= int(column.min()) <= int(column.max()) < len(words):
            raise InputError(
                f"expected {feature} in {name} below {len(words)} (got {int(column.max())})"
            )
        columns.append(F.one_hot(column.long(), len(words)))
    return torch.cat(columns, 1).float()
