"""DictionaryLookup: graphs in which every node must look at one other, by its key."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from pyg_avig.data.datasets.packages import default_root
from pyg_avig.errors import InputError
from pyg_avig.files import written_whole


class DictionaryLookup(InMemoryDataset):
    """Dictionaries of k keys and values, and k queries that ask for the value of a key each.

    Generated here after `"How Attentive are Graph Attention Networks?"
    <https://arxiv.org/abs/2105.14491>`_ (section 4.1) and its public code. Card:
    ``datasets/dictionary_lookup/README.md``.

    A graph is bipartite and complete: k query nodes receive from k key nodes. Each query has an
    attribute, another one each; each key has an attribute and a value. The value of a query is that
    of the key with its attribute. Each graph maps attributes to values in its own way, a
    permutation; no permutation is in two graphs, and so in two parts.

    Each ``Data`` has, for k queries and then k keys,

    - ``x``: one-hot columns, (2k, 2k + 1): the attribute (k), the value (k), no value (1);
    - ``edge_index``: from each key to each query, (2, k * k);
    - ``y``: the value, (2k,), the keys' too, which ``x`` tells;
    - ``train_mask``, ``val_mask``, ``test_mask``: the queries, (2k,), in the part that the graph
      is in.

    Args:
        k: Number of keys, of queries and of values.
        root: Where the prepared data are kept; by default in the user's cache.
        transform: Applied to a ``Data`` at each access.
        pre_transform: Applied to each once, before it is kept.
        num_graphs: Draw so many permutations, or all if there are fewer.
        seed: Draws the permutations and their parts.
        force_reload: Prepare the data anew.

    Attributes:
        classes: Names of the values.

    Raises:
        InputError: If k is smaller than 3, or fewer than 3 graphs are to be drawn.
    """

    def __init__(
        self,
        k: int = 10,
        root: str | None = None,
        transform: Callable[..., Any] | None = None,
        pre_transform: Callable[..., Any] | None = None,
        num_graphs: int = 32_000,
        seed: int = 0,
        force_reload: bool = False,
    ) -> None:
        for name, value in (("k", k), ("num_graphs", num_graphs)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 3:
                raise InputError(f"{name} must be an int of at least 3 (got {value!r})")
        self.k = k
        self.num_graphs = min(num_graphs, math.factorial(k))
        self.seed = seed
        self.classes = [str(value) for value in range(1, k + 1)]
        super().__init__(
            root or default_root("dictionary_lookup"),
            transform,
            pre_transform,
            force_reload=force_reload,
        )
        self.load(self.processed_paths[0])

    @property
    def processed_file_names(self) -> str:
        """One file for each k, number of graphs and seed."""
        return f"k{self.k}_graphs{self.num_graphs}_seed{self.seed}.pt"

    def process(self) -> None:
        """Draw the dictionaries."""
        values = _permutations(self.k, self.num_graphs, torch.Generator().manual_seed(self.seed))
        parts = {name: set(index.tolist()) for name, index in _parts(len(values)).items()}
        attribute = torch.eye(self.k)
        query = torch.cat([attribute, torch.zeros(self.k, self.k), torch.ones(self.k, 1)], 1)
        keys, queries = torch.arange(self.k, 2 * self.k), torch.arange(self.k)
        edge_index = torch.stack([keys.repeat(self.k), queries.repeat_interleave(self.k)])
        is_query = torch.arange(2 * self.k) < self.k
        graphs = []
        for n, value in enumerate(values):
            key = torch.cat([attribute, F.one_hot(value, self.k + 1)], 1)
            data = Data(x=torch.cat([query, key]), edge_index=edge_index, y=value.repeat(2))
            for name, members in parts.items():
                data[f"{name}_mask"] = is_query & (n in members)
            graphs.append(data if self.pre_transform is None else self.pre_transform(data))
        with written_whole(self.processed_paths[0]) as path:
            self.save(graphs, str(path))

    def split(self) -> dict[str, Tensor]:
        """Graphs for training, validation and test: 70, 10 and 20 in a hundred.

        They are in random order, which ``seed`` has drawn.

        Returns:
            Indices of graphs, (N_train,), (N_val,), (N_test,).
        """
        return _parts(len(self))


def _parts(number: int) -> dict[str, Tensor]:
    test, val = max(round(0.2 * number), 1), max(round(0.1 * number), 1)
    parts = torch.arange(number).split([number - val - test, val, test])
    return dict(zip(("train", "val", "test"), parts, strict=True))


def _permutations(k: int, number: int, generator: torch.Generator) -> Tensor:
    """So many different permutations of k values in random order, (number, k)."""
    if math.factorial(k) <= 10 * number:  # Few would be new if they were drawn.
        drawn = torch.tensor(list(permutations(range(k))))
    else:
        drawn = torch.empty(0, k, dtype=torch.long)
        while len(drawn) < number:
            more = torch.rand(number, k, generator=generator).argsort(1)
            drawn = torch.cat([drawn, more]).unique(dim=0)
    return drawn[torch.randperm(len(drawn), generator=generator)[:number]]
