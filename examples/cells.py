"""CrossAttnConv in one's own model of cell types, and which neighbours it then looks at.

700 blood cells in a graph of their nearest neighbours (`pip install --no-deps scanpy`, and h5py).
The first layer learns to look at cells of the same type; the second, over what the first has
gathered, does so in some runs only.

    python examples/cells.py
"""

import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score

from pyg_avig import CrossAttnConv, attention_weights
from pyg_avig.data import PBMC68k


class CellTypes(torch.nn.Module):
    """Two layers over the principal components of expression."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        # beta: how sharply a layer tells its neighbours apart, at first; it is learned.
        self.conv1 = CrossAttnConv(in_channels, 16, heads=4, beta=5, act="relu")
        self.conv2 = CrossAttnConv(64, classes)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Logits of each cell."""
        x = F.dropout(self.conv1(x, edge_index), 0.5, self.training)
        return self.conv2(x, edge_index)


def main(epochs: int = 30) -> dict[str, float]:
    """Train on six cells in ten; the scores on the test cells, and the weight of their edges."""
    torch.manual_seed(0)
    cells = PBMC68k()
    data, split = cells[0], cells.split(seed=0)
    x = data.pca / data.pca.std()
    model = CellTypes(x.size(1), len(cells.classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005, weight_decay=5e-4)
    for epoch in range(epochs):
        model.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x, data.edge_index)[split["train"]], data.y[split["train"]])
        loss.backward()
        optimizer.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch}: loss {loss.item():.3f}")

    model.eval()
    with torch.no_grad():
        predicted = model(x, data.edge_index)[split["test"]].argmax(1)
    true = data.y[split["test"]]
    scores = {
        "accuracy": (predicted == true).float().mean().item(),
        "macro F1": float(f1_score(true, predicted, average="macro", zero_division=0)),
    }
    # Edges into the test cells, whose types the model was never told.
    for name, (edge_index, alpha) in attention_weights(model, x, data.edge_index).items():
        source, target = edge_index
        test = torch.isin(target, split["test"])
        same = data.y[source] == data.y[target]
        weight = alpha.mean(1)
        scores[f"{name}, same type"] = weight[test & same].mean().item()
        scores[f"{name}, another type"] = weight[test & ~same].mean().item()
    for name, value in scores.items():
        print(f"{name:22}{value:.3f}")
    return scores


if __name__ == "__main__":
    main()
