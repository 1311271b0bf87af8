import importlib.util
import sys

import numpy as np
import pytest
import torch

from pyg_avig import InputError
from pyg_avig.data.datasets.cells import PBMC68k

h5py = pytest.importorskip("h5py")

# A ring of cells, each joined to the next, with weights that differ.
NUM_CELLS, NUM_GENES, NUM_CLASSES = 40, 6, 2


def write_cells(folder, change=None):
    """A package `scanpy` with a small file of the published layout."""
    package = folder / "scanpy"
    (package / "datasets").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('scanpy was imported')")
    rng = np.random.default_rng(0)
    dense = np.zeros((NUM_CELLS, NUM_CELLS))
    for i in range(NUM_CELLS):
        dense[i, (i + 1) % NUM_CELLS] = dense[(i + 1) % NUM_CELLS, i] = (i + 1) / NUM_CELLS
    rows, columns = dense.nonzero()
    cells = np.zeros(NUM_CELLS, [("index", "S16"), ("bulk_labels", "i1"), ("louvain", "i1")])
    cells["bulk_labels"] = np.arange(NUM_CELLS) % 10 == 0  # 36 and 4 cells.
    genes = np.zeros(NUM_GENES, [("index", "S13")])
    genes["index"] = [f"G{i}" for i in range(NUM_GENES)]
    pca = np.zeros(NUM_CELLS, [("X_pca", "<f4", (3,)), ("X_umap", "<f8", (2,))])
    pca["X_pca"] = rng.normal(size=(NUM_CELLS, 3))
    graph = "uns/neighbors/connectivities"
    fields = {
        "X": rng.normal(size=(NUM_CELLS, NUM_GENES)).astype("f4"),
        "obs": cells,
        "var": genes,
        "obsm": pca,
        "uns/bulk_labels_categories": np.array([b"B", b"NK"]),
        f"{graph}/data": dense[rows, columns],
        f"{graph}/indices": columns.astype("i4"),
        f"{graph}/indptr": np.searchsorted(rows, np.arange(NUM_CELLS + 1)).astype("i4"),
    }
    if change is not None:
        change(fields)
    path = package / "datasets" / "10x_pbmc68k_reduced.h5ad"
    with h5py.File(path, "w") as file:
        for name, value in fields.items():
            file[name] = value
    return path


@pytest.fixture
def cells(tmp_path, monkeypatch):
    write_cells(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return PBMC68k(str(tmp_path / "root"))


def test_one_graph_of_cells(cells, tmp_path):
    data = cells[0]
    assert len(cells) == 1
    assert (data.x.shape, data.pca.shape) == ((NUM_CELLS, NUM_GENES), (NUM_CELLS, 3))
    assert (cells.classes, cells.num_classes) == (["B", "NK"], NUM_CLASSES)
    assert cells.gene_names == [f"G{i}" for i in range(NUM_GENES)]
    assert data.y.bincount().tolist() == [36, 4]
    weights = dict(zip(map(tuple, data.edge_index.T.tolist()), data.edge_weight, strict=True))
    assert len(weights) == 2 * NUM_CELLS
    assert weights[4, 5] == weights[5, 4] == pytest.approx(5 / NUM_CELLS)
    assert not list((tmp_path / "root").rglob("*.part"))


def test_prepared_data_are_read_again_without_the_package(cells, tmp_path):
    (tmp_path / "scanpy/datasets/10x_pbmc68k_reduced.h5ad").unlink()
    again = PBMC68k(str(tmp_path / "root"))
    assert torch.equal(again[0].x, cells[0].x)
    assert again.gene_names == cells.gene_names


def test_pre_transform_is_applied_once(tmp_path, monkeypatch):
    write_cells(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def halve(data):
        data.x = data.x / 2
        return data

    whole = PBMC68k(str(tmp_path / "whole"))[0].x
    halved = PBMC68k(str(tmp_path / "halved"), pre_transform=halve)
    assert torch.equal(halved[0].x, whole / 2)
    assert torch.equal(halved[0].x, whole / 2)


def test_split_is_stratified_and_a_function_of_the_seed(cells):
    split = cells.split(seed=3)
    y = cells[0].y
    counts = {name: y[index].bincount().tolist() for name, index in split.items()}
    assert counts == {"train": [21, 2], "val": [4, 1], "test": [11, 1]}
    assert torch.cat(list(split.values())).sort().values.tolist() == list(range(NUM_CELLS))
    torch.manual_seed(1)
    assert all(torch.equal(split[name], cells.split(seed=3)[name]) for name in split)
    assert torch.equal(cells.split(seed=np.int64(3))["test"], split["test"])
    assert not torch.equal(split["test"], cells.split(seed=4)["test"])


def _no_pca(fields):
    fields["obsm"] = fields["obsm"][["X_umap"]]


def _nan(fields):
    fields["X"][3, 2] = np.nan


def _fewer_rows(fields):
    fields["X"] = fields["X"][:-1]


def _strange_label(fields):
    fields["obs"]["bulk_labels"][5] = 2


def _one_way(fields):
    fields["uns/neighbors/connectivities/data"][0] += 1


def _cut_graph(fields):
    name = "uns/neighbors/connectivities/indices"
    fields[name] = fields[name][:-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: fields.pop("obs"), "expected the cells of scanpy.datasets"),
        (_no_pca, "expected the cells of scanpy.datasets.*X_pca"),
        (_nan, "expected finite expression"),
        (_fewer_rows, r"40 cells, 6 genes.*\(got \(39, 6\)"),
        (_strange_label, r"bulk_labels from 0 to 1 \(got 0 to 2\)"),
        (_one_way, "symmetric connectivities"),
        (_cut_graph, r"40 cells as a CSR matrix \(got 40 rows, 79 columns, 80 weights\)"),
    ],
)
def test_broken_files(tmp_path, monkeypatch, change, message):
    write_cells(tmp_path, change)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=message):
        PBMC68k(str(tmp_path / "root"))
    assert not (tmp_path / "root/processed/data.pt").exists()


def test_a_file_that_is_not_hdf5(tmp_path, monkeypatch):
    write_cells(tmp_path).write_bytes(b"no cells")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="10x_pbmc68k_reduced.h5ad: expected the cells"):
        PBMC68k(str(tmp_path / "root"))


def test_missing_packages_are_named(tmp_path, monkeypatch):
    write_cells(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "h5py", None)
        with pytest.raises(InputError, match="pip install h5py"):
            PBMC68k(str(tmp_path / "root"))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "scanpy" else find(name, *a)
    )
    with pytest.raises(InputError, match="pip install --no-deps scanpy"):
        PBMC68k(str(tmp_path / "root"))


@pytest.mark.data
def test_the_published_cells(tmp_path):
    if importlib.util.find_spec("scanpy") is None:
        pytest.skip("needs the package scanpy")
    cells = PBMC68k(str(tmp_path))
    data = cells[0]
    assert (data.x.shape, data.pca.shape, data.num_edges) == ((700, 765), (700, 50), 9992)
    assert data.y.bincount().tolist() == [68, 8, 19, 54, 43, 129, 95, 13, 31, 240]
    assert cells.classes[-1] == "Dendritic"
    assert cells.gene_names[:2] == ["HES4", "TNFRSF4"]
    assert not data.has_self_loops()
    assert not data.has_isolated_nodes()
    # Neighbours are mostly of one type: the labels belong to these rows.
    source, target = data.edge_index
    assert (data.y[source] == data.y[target]).float().mean() > 0.7
    split = cells.split()
    assert {name: len(index) for name, index in split.items()} == {
        "train": 421,
        "val": 70,
        "test": 209,
    }
    assert all(data.y[index].bincount(minlength=10).min() >= 1 for index in split.values())
