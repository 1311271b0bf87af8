"""Minesweeper: cells of a board are nodes, those that touch are joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from pyg_avig.data.datasets.packages import default_root
from pyg_avig.errors import InputError
from pyg_avig.files import written_whole
from pyg_avig.graphs import NeighborhoodEdges

SPLITS = 10
COUNTS = 5  # So many neighbouring mines, or more, share a column.


class Minesweeper(InMemoryDataset):
    """A board on which mines are to be found from the numbers of mines around each cell.

    Generated here after `"A critical look at the evaluation of GNNs under heterophily: Are we
    really making progress?" <https://arxiv.org/abs/2302.11640>`_; the board that its authors
    publish is in :class:`torch_geometric.datasets.HeterophilousGraphDataset`. Card:
    ``datasets/minesweeper/README.md``.

    Its one ``Data`` has

    - ``x``: one-hot columns, (N, 7): the number is unknown; it is 0, 1, 2, 3, 4; 5 or more;
    - ``edge_index``: each cell and its eight neighbours, fewer at the border, (2, E);
    - ``y``: whether a cell is a mine, (N,);
    - ``train_mask``, ``val_mask``, ``test_mask``: ten random splits, (N, 10): of the mines and of
      the other cells 50, 25 and 25 in a hundred.

    Args:
        root: Where the prepared data are kept; by default in the user's cache.
        transform: Applied to the ``Data`` at each access.
        pre_transform: Applied to it once, before it is kept.
        size: Cells a side, or (rows, columns).
        mines: Share of the cells that are mines.
        unknown: Share of the cells, mines or not, whose number is not shown.
        seed: Draws mines, unknown cells and splits.
        force_reload: Prepare the data anew.

    Attributes:
        classes: Names of the classes.

    Raises:
        InputError: If the board has fewer than four mines, or than four other cells.
    """

    def __init__(
        self,
        root: str | None = None,
        transform: Callable[..., Any] | None = None,
        pre_transform: Callable[..., Any] | None = None,
        size: int | tuple[int, int] = 100,
        mines: float = 0.2,
        unknown: float = 0.5,
        seed: int = 0,
        force_reload: bool = False,
    ) -> None:
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if len(self.size) != 2 or not all(isinstance(s, int) and s > 0 for s in self.size):
            raise InputError(f"size must be a positive int or two (got {size!r})")
        if not 0 <= mines <= 1 or not 0 <= unknown <= 1:
            raise InputError(
                f"mines and unknown must be shares in [0, 1] (got {mines} and {unknown})"
            )
        cells = self.size[0] * self.size[1]
        if not 4 <= round(mines * cells) <= cells - 4:
            raise InputError(
                f"expected at least 4 mines and 4 other cells, for the splits (got "
                f"{round(mines * cells)} mines on {cells} cells)"
            )
        self.mines = mines
        self.unknown = unknown
        self.seed = seed
        self.classes = ["no mine", "mine"]
        super().__init__(
            root or default_root("minesweeper"),
            transform,
            pre_transform,
            force_reload=force_reload,
        )
        self.load(self.processed_paths[0])

    @property
    def processed_file_names(self) -> str:
        """One file for each kind of board."""
        rows, columns = self.size
        return f"{rows}x{columns}_mines{self.mines}_unknown{self.unknown}_seed{self.seed}.pt"

    def process(self) -> None:
        """Draw the board."""
        generator = torch.Generator().manual_seed(self.seed)
        cells = self.size[0] * self.size[1]
        y = _chosen(cells, self.mines, generator).long()
        unknown = _chosen(cells, self.unknown, generator)
        edge_index = NeighborhoodEdges(3).graph(Data(lattice_size=self.size))
        source, target = edge_index
        number = torch.zeros_like(y).index_add(0, target, y[source]).clamp(max=COUNTS)
        x = F.one_hot((number + 1).masked_fill(unknown, 0), COUNTS + 2).float()
        masks = torch.stack([_split(y, generator) for _ in range(SPLITS)], 1)
        data = Data(x=x, edge_index=edge_index, y=y)
        for part, name in enumerate(("train_mask", "val_mask", "test_mask")):
            data[name] = masks == part
        if self.pre_transform is not None:
            data = self.pre_transform(data)
        with written_whole(self.processed_paths[0]) as path:
            self.save([data], str(path))


def _chosen(number: int, share: float, generator: torch.Generator) -> Tensor:
    """Which of so many are drawn, (number,): exactly the share of them."""
    chosen = torch.zeros(number, dtype=torch.bool)
    chosen[torch.randperm(number, generator=generator)[: round(share * number)]] = True
    return chosen


def _split(y: Tensor, generator: torch.Generator) -> Tensor:
    """The part of each cell, (N,): 0, 1 and 2 for half, a quarter and a quarter of each class."""
    part = torch.zeros_like(y)
    for label in (0, 1):
        cells = (y == label).nonzero().view(-1)
        cells = cells[torch.randperm(len(cells), generator=generator)]
        train, val = round(0.5 * len(cells)), round(0.25 * len(cells))
        part[cells[train : train + val]] = 1
        part[cells[train + val :]] = 2
    return part
