"""Random edges: long-range ones on purpose, and wrong ones for studies of robustness."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import coalesce

from pyg_avig.errors import InputError
from pyg_avig.graphs.adjacency import to_edge_list
from pyg_avig.graphs.constructors import (
    GraphConstructor,
    device_of,
    graphs_of,
    make_graph,
    node_ranges,
    ordered,
    positive,
    register_graph,
)


@register_graph("expander")
class ExpanderEdges(GraphConstructor):
    """Join nodes at random so that few steps lead from any one to any other.

    The union of random rings through all nodes of a graph, both ways: an expander with high
    probability, as in `"Exphormer: Sparse Transformers for Graphs"
    <https://arxiv.org/abs/2303.06147>`_ (section 3).

    Args:
        degree: Neighbours of a node, even; fewer where two rings share an edge.
        seed: The same edges at every call; ``None`` draws anew from PyTorch's generator.
    """

    def __init__(self, degree: int = 4, seed: int | None = 0) -> None:
        self.degree = positive("degree", degree)
        if self.degree % 2:
            raise InputError(f"degree must be even (got {degree})")
        self.seed = seed

    def graph(self, data: Data) -> Tensor:
        """The edges, (2, E)."""
        generator = _generator(self.seed)
        edges = [torch.empty(2, 0, dtype=torch.long)]
        for nodes in graphs_of(data):
            for _ in range(self.degree // 2):
                ring = torch.randperm(nodes.stop - nodes.start, generator=generator) + nodes.start
                pairs = torch.stack([ring, ring.roll(1)])
                edges += [pairs, pairs.flip(0)]
        edge_index = torch.cat(edges, 1)
        edge_index = coalesce(edge_index[:, edge_index[0] != edge_index[1]], sort_by_row=False)
        return edge_index.to(device_of(data))


@register_graph("degraded")
class DegradedEdges(GraphConstructor):
    """Spoil a graph: take a share of its edges away, and add random ones.

    To see how much a layer depends on its graph, or repairs it. Takes what the graph at hand needs.

    Args:
        graph: Name of the constructor of the true graph; ``None`` takes ``edge_index``.
        graph_args: Its arguments.
        remove: Share of the true edges that are taken away, in [0, 1].
        add: Random edges over true ones: at least 0. They are new, and within a graph; there are
            fewer where a graph has no room for more.
        seed: The same edges at every call; ``None`` draws anew from PyTorch's generator.
    """

    def __init__(
        self,
        graph: str | None = None,
        graph_args: dict[str, Any] | None = None,
        remove: float = 0.1,
        add: float = 0.1,
        seed: int | None = 0,
    ) -> None:
        if not 0 <= remove <= 1 or not add >= 0:
            raise InputError(
                f"expected remove in [0, 1] and add of at least 0 (got {remove} and {add})"
            )
        self.true = None if graph is None else make_graph(graph, **(graph_args or {}))
        self.remove = remove
        self.add = add
        self.seed = seed

    @property
    def reads_features(self) -> bool:
        """Whether the true edges depend on ``x``."""
        return self.true is not None and self.true.reads_features

    def graph(self, data: Data) -> Tensor:
        """The edges, (2, E)."""
        if self.true is None and data.edge_index is None:
            raise InputError(f"expected a graph with edge_index, to spoil it (got {data})")
        true = to_edge_list(data.edge_index if self.true is None else self.true.graph(data))
        edges = true.edge_index[:, true.edge_index[0] != true.edge_index[1]]
        edges = coalesce(edges, sort_by_row=False)
        generator = _generator(self.seed)
        kept = torch.rand(edges.size(1), generator=generator) >= self.remove
        wanted = round(self.add * edges.size(1))
        added = self._random_edges(data, edges.cpu(), wanted, generator).to(edges.device)
        return ordered(torch.cat([edges[:, kept.to(edges.device)], added], 1))

    @staticmethod
    def _random_edges(
        data: Data, true: Tensor, wanted: int, generator: torch.Generator | None
    ) -> Tensor:
        ends = torch.tensor(node_ranges(data))
        total = int(ends[-1])
        added = torch.empty(0, dtype=torch.long)
        codes = true[0] * total + true[1]
        for _ in range(10):  # A few rounds, as some that are drawn are there already.
            missing = wanted - len(added)
            if missing < 1 or not total:
                break
            target = torch.randint(total, (2 * missing,), generator=generator)
            graph = torch.searchsorted(ends, target, right=True) - 1
            size = ends[graph + 1] - ends[graph]
            share = torch.rand(len(target), generator=generator, dtype=torch.double)
            source = ends[graph] + (share * size).long()
            code = (source * total + target)[source != target]
            code = torch.cat([added, code[~torch.isin(code, codes)]]).unique()
            added = code[torch.randperm(len(code), generator=generator)[:wanted]]
        return torch.stack([added // max(total, 1), added % max(total, 1)])


def _generator(seed: int | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator().manual_seed(int(seed))
