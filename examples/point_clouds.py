"""Point clouds as patches: points, gathered into patches, joined with the nearest.

Kinds of furniture by the surface of their 3D models (Debian package `sweethome3d-furniture`).

    python examples/point_clouds.py
"""

import torch
import torch.nn.functional as F
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose

from pyg_avig.data import Furniture
from pyg_avig.graphs import KNNEdges
from pyg_avig.models import ViG
from pyg_avig.transforms import PointPatches, PointsToGraph, RandomMirror


def main(epochs: int = 10, limit: int | None = None) -> float:
    """Train on `limit` clouds, or all; the accuracy on a fold of others."""
    torch.manual_seed(0)
    # 1,024 points with normals become 64 nodes of 8 points each.
    steps = [
        PointsToGraph(num_points=1024, normalize=False),  # Size tells a lamp from a wardrobe.
        PointPatches(num_patches=64, size=8),
        KNNEdges(k=8),
    ]
    # Mirrored and drawn anew in each epoch, as transforms run when a cloud is read.
    train = Furniture(transform=Compose([RandomMirror(), *steps]))
    test = Furniture(transform=Compose(steps))
    split = test.split(fold=0)
    train = train[split["train"][torch.randperm(len(split["train"]))[:limit]]]
    test = test[split["test"]]
    print(test[0])

    model = ViG(
        test[0].num_features,
        len(test.classes),
        channels=48,
        num_blocks=2,
        heads=4,
        ffn_ratio=2,
        pos="relative",  # Edges know where their patches lie, seen from one another.
        pos_dim=3,
        dropout=0.3,
        pool=["mean", "max"],
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        model.train()
        for batch in DataLoader(train, 16, shuffle=True, drop_last=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch), batch.y, label_smoothing=0.1)
            loss.backward()
            optimizer.step()
        schedule.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")
    model.eval()
    with torch.no_grad():
        hits = torch.cat([model(b).argmax(1) == b.y for b in DataLoader(test, 64)])
    accuracy = hits.float().mean().item()
    print(f"accuracy on {len(hits)} clouds not trained on: {accuracy:.2f}")
    return accuracy


if __name__ == "__main__":
    main()
