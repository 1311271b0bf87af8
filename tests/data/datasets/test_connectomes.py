import importlib.util

import numpy as np
import pytest
import torch

from pyg_avig import InputError
from pyg_avig.data.datasets.connectomes import CLASSES, NUM_REGIONS, MouseConnectomes


def write_mice(folder):
    """A package `graspologic` with four mice in the published layout.

    Region i is joined to i + 1, ..., i + 4; the weight falls with the distance. A pair is given
    once, in either order, as in the published files.
    """
    mice = folder / "graspologic" / "datasets" / "mice"
    (mice / "edgelists").mkdir(parents=True)
    (folder / "graspologic" / "__init__.py").write_text("raise AssertionError('imported')")
    table = ["participant_id,genotype,sex"]
    for mouse, strain in enumerate(reversed(CLASSES)):
        table.append(f"sub-{mouse},{strain},male")
        lines = []
        for i in range(NUM_REGIONS):
            for step in range(1, 5):
                pair = [i, (i + step) % NUM_REGIONS]
                a, b = pair if i % 2 else pair[::-1]
                lines.append(f"{a} {b} {(5 - step) * 10.0 + mouse}")
        (mice / "edgelists" / f"sub-{mouse}_ses-1_dti.edgelist").write_text("\n".join(lines))
    (mice / "participants.csv").write_text("\n".join(table))
    return mice


@pytest.fixture
def mice(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return write_mice(tmp_path)


def test_one_graph_a_mouse(mice, tmp_path):
    data_set = MouseConnectomes(str(tmp_path / "root"), k=None)
    assert len(data_set) == 4
    assert data_set.classes == list(CLASSES)
    assert data_set.y.tolist() == [3, 2, 1, 0]
    data = data_set[1]
    assert data.mouse == "1"
    assert (data.x.shape, data.num_edges) == ((NUM_REGIONS, NUM_REGIONS), 8 * NUM_REGIONS)
    assert data.edge_attr.shape == (data.num_edges, 1)
    weights = dict(zip(map(tuple, data.edge_index.T.tolist()), data.edge_attr, strict=True))
    assert weights[7, 10].expm1().item() == pytest.approx(21, rel=1e-5)
    assert weights[10, 7] == weights[7, 10]
    assert torch.equal(data.x, data.x.T)
    assert data.x.max() == 1
    assert data.x[7, 10].item() == pytest.approx(torch.tensor(22.0).log().item() / 3.73767, 1e-4)
    assert not list((tmp_path / "root").rglob("*.part"))


def test_the_strongest_connections_are_kept_both_ways(mice, tmp_path):
    root = str(tmp_path / "root")
    # The two neighbours on either side are the strongest; a tie goes to the lower index.
    data = MouseConnectomes(root, k=4)[0]
    assert data.num_edges == 4 * NUM_REGIONS
    assert ((data.edge_index[0] - data.edge_index[1]).abs() % (NUM_REGIONS - 2) <= 2).all()
    assert data.is_undirected()
    one = MouseConnectomes(root, k=1)[0]
    assert (0, 1) in set(map(tuple, one.edge_index.T.tolist()))
    assert one.edge_attr.min().expm1().item() == pytest.approx(40, rel=1e-5)
    # Profiles have every connection.
    assert torch.equal(one.x, data.x)
    assert MouseConnectomes(root, k=1000)[0].num_edges == 8 * NUM_REGIONS


def test_of_equals_the_lower_index_is_kept(mice, tmp_path):
    # Regions 1, 2 and 3 are joined to each other as strongly as to region 0.
    lines = [f"0 {i} 7.0" for i in range(1, 10)] + ["1 2 7.0", "2 3 7.0", "1 3 7.0"]
    (mice / "edgelists" / "sub-0_ses-1_dti.edgelist").write_text("\n".join(lines))
    data = MouseConnectomes(str(tmp_path / "root"), k=1)[0]
    pairs = {tuple(sorted(pair)) for pair in data.edge_index.T.tolist()}
    assert pairs == {(0, i) for i in range(1, 10)}


def test_each_k_has_its_own_file(mice, tmp_path):
    root = str(tmp_path / "root")
    edges = [MouseConnectomes(root, k=k)[0].num_edges for k in (2, 4, None)]
    assert len(set(edges)) == 3
    (mice / "participants.csv").unlink()
    assert [MouseConnectomes(root, k=k)[0].num_edges for k in (2, 4, None)] == edges


def test_split_leaves_one_mouse_out(mice, tmp_path):
    data_set = MouseConnectomes(str(tmp_path / "root"))
    split = data_set.split(fold=2)
    assert {name: index.tolist() for name, index in split.items()} == {
        "train": [0, 1, 3],
        "val": [],
        "test": [2],
    }
    assert len(data_set[split["val"]]) == 0
    assert data_set[split["test"]][0].mouse == "2"
    for fold in (-1, 4):
        with pytest.raises(InputError, match=rf"fold from 0 to 3 \(got {fold}\)"):
            data_set.split(fold)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 2.0\n0 one 2.0", "expected lines of two regions and a weight"),
        ("0 1\n1 2", "weight of 0 or more .got 2 columns"),
        ("0 1 -2.0", "weight of 0 or more"),
        ("0 1 nan", "weight of 0 or more"),
        ("0 332 2.0", r"regions from 0 to 331 \(got 0.0 to 332.0\)"),
        ("-1 3 2.0", "regions from 0 to 331"),
        ("0 1 0.0", "expected a connection"),
        (None, "sub-1_ses-1_dti.edgelist"),
    ],
)
def test_broken_edge_lists(mice, tmp_path, text, message):
    path = mice / "edgelists" / "sub-1_ses-1_dti.edgelist"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        MouseConnectomes(str(tmp_path / "root"))
    assert not (tmp_path / "root/processed/top_10.pt").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("participant_id,strain\nsub-0,B6", "columns participant_id and genotype"),
        ("participant_id,genotype\nsub-0,B7", "mice of the strains .*got .'B7'"),
        ("participant_id,genotype", "mice of the strains"),
    ],
)
def test_broken_participants(mice, tmp_path, text, message):
    (mice / "participants.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        MouseConnectomes(str(tmp_path / "root"))


def test_numbers_of_numpy(mice, tmp_path):
    root = str(tmp_path / "root")
    first = MouseConnectomes(root, k=4)
    again = MouseConnectomes(root, k=np.int64(4))
    assert again.processed_paths == first.processed_paths
    assert again.split(np.int64(1))["test"].tolist() == [1]


@pytest.mark.parametrize("k", [0, -1, 2.5])
def test_bad_k(k, tmp_path):
    with pytest.raises(InputError, match="k must be a positive int"):
        MouseConnectomes(str(tmp_path), k=k)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "graspologic" else find(name, *a),
    )
    with pytest.raises(InputError, match="pip install --no-deps graspologic"):
        MouseConnectomes(str(tmp_path))


@pytest.mark.data
def test_the_published_mice(tmp_path):
    if importlib.util.find_spec("graspologic") is None:
        pytest.skip("needs the package graspologic")
    data_set = MouseConnectomes(str(tmp_path))
    assert len(data_set) == 32
    assert data_set.y.bincount().tolist() == [8, 8, 8, 8]
    assert (data_set[0].mouse, data_set.classes[data_set[0].y]) == ("54776", "DBA2")
    for data in data_set:
        assert data.x.shape == (332, 332)
        assert data.is_undirected()
        assert not data.has_self_loops()
        # Some regions have fewer than ten connections in all.
        assert 5 <= data.edge_index[0].bincount(minlength=332).min() <= 10
    # Nodes are the same regions in all mice: their profiles resemble each other.
    profiles = torch.stack([data.x.flatten() for data in data_set])
    assert torch.corrcoef(profiles).min() > 0.7
