"""How much a trained model depends on its graph: edges taken away, random ones put in.

Four strains of mice by their connectomes (`pip install --no-deps graspologic`), one mouse left out
at a time. A region's features name it and say nothing of its connections, so that all the model
learns of a mouse it learns from the edges.

    python examples/connectomes.py
"""

import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader

from pyg_avig.data import MouseConnectomes
from pyg_avig.data.connectomes import NUM_REGIONS
from pyg_avig.graphs import DegradedEdges
from pyg_avig.models import ViG

SHARES = (0.0, 0.1, 0.3, 0.5, 0.8)


def region_alone(mouse: Data) -> Data:
    """The connectome with one-hot regions for features."""
    mouse.x = torch.eye(NUM_REGIONS)
    return mouse


def trained(mice, epochs: int) -> ViG:
    """A model of some mice with their true edges."""
    model = ViG(NUM_REGIONS, 4, channels=32, num_blocks=2, heads=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    for _ in range(epochs):
        for batch in DataLoader(mice, 8, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(batch), batch.y).backward()
            optimizer.step()
    return model.eval()


def main(folds: int = 16, epochs: int = 15) -> dict[float, float]:
    """The accuracy on mice left out, by the share of edges that random ones replace."""
    torch.manual_seed(0)
    mice = MouseConnectomes(transform=region_alone)
    hits: dict[float, list[bool]] = {share: [] for share in SHARES}
    for fold in torch.randperm(len(mice))[:folds].tolist():
        split = mice.split(fold=fold)
        model = trained(mice[split["train"]], epochs)
        (mouse,) = mice[split["test"]]
        for share in SHARES:
            degraded = DegradedEdges(remove=share, add=share)(mouse)
            with torch.no_grad():
                hits[share].append(bool(model(degraded).argmax() == mouse.y))
    accuracy = {share: sum(hits[share]) / folds for share in SHARES}
    for share, value in accuracy.items():
        print(f"{share:4.0%} of the edges replaced: accuracy {value:.2f} on {folds} mice")
    return accuracy


if __name__ == "__main__":
    main()
