"""Train ViG on a list of graphs in a loop of one's own: no Lightning, no files.

python examples/train_graphs.py
"""

import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.utils import barabasi_albert_graph, erdos_renyi_graph

from pyg_avig.models import ViG


def main(epochs: int = 5, num_graphs: int = 200) -> list[float]:
    """Tell random graphs from those whose nodes prefer popular ones; the loss of each epoch."""
    graphs = []
    for n in range(num_graphs):
        edges = barabasi_albert_graph(20, 2) if n % 2 else erdos_renyi_graph(20, 0.19)
        degree = edges[0].bincount(minlength=20).float().view(-1, 1)
        graphs.append(Data(x=degree, edge_index=edges, y=torch.tensor([n % 2])))

    model = ViG(in_channels=1, out_channels=2, channels=32, num_blocks=2, pool=["mean", "max"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for batch in DataLoader(graphs, batch_size=20, shuffle=True):
            loss = F.cross_entropy(model(batch), batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * batch.num_graphs
        losses.append(total / num_graphs)
    print(f"loss: {losses[0]:.2f} in the first epoch, {losses[-1]:.2f} in the last")
    return losses


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
