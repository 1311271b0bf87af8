"""A two-layer node classifier: CrossAttnConv where GATv2Conv stood, and nothing else changed.

    python examples/node_classification.py
"""

import torch
import torch.nn.functional as F
from torch_geometric.datasets import KarateClub
from torch_geometric.nn import GATv2Conv

from pyg_avig import CrossAttnConv


class Classifier(torch.nn.Module):
    """Two layers of any PyG attention convolution."""

    def __init__(self, layer, in_channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = layer(in_channels, 8, heads=4, dropout=0.3)
        self.conv2 = layer(32, classes)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Logits of each node."""
        x = F.elu(self.conv1(x, edge_index))
        return self.conv2(F.dropout(x, 0.3, self.training), edge_index)


def main(epochs: int = 100) -> dict[str, float]:
    """Train on the one labelled node a class; the accuracy on the 30 others, by layer."""
    data = KarateClub()[0]
    accuracy = {}
    for layer in (GATv2Conv, CrossAttnConv):
        torch.manual_seed(0)
        model = Classifier(layer, data.num_features, int(data.y.max()) + 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
        for _ in range(epochs):
            optimizer.zero_grad()
            logits = model(data.x, data.edge_index)
            F.cross_entropy(logits[data.train_mask], data.y[data.train_mask]).backward()
            optimizer.step()
        predicted = model.eval()(data.x, data.edge_index).argmax(1)
        hits = (predicted == data.y)[~data.train_mask].float()
        accuracy[layer.__name__] = hits.mean().item()
        print(f"{layer.__name__:14}{accuracy[layer.__name__]:.2f}")
    return accuracy


if __name__ == "__main__":
    main()
