"""Where the nodes of a graph are drawn, and what is drawn in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import coalesce, k_hop_subgraph

from pyg_avig.errors import InputError

MAX_DRAWN = 2000
MAX_LAID_OUT = 400
MAX_EDGES = 60_000
_MAX_COLUMNS = 12


class Layout(NamedTuple):
    """The nodes that are drawn, in their order on the page."""

    nodes: Tensor
    """Their indices in the graph, (M,)."""
    positions: Tensor
    """Where they are, (M, 2) or (M, 3); the second axis points up."""
    symbols: list[str] | None = None
    """What is written into each."""
    centre: int | None = None
    """The one whose neighbourhood this is, among those drawn."""


def check_size(data: Data, node: int | None) -> None:
    """Refuse what cannot be drawn, before a model runs on it.

    Raises:
        InputError: With what to do instead.
    """
    number = int(data.num_nodes or 0)
    if not number:
        raise InputError("expected a graph with nodes (got none)")
    if node is not None:
        if not 0 <= node < number:
            raise InputError(f"expected node from 0 to {number - 1} (got {node})")
        return
    if _is_cloud(data):
        if number > MAX_DRAWN:
            raise InputError(
                f"expected at most {MAX_DRAWN} points (got {number}): draw fewer of them, with "
                "torch_geometric.transforms.FixedPoints, or name one, as node=..., to see its "
                "neighbourhood"
            )
    elif number > (MAX_DRAWN if data.get("pos") is not None else MAX_LAID_OUT):
        raise InputError(
            f"expected at most {MAX_LAID_OUT} nodes, or {MAX_DRAWN} with positions (got {number}): "
            "name one, as node=..., to see its neighbourhood of as many hops as `hops` says"
        )


def lay_out(data: Data, edge_index: Tensor, node: int | None, hops: int) -> Layout:
    """Place the nodes of a graph, or of the neighbourhood of a node.

    A molecule (``smiles``) lies as RDKit draws it, positions (``pos``, (N, 2) or (N, 3)) are taken
    as they are, and what has none is laid out by networkx, as springs would have it.

    Args:
        data: The graph.
        edge_index: Edges that hops go along, against their direction.
        node: The node in the middle; ``None`` takes the whole graph.
        hops: Size of its neighbourhood.

    Raises:
        InputError: If there are too many nodes, or the molecule has another number of atoms.
    """
    nodes, centre = torch.arange(int(data.num_nodes or 0)), None
    if node is not None:
        nodes, _, middle, _ = k_hop_subgraph(node, hops, edge_index, num_nodes=len(nodes))
        centre = int(middle)
    pos = data.get("pos")
    limit = MAX_LAID_OUT if pos is None else MAX_DRAWN
    if len(nodes) > limit:
        raise InputError(
            f"expected at most {limit} nodes within {hops} hops of node {node} (got {len(nodes)}): "
            "take fewer hops"
        )
    smiles = data.get("smiles")
    if isinstance(smiles, str):
        positions, symbols = _molecule(smiles, int(data.num_nodes or 0))
        return Layout(nodes, positions[nodes], [symbols[i] for i in nodes.tolist()], centre)
    if pos is not None:
        if pos.dim() != 2 or pos.size(1) not in (2, 3):
            raise InputError(f"expected positions pos (N, 2) or (N, 3) (got {tuple(pos.shape)})")
        if not pos.isfinite().all():
            raise InputError("expected finite positions pos (got NaN or infinity)")
        return Layout(nodes, pos[nodes].detach().float().cpu(), None, centre)
    return Layout(nodes, _springs(nodes, edge_index), None, centre)


def colourings(
    data: Data, layout: Layout, logits: Tensor | None, classes: Sequence[str] | None
) -> list[dict[str, Any]]:
    """What nodes can be coloured by: their predicted class, their own, a feature."""
    found = []
    nodes = layout.nodes
    if layout.symbols is not None:
        kinds = sorted(set(layout.symbols))
        indices = torch.tensor([kinds.index(symbol) for symbol in layout.symbols])
        found.append(_classes("element", indices, kinds))
    if logits is not None and logits.size(1) > 1:
        found.append(_classes("predicted class", logits[nodes].argmax(1), classes))
    elif logits is not None:
        found.append(_numbers("prediction", logits[nodes, 0]))
    y = data.get("y")
    if isinstance(y, Tensor) and y.dim() == 1 and len(y) == data.num_nodes > 1:
        labels = y[nodes]
        numbers = y.is_floating_point()
        found.append(_numbers("label", labels) if numbers else _classes("label", labels, classes))
    if layout.positions.size(1) == 3:
        found.append(_numbers("height", layout.positions[:, 1]))
    if isinstance(data.get("x"), Tensor) and data.x.dim() == 2:
        columns = data.x[nodes].detach().float()
        # What is the same everywhere tells nothing; of many features, those that vary most.
        spread = columns.std(0, correction=0)
        varied = spread.argsort(descending=True, stable=True)[:_MAX_COLUMNS]
        varied = varied[spread[varied] > 0].sort().values
        found += [_numbers(f"feature {i}", columns[:, i]) for i in varied.tolist()]
    return found


def _classes(name: str, values: Tensor, classes: Sequence[str] | None) -> dict[str, Any]:
    number = max(int(values.max()) + 1, 0 if classes is None else len(classes))
    names = [str(i) for i in range(number)] if classes is None else list(classes)
    return {"name": name, "values": values.tolist(), "classes": names}


def _numbers(name: str, values: Tensor) -> dict[str, Any]:
    rounded = [float(f"{value:.4g}") for value in values.nan_to_num().tolist()]
    return {"name": name, "values": rounded, "classes": None}


def _is_cloud(data: Data) -> bool:
    pos = data.get("pos")
    return pos is not None and pos.dim() == 2 and pos.size(1) == 3


def _molecule(smiles: str, num_nodes: int) -> tuple[Tensor, list[str]]:
    """Positions and symbols of a molecule's atoms, in the order of PyG's ``from_smiles``."""
    try:
        from rdkit import Chem
        from rdkit.Chem.rdDepictor import Compute2DCoords
    except ModuleNotFoundError:
        raise InputError(
            "a molecule is drawn by RDKit: pip install rdkit (or leave out data.smiles)"
        ) from None
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is not None and molecule.GetNumAtoms() != num_nodes:
        molecule = Chem.AddHs(molecule)
    if molecule is None or molecule.GetNumAtoms() != num_nodes:
        raise InputError(f"expected smiles of a molecule of {num_nodes} atoms (got {smiles!r})")
    Compute2DCoords(molecule)
    positions = torch.tensor(molecule.GetConformer().GetPositions())[:, :2].float()
    return positions, [atom.GetSymbol() for atom in molecule.GetAtoms()]


def _springs(nodes: Tensor, edge_index: Tensor) -> Tensor:
    graph = nx.Graph()
    graph.add_nodes_from(nodes.tolist())
    graph.add_edges_from(
        (a, b) for a, b in coalesce(edge_index).T.tolist() if a in graph and b in graph
    )
    placed = nx.spring_layout(graph, seed=0, iterations=100)
    return torch.tensor([[float(v) for v in placed[i]] for i in nodes.tolist()])
