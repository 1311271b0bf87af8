"""Sampling of neighbours as PyG's packages do it, and a graph whose splits are masks."""

import torch
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.sampler import NeighborSampler, SamplerOutput


def sample_in_torch(monkeypatch):
    """Let PyG sample neighbours without pyg-lib or torch-sparse."""
    monkeypatch.setattr("torch_geometric.typing.WITH_TORCH_SPARSE", True)
    monkeypatch.setattr(NeighborSampler, "_sample", _sample)


def _sample(self, seed, seed_time=None, **kwargs):
    """What ``NeighborSampler._sample`` does through a package."""
    nodes = seed.tolist()
    local = {node: place for place, node in reversed(list(enumerate(nodes)))}
    edges, first = [], 0
    for number in self.num_neighbors.get_mapped_values():
        last = len(nodes)
        for target in range(first, last):
            begin, end = self.colptr[nodes[target]].item(), self.colptr[nodes[target] + 1].item()
            places = torch.arange(begin, end)
            if 0 <= number < len(places):
                places = places[torch.randperm(len(places))[:number]]
            for place in places.tolist():
                source = self.row[place].item()
                if source not in local:
                    local[source] = len(nodes)
                    nodes.append(source)
                edges.append((local[source], target, place))
        first = last
    row, col, edge = torch.tensor(edges, dtype=torch.long).view(-1, 3).T
    return SamplerOutput(node=torch.tensor(nodes), row=row, col=col, edge=edge, batch=None)


class Connected(InMemoryDataset):
    """One random graph whose nodes are of the class that most of their neighbours say."""

    def __init__(self, nodes: int = 60, edges: int = 240, **fields):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        edge_index = torch.randint(nodes, (2, edges), generator=generator)
        x = torch.randn(nodes, 4, generator=generator)
        part = torch.randperm(nodes, generator=generator) % 4
        around = torch.zeros(nodes).index_add(0, edge_index[1], x[edge_index[0], 0])
        data = Data(
            x=x,
            edge_index=edge_index,
            edge_attr=torch.randn(edges, 3, generator=generator),
            y=(around > 0).long(),
            train_mask=part < 2,
            val_mask=part == 2,
            test_mask=part == 3,
        ).update(fields)
        self.data, self.slices = self.collate([data])
