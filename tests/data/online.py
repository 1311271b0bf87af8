"""Small trees of the layouts that PyG's data sets download, so that none needs to."""

import json
import pickle

import numpy as np
import scipy.sparse
import torch
from torch_geometric.utils import from_smiles

MODELNET10 = ("bathtub", "bed", "chair", "desk", "dresser", "monitor")
MODELNET10 += ("night_stand", "sofa", "table", "toilet")
SMILES = ("CCO", "c1ccccc1", "CC(=O)O", "CCN", "C#N", "OCC(O)CO", "CCCl", "c1ccncc1", "CC", "CO")


def modelnet10(root):
    """Tetrahedra as OFF files, in a folder a class and split."""
    for n, name in enumerate(MODELNET10):
        for split, number in (("train", 3), ("test", 1)):
            folder = root / "raw" / name / split
            folder.mkdir(parents=True)
            for i in range(number):
                corners = np.eye(4, 3) * (1 + n + i)
                lines = ["OFF", "4 4 0", *(" ".join(map(str, corner)) for corner in corners)]
                lines += ["3 0 1 2", "3 0 1 3", "3 0 2 3", "3 1 2 3"]
                (folder / f"{name}_{i:04d}.off").write_text("\n".join(lines) + "\n")


def ppi(root, nodes=6):
    """Rings with 50 features and 121 labels a node: a JSON graph and arrays a split."""
    raw = root / "raw"
    raw.mkdir(parents=True)
    for split, graphs in (("train", 3), ("valid", 1), ("test", 1)):
        count = graphs * nodes
        links = [
            {"source": g * nodes + i, "target": g * nodes + (i + step) % nodes}
            for g in range(graphs)
            for i in range(nodes)
            for step in (1, -1)
        ]
        content = {"directed": True, "multigraph": False, "graph": {}, "links": links}
        content["nodes"] = [{"id": i} for i in range(count)]
        (raw / f"{split}_graph.json").write_text(json.dumps(content))
        generator = np.random.default_rng(0)
        np.save(raw / f"{split}_feats.npy", generator.random((count, 50)))
        np.save(raw / f"{split}_labels.npy", generator.integers(2, size=(count, 121)))
        np.save(raw / f"{split}_graph_id.npy", np.repeat(np.arange(graphs), nodes) + 1)


def esol(root):
    """A table of molecules with their solubility last but one, and SMILES last."""
    raw = root / "esol" / "raw"
    raw.mkdir(parents=True)
    lines = ["name,solubility,smiles", *(f"m,{-i / 2},{smiles}" for i, smiles in enumerate(SMILES))]
    (raw / "delaney-processed.csv").write_text("\n".join(lines) + "\n")


def peptides_func(root):
    """Lists of tuples (x, edge_attr, edge_index, y), pickled by torch."""
    raw = root / "peptides-func" / "raw"
    raw.mkdir(parents=True)
    for split, number in (("train", 6), ("val", 2), ("test", 2)):
        graphs = []
        for n, smiles in enumerate(SMILES[:number]):
            data = from_smiles(smiles)
            y = torch.arange(10).add(n).remainder(2).float().unsqueeze(0)
            graphs.append((data.x, data.edge_attr, data.edge_index, y))
        torch.save(graphs, raw / f"{split}.pt")


def heterophilous(name, features, classes):
    """A ring of nodes with ten splits, as arrays of masks (splits, nodes)."""

    def tree(root, nodes=40):
        generator = np.random.default_rng(0)
        part = np.stack([generator.permutation(nodes) % 4 for _ in range(10)])
        raw = root / name / "raw"
        raw.mkdir(parents=True)
        np.savez(
            raw / f"{name}.npz",
            node_features=generator.random((nodes, features), dtype=np.float32),
            node_labels=np.arange(nodes) % classes,
            edges=np.stack([np.arange(nodes), (np.arange(nodes) + 1) % nodes], 1),
            train_masks=part < 2,
            val_masks=part == 2,
            test_masks=part == 3,
        )

    return tree


def planetoid(name, classes):
    """Papers in a ring as pickles: 20 a class to train on, 500 to validate, a few to test."""

    def tree(root, words=30, tested=12):
        raw = root / name / "raw"
        raw.mkdir(parents=True)
        train = 20 * classes
        nodes = train + 500 + tested
        x = scipy.sparse.random(nodes, words, 0.2, "csr", np.float32, random_state=0)
        y = np.eye(classes, dtype=np.int32)[np.arange(nodes) % classes]
        graph = {i: [(i + 1) % nodes, (i - 1) % nodes] for i in range(nodes)}
        test = np.arange(nodes - tested, nodes)
        parts = {
            "x": x[:train],
            "y": y[:train],
            "allx": x[:-tested],
            "ally": y[:-tested],
            "tx": x[test],
            "ty": y[test],
            "graph": graph,
        }
        for part, content in parts.items():
            (raw / f"ind.{name.lower()}.{part}").write_bytes(pickle.dumps(content))
        np.savetxt(raw / f"ind.{name.lower()}.test.index", test[::-1], fmt="%d")

    return tree


def ogbn_arxiv(root, nodes=50):
    """Papers that cite the one before, as OGB's compressed tables; the first 30 are to train on."""
    folder = root / "ogbn_arxiv"
    (folder / "raw").mkdir(parents=True)
    (folder / "split" / "time").mkdir(parents=True)
    (folder / "RELEASE_v1.txt").touch()
    number = np.arange(nodes)
    tables = {
        "raw/edge": np.stack([number[1:], number[:-1]], 1),
        "raw/node-feat": np.random.default_rng(0).random((nodes, 128)).round(4),
        "raw/node-label": number % 40,
        "raw/node_year": number + 1970,
        "raw/num-node-list": [nodes],
        "raw/num-edge-list": [nodes - 1],
        "split/time/train": number[:30],
        "split/time/valid": number[30:40],
        "split/time/test": number[40:],
    }
    for name, table in tables.items():
        np.savetxt(folder / f"{name}.csv.gz", table, "%g", ",")


TREES = {
    "modelnet10": modelnet10,
    "ppi": ppi,
    "esol": esol,
    "peptides_func": peptides_func,
    "minesweeper": heterophilous("minesweeper", 7, 2),
    "tolokers": heterophilous("tolokers", 10, 2),
    "roman_empire": heterophilous("roman_empire", 300, 18),
    "cora": planetoid("Cora", 7),
    "citeseer": planetoid("CiteSeer", 6),
    "ogbn_arxiv": ogbn_arxiv,
}
