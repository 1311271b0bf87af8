"""A graph transformer (GPS) whose local layer is CrossAttnConv.

`Recipe for a General, Powerful, Scalable Graph Transformer <https://arxiv.org/abs/2205.12454>`_
on scikit-learn's digits as graphs.

    python examples/gps_transformer.py
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GPSConv, global_mean_pool

from pyg_avig import CrossAttnConv
from pyg_avig.transforms import ImageToGraph


class GPS(torch.nn.Module):
    """Two GPS layers over pixels and their positions."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(3, channels)
        self.convs = torch.nn.ModuleList(
            GPSConv(channels, CrossAttnConv(channels, channels), heads=4) for _ in range(2)
        )
        self.head = torch.nn.Linear(channels, 10)

    def forward(self, data) -> torch.Tensor:
        """Logits of each graph."""
        x = self.embed(torch.cat([data.x, data.pos / 7], dim=1))
        for conv in self.convs:
            x = conv(x, data.edge_index, data.batch)
        return self.head(global_mean_pool(x, data.batch))


def main(epochs: int = 8, images: int = 1500) -> float:
    """Train on five sixths of the images; the accuracy on the others."""
    torch.manual_seed(0)
    pixels, labels = load_digits(return_X_y=True)
    to_graph = ImageToGraph(patch_size=1, stride=1)
    order = torch.randperm(len(labels))[:images].numpy()
    pixels = torch.from_numpy(pixels[order]).float().view(-1, 1, 8, 8) / 16
    graphs = [
        to_graph((image, int(label))) for image, label in zip(pixels, labels[order], strict=True)
    ]
    split = images * 5 // 6
    model = GPS()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    # Small steps at the end, so that BatchNorm's running statistics catch up with the weights.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        for batch in DataLoader(graphs[:split], batch_size=25, shuffle=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch), batch.y)
            loss.backward()
            optimizer.step()
        schedule.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")
    model.eval()
    with torch.no_grad():
        hits = [model(b).argmax(1) == b.y for b in DataLoader(graphs[split:], batch_size=100)]
    accuracy = torch.cat(hits).float().mean().item()
    print(f"accuracy on {images - split} digits not trained on: {accuracy:.2f}")
    return accuracy


if __name__ == "__main__":
    main()
