"""How far does attention explain? PyG's explainers on a trained model, by PyG's own fidelity.

Each explainer ranks the edges around a node. The best six are then taken away from the graph, or
all others are: fidelity+ is the share of predictions that change without the best edges (the larger
the better), fidelity- the share that change with the best edges alone (the smaller the better).
The graph has houses of six edges hung onto it, and a node's class is its place in a house, so one
knows which edges matter: hits is the share of the best six that belong to a house.

    python examples/explainers.py    (pip install captum)
"""

import copy
from collections.abc import Sequence
from statistics import mean, pstdev

import torch
import torch.nn.functional as F
from torch_geometric.datasets import ExplainerDataset
from torch_geometric.datasets.graph_generator import BAGraph
from torch_geometric.explain import (
    AttentionExplainer,
    CaptumExplainer,
    DummyExplainer,
    Explainer,
    GNNExplainer,
)
from torch_geometric.explain.metric import fidelity
from torch_geometric.seed import seed_everything
from torch_geometric.utils import k_hop_subgraph

from pyg_avig import CrossAttnConv


class Model(torch.nn.Module):
    """Three layers that know nothing of being explained."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv1 = CrossAttnConv(1, 20, act="relu")
        self.conv2 = CrossAttnConv(20, 20, act="relu")
        self.conv3 = CrossAttnConv(20, 20, act="relu")
        self.head = torch.nn.Linear(60, classes)

    def forward(self, x: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Logits of each node."""
        first = self.conv1(x, edge_index)
        second = self.conv2(first, edge_index)
        third = self.conv3(second, edge_index)
        return self.head(torch.cat([first, second, third], 1))


def scores_of_one(seed: int, epochs: int, nodes: int) -> dict[str, dict[str, float]]:
    """Train, and explain so many nodes of houses; the scores of each explainer."""
    seed_everything(seed)
    data = ExplainerDataset(BAGraph(300, 5), "house", num_motifs=80)[0]
    x = torch.ones(data.num_nodes, 1)  # Nothing but the edges tells nodes apart.
    model = Model(4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    for _ in range(epochs):
        optimizer.zero_grad()
        F.cross_entropy(model(x, data.edge_index), data.y).backward()
        optimizer.step()
    model.eval()
    right = model(x, data.edge_index).argmax(1) == data.y
    in_house = data.node_mask.bool()
    everywhere, there = right.float().mean(), right[in_house].float().mean()
    print(f"seed {seed}: accuracy {everywhere:.2f}, on nodes of houses {there:.2f}")

    explained = (in_house & right).nonzero().view(-1)
    explained = explained[torch.randperm(len(explained))[:nodes]]
    algorithms = {
        "AttentionExplainer": AttentionExplainer(),
        "GNNExplainer": GNNExplainer(epochs=100, lr=0.05),
        "CaptumExplainer": CaptumExplainer("IntegratedGradients"),
        "random": DummyExplainer(),
    }
    scores = {}
    for name, algorithm in algorithms.items():
        explainer = Explainer(
            copy.deepcopy(model),  # GNNExplainer leaves its mask behind, as a parameter of layers.
            algorithm,
            explanation_type="model",
            edge_mask_type="object",
            model_config={
                "mode": "multiclass_classification",
                "task_level": "node",
                "return_type": "raw",
            },
            threshold_config={"threshold_type": "topk", "value": 12},  # Six edges, both ways.
        )
        found = []
        for node in explained:
            # What three layers see; ranked over the whole graph, the best edges lie elsewhere.
            subset, edges, index, kept = k_hop_subgraph(
                int(node), 3, data.edge_index, relabel_nodes=True, num_nodes=data.num_nodes
            )
            explanation = explainer(x[subset], edges, index=index)
            plus, minus = fidelity(explainer, explanation)
            best = explanation.edge_mask > 0
            hits = data.edge_mask[kept][best].float().mean().item()
            found.append((plus, minus, hits))
        means = torch.tensor(found).mean(0).tolist()
        scores[name] = dict(zip(("fidelity+", "fidelity-", "hits"), means, strict=True))
    return scores


def main(
    seeds: Sequence[int] = (0, 1, 2, 3, 4), epochs: int = 400, nodes: int = 20
) -> dict[str, dict[str, list[float]]]:
    """The scores of each explainer, one a training; prints their means and standard deviations."""
    runs = [scores_of_one(seed, epochs, nodes) for seed in seeds]
    scores = {
        name: {key: [run[name][key] for run in runs] for key in found}
        for name, found in runs[0].items()
    }
    for name, found in scores.items():
        cells = [f"{key} {mean(v):.2f} ± {pstdev(v):.2f}" for key, v in found.items()]
        print(f"{name:20}{', '.join(cells)}")
    return scores


if __name__ == "__main__":
    main()
