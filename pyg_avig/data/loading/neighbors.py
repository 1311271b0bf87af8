"""The nodes of a large graph in batches, each with neighbours that PyG samples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch_geometric.typing
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.sampler import NeighborSampler

from pyg_avig.data.loading.sampling import seeded
from pyg_avig.errors import InputError


def check_num_neighbors(num_neighbors: Sequence[int]) -> list[int]:
    """Numbers of neighbours for each hop, of which -1 takes all.

    Raises:
        InputError: If they are none, or if neither package is there that PyG samples with.
    """
    numbers = [int(number) for number in num_neighbors]
    if not numbers or any(number < -1 or number == 0 for number in numbers):
        raise InputError(
            f"expected num_neighbors as a positive number for each hop, or -1 for all neighbours "
            f"(got {list(num_neighbors)})"
        )
    if not torch_geometric.typing.WITH_PYG_LIB and not torch_geometric.typing.WITH_TORCH_SPARSE:
        raise InputError(
            "num_neighbors needs pyg-lib or torch-sparse: "
            "pip install --no-build-isolation 'pyg_avig[sparse]'"
        )
    return numbers


class Seeds(TorchDataset):
    """Places among the seed nodes of an epoch, as a loader asks for them.

    Args:
        number: How many there are.
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, item: Any) -> Any:
        return item


class Neighborhoods:
    """Makes a batch of seed nodes: PyG's ``NeighborLoader``, drawing from the batch's own seed.

    A batch is a ``Data`` whose first ``batch_size`` nodes are the seeds, in their order, with
    ``n_id`` and ``e_id`` of its nodes and edges in the graph.

    Args:
        graph: The graph.
        nodes: Its seed nodes, (S,).
        sampler: PyG's sampler on it.
        num_neighbors: Neighbours of a node in each hop.
        transforms: What is done to a batch, in this order; none may change its nodes.
    """

    def __init__(
        self,
        graph: Data,
        nodes: Tensor,
        sampler: NeighborSampler,
        num_neighbors: list[int],
        transforms: Sequence[Callable[[Data], Data]] = (),
    ) -> None:
        sampler = copy.copy(sampler)  # It holds the sorted edges, which are large.
        sampler.num_neighbors = num_neighbors
        self.loader = NeighborLoader(
            graph, num_neighbors, input_nodes=nodes, neighbor_sampler=sampler
        )
        self.transforms = transforms

    def __call__(self, items: list[Any]) -> Data:
        """The batch of places among the seeds, each by itself or as (place, seed to draw from)."""
        # Without a seed the place is one, so that an evaluation draws the same each time.
        pairs = [item if isinstance(item, tuple) else (item, item) for item in items]
        with seeded(pairs[0][1]):
            batch = self.loader(torch.tensor([place for place, _ in pairs]))
            number = batch.num_nodes
            for transform in self.transforms:
                batch = transform(batch)
        if batch.num_nodes != number:
            raise InputError(
                f"expected augment that keeps the nodes of a batch of neighbours (got "
                f"{batch.num_nodes} of {number})"
            )
        return batch
