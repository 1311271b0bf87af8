"""Stochastic block models: graphs of communities, whose nodes are to be told apart."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data, InMemoryDataset

from pyg_avig.data.datasets.packages import default_root
from pyg_avig.errors import InputError
from pyg_avig.files import written_whole

SMALLEST, LARGEST = 5, 34  # Nodes of a community, and of a pattern.


class BlockModel(InMemoryDataset):
    """What :class:`Pattern` and :class:`Cluster` share."""

    classes: tuple[str, ...]
    graphs: tuple[int, int, int]
    """Numbers of graphs for training, validation and test."""

    def __init__(
        self,
        root: str | None = None,
        transform: Callable[..., Any] | None = None,
        pre_transform: Callable[..., Any] | None = None,
        share: float = 1.0,
        seed: int = 0,
        force_reload: bool = False,
    ) -> None:
        if not 0 < share <= 1:
            raise InputError(f"share must lie in (0, 1] (got {share})")
        self.share = share
        self.seed = seed
        super().__init__(
            root or default_root(type(self).__name__.lower()),
            transform,
            pre_transform,
            force_reload=force_reload,
        )
        self.load(self.processed_paths[0])

    @property
    def processed_file_names(self) -> str:
        """One file for each seed and number of graphs."""
        return f"share{self.share}_seed{self.seed}.pt"

    @property
    def sizes(self) -> list[int]:
        """Numbers of graphs for training, validation and test, of the share at hand."""
        return [max(round(self.share * number), 1) for number in self.graphs]

    @abstractmethod
    def draw(self, generator: torch.Generator) -> list[Data]:
        """Draw graphs for training, then for validation, then for the test."""

    def process(self) -> None:
        """Draw the graphs."""
        graphs = self.draw(torch.Generator().manual_seed(self.seed))
        if self.pre_transform is not None:
            graphs = [self.pre_transform(data) for data in graphs]
        with written_whole(self.processed_paths[0]) as path:
            self.save(graphs, str(path))

    def split(self) -> dict[str, Tensor]:
        """Graphs for training, validation and test, which :attr:`seed` has drawn.

        Returns:
            Indices of graphs, (N_train,), (N_val,), (N_test,).
        """
        parts = torch.arange(len(self)).split(self.sizes)
        return dict(zip(("train", "val", "test"), parts, strict=True))


class Pattern(BlockModel):
    """PATTERN: which nodes of a graph are those of a pattern that is hidden in it.

    Generated here after `"Benchmarking Graph Neural Networks" <https://arxiv.org/abs/2003.00982>`_
    and its public code; the graphs that its authors publish are in
    :class:`torch_geometric.datasets.GNNBenchmarkDataset`. Card: ``datasets/pattern/README.md``.

    Five communities of 5 to 34 nodes, joined with probability 0.5 within and 0.35 between them, and
    one of 100 patterns: 5 to 34 nodes that are joined with probability 0.5 among one another, the
    same in every graph of the pattern, and with probability 0.5 to each node of the communities.
    14,000 graphs, every pattern in as many of a part as any other.

    Each ``Data`` has

    - ``x``: one of three signals, at random, one-hot, (N, 3); that of a pattern's node is part
      of the pattern;
    - ``edge_index``: both ways, (2, E);
    - ``y``: whether a node is one of the pattern, (N,).

    Args:
        root: Where the prepared data are kept; by default in the user's cache.
        transform: Applied to a ``Data`` at each access.
        pre_transform: Applied to each once, before it is kept.
        share: Draw this share of the 10,000, 2,000 and 2,000 graphs for training, validation and
            test, but at least one a pattern.
        seed: Draws the graphs.
        force_reload: Prepare the data anew.

    Attributes:
        classes: Names of the classes.

    Raises:
        InputError: If the share does not lie in (0, 1].
    """

    classes = ("community", "pattern")
    graphs = (10_000, 2_000, 2_000)
    patterns = 100

    @property
    def sizes(self) -> list[int]:
        """Numbers of graphs for training, validation and test: as many of each pattern."""
        return [
            self.patterns * max(round(self.share * number / self.patterns), 1)
            for number in self.graphs
        ]

    def draw(self, generator: torch.Generator) -> list[Data]:
        """Draw graphs for training, then for validation, then for the test."""
        patterns = []
        for size in _sizes(self.patterns, generator).tolist():
            joined = _joined(torch.full((size, size), 0.5), generator)
            patterns.append((joined, torch.randint(3, (size,), generator=generator)))
        return [
            _with_pattern(*patterns[n % self.patterns], generator)
            for number in self.sizes
            for n in range(number)
        ]


class Cluster(BlockModel):
    """CLUSTER: to which community each node of a graph belongs, one of each being known.

    Generated here after `"Benchmarking Graph Neural Networks" <https://arxiv.org/abs/2003.00982>`_
    and its public code; the graphs that its authors publish are in
    :class:`torch_geometric.datasets.GNNBenchmarkDataset`. Card: ``datasets/cluster/README.md``.

    Six communities of 5 to 34 nodes, joined with probability 0.55 within and 0.25 between them.

    Each ``Data`` has

    - ``x``: one-hot columns, (N, 7): the community is unknown, or it is one of six; it is known
      of one node in each;
    - ``edge_index``: both ways, (2, E);
    - ``y``: the community, (N,).

    Args:
        root: Where the prepared data are kept; by default in the user's cache.
        transform: Applied to a ``Data`` at each access.
        pre_transform: Applied to each once, before it is kept.
        share: Draw this share of the 10,000, 1,000 and 1,000 graphs for training, validation and
            test.
        seed: Draws the graphs.
        force_reload: Prepare the data anew.

    Attributes:
        classes: Names of the classes.

    Raises:
        InputError: If the share does not lie in (0, 1].
    """

    classes = tuple(f"community {n}" for n in range(1, 7))
    graphs = (10_000, 1_000, 1_000)

    def draw(self, generator: torch.Generator) -> list[Data]:
        """Draw graphs for training, then for validation, then for the test."""
        return [_communities(generator) for _ in range(sum(self.sizes))]


def _sizes(number: int, generator: torch.Generator) -> Tensor:
    return torch.randint(SMALLEST, LARGEST + 1, (number,), generator=generator)


def _joined(probability: Tensor, generator: torch.Generator) -> Tensor:
    """Which nodes are joined, (N, N), symmetric and without loops."""
    joined = torch.rand(probability.shape, generator=generator).lt(probability).triu(1)
    return joined | joined.T


def _block_model(
    community: Tensor, within: float, between: float, generator: torch.Generator
) -> Tensor:
    same = community.view(-1, 1) == community
    return _joined(torch.full(same.shape, between).masked_fill(same, within), generator)


def _shuffled(x: Tensor, joined: Tensor, y: Tensor, generator: torch.Generator) -> Data:
    order = torch.randperm(len(y), generator=generator)
    edge_index = joined[order][:, order].nonzero().T.flip(0)  # Ordered by target.
    return Data(x=x[order].float(), edge_index=edge_index.contiguous(), y=y[order])


def _with_pattern(pattern: Tensor, signal: Tensor, generator: torch.Generator) -> Data:
    sizes = _sizes(5, generator)
    community = torch.arange(5).repeat_interleave(sizes)
    number, hidden = len(community), len(pattern)
    joined = torch.zeros(number + hidden, number + hidden, dtype=torch.bool)
    joined[:number, :number] = _block_model(community, 0.5, 0.35, generator)
    joined[number:, number:] = pattern
    across = torch.rand(number, hidden, generator=generator) < 0.5
    joined[:number, number:], joined[number:, :number] = across, across.T
    signal = torch.cat([torch.randint(3, (number,), generator=generator), signal])
    y = (torch.arange(number + hidden) >= number).long()
    return _shuffled(F.one_hot(signal, 3), joined, y, generator)


def _communities(generator: torch.Generator) -> Data:
    sizes = _sizes(6, generator)
    community = torch.arange(6).repeat_interleave(sizes)
    joined = _block_model(community, 0.55, 0.25, generator)
    known = torch.zeros_like(community)
    chosen = (torch.rand(6, generator=generator) * sizes).long() + sizes.cumsum(0) - sizes
    known[chosen] = torch.arange(1, 7)
    return _shuffled(F.one_hot(known, 7), joined, community, generator)
