"""Cells as nodes of a graph of their nearest neighbours in gene expression."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.utils import is_undirected

from pyg_avig.data.datasets.packages import default_root, python_package_file
from pyg_avig.errors import InputError
from pyg_avig.files import written_whole


class PBMC68k(InMemoryDataset):
    """700 blood cells in one graph, to be told apart into 10 types.

    A reduced part of the "fresh 68k PBMCs (donor A)" of 10x Genomics, `Zheng et al. 2017
    <https://doi.org/10.1038/ncomms14049>`_, from the package ``scanpy`` (BSD-3-Clause), which is
    not imported. Card: ``datasets/pbmc68k/README.md``. Expression, principal components and
    neighbours were computed by scanpy's authors over all cells, so learning is transductive.

    Its one ``Data`` has

    - ``x``: expression, (700, 765), each gene scaled to mean 0 and variance 1 before the
      cells were subsampled;
    - ``pca``: principal components of expression, (700, 50);
    - ``edge_index``, (2, 9992), and ``edge_weight``, (9992,), in (0, 1]: UMAP's
      connectivities of 10 nearest neighbours, symmetric and without loops;
    - ``y``: the type, (700,), an index into ``classes``.

    Args:
        root: Where the prepared data are kept; by default in the user's cache.
        transform: Applied to the ``Data`` at each access.
        pre_transform: Applied to it once, before it is kept.
        force_reload: Prepare the data anew.

    Attributes:
        classes: Names of the cell types.
        gene_names: Names of the columns of ``x``.

    Raises:
        InputError: If scanpy or h5py is not installed, or scanpy's file is broken.
    """

    def __init__(
        self,
        root: str | None = None,
        transform: Callable[..., Any] | None = None,
        pre_transform: Callable[..., Any] | None = None,
        force_reload: bool = False,
    ) -> None:
        super().__init__(
            root or default_root("pbmc68k"), transform, pre_transform, force_reload=force_reload
        )
        self.load(self.processed_paths[0])
        names = torch.load(self.processed_paths[1])
        self.classes: list[str] = names["classes"]
        self.gene_names: list[str] = names["gene_names"]

    @property
    def processed_file_names(self) -> list[str]:
        """The graph, and the names of classes and genes."""
        return ["data.pt", "names.pt"]

    def process(self) -> None:
        """Prepare the graph from scanpy's file."""
        data, names = _read(python_package_file("scanpy", "datasets/10x_pbmc68k_reduced.h5ad"))
        if self.pre_transform is not None:
            data = self.pre_transform(data)
        graph_path, names_path = self.processed_paths
        with written_whole(graph_path) as path:
            self.save([data], str(path))
        with written_whole(names_path) as path:
            torch.save(names, path)

    def split(self, seed: int = 0) -> dict[str, Tensor]:
        """Cells for training, validation and test: 60, 10 and 30 in a hundred of each type.

        Every type of at least three cells is in all three.

        Args:
            seed: Shuffles the cells of each type.

        Returns:
            Indices of nodes in rising order, (N_train,), (N_val,), (N_test,).
        """
        parts: dict[str, list[Tensor]] = {"train": [], "val": [], "test": []}
        generator = torch.Generator().manual_seed(int(seed))
        y = self[0].y
        for label in range(len(self.classes)):
            cells = (y == label).nonzero().view(-1)
            cells = cells[torch.randperm(len(cells), generator=generator)]
            num_test = max(1, round(0.3 * len(cells)))
            num_val = max(1, round(0.1 * len(cells)))
            parts["test"].append(cells[:num_test])
            parts["val"].append(cells[num_test : num_test + num_val])
            parts["train"].append(cells[num_test + num_val :])
        return {name: torch.cat(cells).sort().values for name, cells in parts.items()}


def _read(path: Path) -> tuple[Data, dict[str, list[str]]]:
    try:
        import h5py
    except ImportError:
        raise InputError("expected h5py, to read the cells (got none): pip install h5py") from None
    try:
        with h5py.File(path) as file:
            x, cells, genes = file["X"][()], file["obs"][()], file["var"][()]
            pca = file["obsm"][()]["X_pca"]
            classes = file["uns/bulk_labels_categories"][()]
            graph = file["uns/neighbors/connectivities"]
            weights, columns, starts = (graph[key][()] for key in ("data", "indices", "indptr"))
        labels, gene_names = cells["bulk_labels"], genes["index"]
    except (OSError, KeyError, ValueError, IndexError, TypeError) as error:
        raise InputError(
            f"{path}: expected the cells of scanpy.datasets.pbmc68k_reduced ({error})"
        ) from None

    if x.shape != (len(cells), len(genes)) or len(pca) != len(cells) or not np.isfinite(x).all():
        raise InputError(
            f"{path}: expected finite expression ({len(cells)} cells, {len(genes)} genes) and as "
            f"many rows of X_pca (got {x.shape} and {pca.shape})"
        )
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= len(classes):
        raise InputError(
            f"{path}: expected bulk_labels from 0 to {len(classes) - 1} "
            f"(got {labels.min()} to {labels.max()})"
        )
    if (
        len(starts) != len(cells) + 1
        or not starts[-1] == len(weights) == len(columns)
        or columns.max(initial=0) >= len(cells)
    ):
        raise InputError(
            f"{path}: expected the connectivities of {len(cells)} cells as a CSR matrix "
            f"(got {len(starts) - 1} rows, {len(columns)} columns, {len(weights)} weights)"
        )
    # UMAP's connectivities are symmetric, so rows can be read as sources or as targets.
    rows = np.repeat(np.arange(len(cells)), np.diff(starts))
    data = Data(
        x=torch.from_numpy(x).float(),
        edge_index=torch.from_numpy(np.stack([rows, columns]).astype(np.int64)),
        edge_weight=torch.from_numpy(weights).float(),
        y=torch.from_numpy(labels.astype(np.int64)),
        pca=torch.from_numpy(pca).float(),
    )
    if not is_undirected(data.edge_index, data.edge_weight, num_nodes=len(cells)):
        raise InputError(f"{path}: expected symmetric connectivities (got others)")
    return data, {"classes": _decoded(classes), "gene_names": _decoded(gene_names)}


def _decoded(names: np.ndarray) -> list[str]:
    return [name.decode() for name in names.tolist()]
