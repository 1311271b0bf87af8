"""Mini-batches of sampled neighbours on a graph of 100,000 nodes.

Needs torch-sparse: `make test-sparse` builds it, or
`pip install --no-build-isolation torch-scatter torch-sparse`.

    python examples/large_graph.py
"""

import resource

import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader

from pyg_avig import CrossAttnConv


class Model(torch.nn.Module):
    """Two layers."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = CrossAttnConv(in_channels, 32, act="relu")
        self.conv2 = CrossAttnConv(32, classes)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Logits of each node."""
        return self.conv2(self.conv1(x, edge_index), edge_index)


def communities(nodes: int, classes: int = 5, degree: int = 12) -> Data:
    """A stochastic block model with features that hint at the block, noisily."""
    size = nodes // classes
    inner, outer = 0.8 * degree / size, 0.2 * degree / (nodes - size)
    probabilities = torch.full((classes, classes), outer)
    probabilities.fill_diagonal_(inner)
    y = torch.arange(classes).repeat_interleave(size)
    # One block of rows at a time: the whole matrix of pairs would not fit in memory.
    edges = []
    for row in range(classes):
        for column in range(classes):
            count = int(torch.poisson(probabilities[row, column] * size * size))
            pair = torch.randint(size, (2, count))
            edges.append(pair + torch.tensor([[row], [column]]) * size)
    x = F.one_hot(y, classes).float() + 1.5 * torch.randn(len(y), classes)
    return Data(x=x, y=y, edge_index=torch.cat(edges, dim=1))


def main(nodes: int = 100_000, batches: int = 100) -> float:
    """Train on sampled batches; the accuracy on a thousand nodes not trained on."""
    torch.manual_seed(0)
    data = communities(nodes)
    print(data)
    train = torch.rand(data.num_nodes) < 0.5
    sampled = {"num_neighbors": [10, 10], "shuffle": True}
    loader = NeighborLoader(data, batch_size=512, input_nodes=train, **sampled)
    model = Model(data.num_features, int(data.y.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    done = 0
    while done < batches:
        for batch in loader:
            optimizer.zero_grad()
            logits = model(batch.x, batch.edge_index)[: batch.batch_size]
            loss = F.cross_entropy(logits, batch.y[: batch.batch_size])
            loss.backward()
            optimizer.step()
            done += 1
            if done % 20 == 0:
                print(f"batch {done}: {batch.num_nodes} nodes, loss {loss.item():.3f}")
            if done == batches:
                break
    test = NeighborLoader(data, batch_size=1000, input_nodes=~train, **sampled)
    batch = next(iter(test))
    hits = model(batch.x, batch.edge_index)[:1000].argmax(1) == batch.y[:1000]
    accuracy = hits.float().mean().item()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"accuracy {accuracy:.3f}, peak memory of the process {peak:.0f} MiB")
    return accuracy


if __name__ == "__main__":
    main()
