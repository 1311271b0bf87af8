"""Two types of nodes: a homogeneous model turned heterogeneous by `to_hetero`.

Readers and books; a reader likes the genre that most of their books have.

    python examples/hetero_graph.py
"""

import torch
import torch.nn.functional as F
from torch_geometric.data import HeteroData
from torch_geometric.nn import to_hetero
from torch_geometric.transforms import ToUndirected

from pyg_avig import CrossAttnConv


class Model(torch.nn.Module):
    """Written for one type of nodes; lazy sizes fit any."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = CrossAttnConv((-1, -1), 16, heads=2)
        self.conv2 = CrossAttnConv((-1, -1), classes)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Logits of each node."""
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)


def library(readers: int = 200, books: int = 60, genres: int = 3) -> HeteroData:
    """A made-up library: each reader borrows 9 books, 6 of them of one genre."""
    genre = torch.arange(books) % genres
    taste = torch.randint(genres, (readers,))
    edges = []
    for reader in range(readers):
        liked = (genre == taste[reader]).nonzero().view(-1)
        others = (genre != taste[reader]).nonzero().view(-1)
        borrowed = [liked[torch.randperm(len(liked))[:6]], others[torch.randperm(len(others))[:3]]]
        edges += [(reader, int(book)) for book in torch.cat(borrowed)]
    data = HeteroData()
    data["reader"].x = torch.randn(readers, 4)  # Says nothing of their taste.
    data["reader"].y = taste
    data["book"].x = F.one_hot(genre, genres).float() + 0.3 * torch.randn(books, genres)
    data["reader", "borrows", "book"].edge_index = torch.tensor(edges).T
    return ToUndirected()(data)


def main(epochs: int = 60) -> float:
    """Train on half of the readers; the accuracy on the other half."""
    torch.manual_seed(0)
    data = library()
    model = to_hetero(Model(classes=3), data.metadata())
    with torch.no_grad():  # Lazy sizes are found out in the first call.
        model(data.x_dict, data.edge_index_dict)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    train = torch.arange(200) < 100
    for _ in range(epochs):
        optimizer.zero_grad()
        logits = model(data.x_dict, data.edge_index_dict)["reader"]
        F.cross_entropy(logits[train], data["reader"].y[train]).backward()
        optimizer.step()
    hits = logits.argmax(1) == data["reader"].y
    accuracy = hits[~train].float().mean().item()
    print(f"accuracy on readers not trained on: {accuracy:.2f}")
    return accuracy


if __name__ == "__main__":
    main()
