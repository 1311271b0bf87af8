"""What a trained model attends to, without a change to its code.

python examples/read_attention.py
"""

import torch
import torch.nn.functional as F
from torch_geometric.datasets import KarateClub

from pyg_avig import CrossAttnConv, attention_weights


class Model(torch.nn.Module):
    """Knows nothing of being looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = CrossAttnConv(34, 16, act="relu")
        self.conv2 = CrossAttnConv(16, 4)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Logits of each node."""
        return self.conv2(self.conv1(x, edge_index), edge_index)


def main(epochs: int = 100) -> dict[str, tuple[float, float]]:
    """Mean weight of edges within and between communities, by layer."""
    torch.manual_seed(0)
    data = KarateClub()[0]
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(epochs):
        optimizer.zero_grad()
        F.cross_entropy(model(data.x, data.edge_index), data.y).backward()
        optimizer.step()

    means = {}
    for name, (edge_index, alpha) in attention_weights(model, data.x, data.edge_index).items():
        within = data.y[edge_index[0]] == data.y[edge_index[1]]
        means[name] = alpha[within].mean().item(), alpha[~within].mean().item()
        print(
            f"{name}: weight {means[name][0]:.2f} within, {means[name][1]:.2f} between communities"
        )
    return means


if __name__ == "__main__":
    main()
