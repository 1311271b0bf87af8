"""How much a model depends on its graph: edges taken away, and random ones put in their place.

Four strains of mice by their connectomes (`pip install --no-deps graspologic`), each mouse tested
by a model of the others. A region's features are its edges, so a wrong edge is wrong in both.

    python examples/connectomes.py
"""

import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose
from torch_geometric.utils import to_dense_adj

from pyg_avig.data import MouseConnectomes
from pyg_avig.graphs import DegradedEdges
from pyg_avig.models import ViG

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)


def edges_alone(mouse: Data) -> Data:
    """A connectome whose features say which edges there are, and nothing else."""
    mouse.x = to_dense_adj(mouse.edge_index, max_num_nodes=mouse.num_nodes)[0]
    return mouse


def trained(mice, classes: int, epochs: int) -> ViG:
    """A model of mice with their true edges."""
    model = ViG(mice[0].num_features, classes, channels=16, num_blocks=2, heads=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.05)
    for _ in range(epochs):
        for batch in DataLoader(mice, 8, shuffle=True):
            optimizer.zero_grad()
            F.cross_entropy(model(batch), batch.y).backward()
            optimizer.step()
    return model.eval()


def main(folds: int = 8, epochs: int = 8) -> dict[float, float]:
    """The accuracy on mice left out, by the share of their edges that random ones replace."""
    torch.manual_seed(0)
    true = MouseConnectomes(transform=edges_alone)
    degraded = {
        share: MouseConnectomes(
            transform=Compose([DegradedEdges(remove=share, add=share), edges_alone])
        )
        for share in SHARES
    }
    hits: dict[float, list[bool]] = {share: [] for share in SHARES}
    for fold in torch.randperm(len(true))[:folds].tolist():
        model = trained(true[true.split(fold)["train"]], len(true.classes), epochs)
        for share, mice in degraded.items():
            with torch.no_grad():
                hits[share].append(bool(model(mice[fold]).argmax() == mice[fold].y))
    accuracy = {share: sum(hits[share]) / folds for share in SHARES}
    for share, value in accuracy.items():
        print(f"{share:4.0%} of the edges replaced: accuracy {value:.2f} on {folds} mice")
    return accuracy


if __name__ == "__main__":
    main()
