"""Connectomes: regions of a brain are nodes, bundles of fibres are edges."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from pyg_avig.data.datasets.packages import default_root, python_package_file
from pyg_avig.errors import InputError
from pyg_avig.files import written_whole
from pyg_avig.graphs.constructors import positive

CLASSES = ("B6", "BTBR", "CAST", "DBA2")
NUM_REGIONS = 332


class MouseConnectomes(InMemoryDataset):
    """32 mouse brains of 4 strains, each a graph of 332 regions.

    From diffusion magnetic resonance imaging: `Wang et al. 2020, "Variability and heritability
    of mouse brain structure" <https://doi.org/10.1016/j.neuroimage.2020.117274>`_, in the package
    ``graspologic`` (MIT), which is not imported. Card: ``datasets/mouse_connectomes/README.md``.
    Node i is the same region in every mouse: 166 of the left hemisphere, then the same 166 of
    the right.

    Each ``Data`` has

    - ``x``: to each other region log(1 + weight), divided by its maximum in the mouse,
      (332, 332); all connections, kept as edges or not;
    - ``edge_index``, (2, E), the strongest connections, both ways and without loops, and
      ``edge_attr``, their log(1 + weight), (E, 1);
    - ``y``: the strain, (1,), an index into ``classes``;
    - ``mouse``: its number in the study, such as ``"54776"``.

    Args:
        root: Where the prepared data are kept; by default in the user's cache.
        transform: Applied to a ``Data`` at each access.
        pre_transform: Applied to each once, before it is kept.
        k: Keep a connection as an edge if it is among the ``k`` strongest of either end
            (of equals, those to regions of lower index); ``None`` keeps all.
        force_reload: Prepare the data anew.

    Attributes:
        classes: Names of the strains.

    Raises:
        InputError: If ``k`` is not positive, graspologic is not installed, or a file of it is
            broken.
    """

    def __init__(
        self,
        root: str | None = None,
        transform: Callable[..., Any] | None = None,
        pre_transform: Callable[..., Any] | None = None,
        k: int | None = 10,
        force_reload: bool = False,
    ) -> None:
        self.k = None if k is None else positive("k", k)
        self.classes = list(CLASSES)
        super().__init__(
            root or default_root("mouse_connectomes"),
            transform,
            pre_transform,
            force_reload=force_reload,
        )
        self.load(self.processed_paths[0])

    @property
    def processed_file_names(self) -> str:
        """A file for each ``k``."""
        return "all.pt" if self.k is None else f"top_{self.k}.pt"

    def process(self) -> None:
        """Prepare the graphs from graspologic's files."""
        folder = python_package_file("graspologic", "datasets/mice")
        graphs = []
        for mouse, strain in _read_participants(folder / "participants.csv"):
            weight = _read_weights(folder / "edgelists" / f"sub-{mouse}_ses-1_dti.edgelist")
            log_weight = torch.from_numpy(weight).log1p().float()
            source, target = _strongest(weight, self.k).nonzero()
            edge_index = torch.from_numpy(np.stack([source, target]))
            data = Data(
                x=log_weight / log_weight.max(),
                edge_index=edge_index,
                edge_attr=log_weight[edge_index[0], edge_index[1]].unsqueeze(1),
                y=torch.tensor([CLASSES.index(strain)]),
                mouse=mouse,
            )
            graphs.append(data if self.pre_transform is None else self.pre_transform(data))
        with written_whole(self.processed_paths[0]) as path:
            self.save(graphs, str(path))

    def split(self, fold: int = 0) -> dict[str, Tensor]:
        """Leave one mouse out: too few mice to spare any for validation.

        Args:
            fold: The mouse for the test, from 0 to 31.

        Returns:
            Indices of mice: ``train``, (31,), ``val``, (0,), and ``test``, (1,).

        Raises:
            InputError: If there is no such mouse.
        """
        if fold not in range(len(self)):
            raise InputError(f"expected a fold from 0 to {len(self) - 1} (got {fold})")
        mice = torch.arange(len(self))
        return {"train": mice[mice != fold], "val": mice[:0], "test": mice[mice == fold]}


def _strongest(weight: np.ndarray, k: int | None) -> np.ndarray:
    """Mask of the connections, (N, N), that are among the k strongest of either end."""
    strong = weight > 0
    if k is not None:
        # Stable, so that equals come in the order of their index.
        rank = np.argsort(np.argsort(-weight, axis=1, kind="stable"), axis=1)
        strong &= (rank < k) | (rank < k).T
    return strong


def _read_participants(path: Path) -> list[tuple[str, str]]:
    """Number and strain of each mouse."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(row["participant_id"], row["genotype"]) for row in csv.DictReader(file)]
    except (OSError, KeyError) as error:
        raise InputError(
            f"{path}: expected a table with the columns participant_id and genotype (got {error!r})"
        ) from None
    strains = {strain for _, strain in rows}
    if not rows or strains - set(CLASSES):
        raise InputError(f"{path}: expected mice of the strains {CLASSES} (got {strains})")
    return [(name.removeprefix("sub-"), strain) for name, strain in rows]


def _read_weights(path: Path) -> np.ndarray:
    """Symmetric weights (332, 332) from lines `region region weight`, each pair given once."""
    try:
        edges = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected lines of two regions and a weight ({error})") from None
    if edges.shape[1] != 3 or not np.isfinite(edges).all() or (edges[:, 2] < 0).any():
        raise InputError(
            f"{path}: expected lines of two regions and a weight of 0 or more "
            f"(got {edges.shape[1]} columns, from {edges.min(initial=0)} to "
            f"{edges.max(initial=0)})"
        )
    source, target = edges[:, :2].astype(int).T
    if min(source.min(), target.min()) < 0 or max(source.max(), target.max()) >= NUM_REGIONS:
        raise InputError(
            f"{path}: expected regions from 0 to {NUM_REGIONS - 1} "
            f"(got {edges[:, :2].min()} to {edges[:, :2].max()})"
        )
    weight = np.zeros((NUM_REGIONS, NUM_REGIONS))
    weight[source, target] = edges[:, 2]
    weight[target, source] = edges[:, 2]
    np.fill_diagonal(weight, 0)
    if not weight.any():
        raise InputError(f"{path}: expected a connection between two regions (got none)")
    return weight
