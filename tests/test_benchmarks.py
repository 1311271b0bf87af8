import json

import pytest
import torch
from train.runs import options

from benchmarks import growth, loader, models, ops, seeds, timing
from pyg_avig import AxialGraph
from pyg_avig.ops import cross_attention

CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(ops, "STAGES", [(4, 2, 3), (6, 3, 2)])


def test_the_roll_loop_is_a_fair_rival():
    graph = AxialGraph((5, 6), (2, 3), batch_size=2)
    query, key, value = torch.randn(3, graph.num_nodes, 1, 4, dtype=torch.double)
    beta = torch.tensor([1.5], dtype=torch.double)
    expected = cross_attention(query, key, value, graph, beta)
    assert torch.allclose(ops.roll_loop(query, key, value, graph, beta), expected)


def test_lattice_table(small):
    rows = ops.lattice(CPU, torch.float32, repeats=2, batch_size=2)
    table = ops.report(rows)
    assert len(table) == 2 + 2 + 1
    assert "geometric mean" in table[-1]
    assert all(row["bytes"]["ours"] > 0 for row in rows)


def test_no_speed_is_printed_where_outputs_differ(small, monkeypatch):
    right = ops.roll_loop
    monkeypatch.setattr(ops, "roll_loop", lambda *a, **k: 1.01 * right(*a, **k))
    rows = ops.lattice(CPU, torch.float32, repeats=2, batch_size=2)
    assert not any("seconds" in row for row in rows)
    table = ops.report(rows)
    assert len(table) == 2
    assert all("outputs differ" in line and "no speed" in line for line in table)


def test_sparse_table():
    rows = ops.sparse(CPU, torch.float32, repeats=2, nodes=50, edges=200, channels=8)
    assert len(ops.report(rows)) == 2 + 3 + 1


def test_growth_table():
    rows = growth.growth(
        CPU, torch.float32, 1, sides=(7, 14), numbers_of_edges=(32, 64), widths=(2,)
    )
    assert [row["value"] for row in rows if row["of"] == "side of the lattice"] == [7, 14]
    assert all(row["bytes"] > 0 for row in rows)
    assert len(growth.report(rows)) == 2 + 6


@pytest.mark.slow
def test_models_table():
    names = ["attentionvig_nano", "mobilenetv3_small_050"]
    rows = models.models(CPU, torch.float32, repeats=1, names=names, batch_size=2)
    table = models.report(rows)
    assert len(table) == 2 + 6
    assert "attentionvig_nano" in table[2]


def test_loader_table():
    rows = loader.loader(repeats=1, batch_size=2)
    assert rows[0]["difference"] == 0
    assert len(loader.report(rows)) == 3


def test_peak_memory_counts_what_lives_at_once():
    def one_then_another():
        for _ in range(3):
            torch.zeros(1 << 20)

    def together():
        return [torch.zeros(1 << 20) for _ in range(3)]

    assert timing.peak_bytes(one_then_another, CPU) < 1.5 * (4 << 20)
    assert timing.peak_bytes(together, CPU) >= 3 * (4 << 20)


def test_results_keep_their_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "__file__", str(tmp_path / "timing.py"))
    path = timing.save("name", CPU, [{"graph": "a"}])
    content = json.loads(path.read_text())
    assert content["rows"] == [{"graph": "a"}]
    assert content["torch"] == torch.__version__
    assert [p.name for p in path.parent.iterdir()] == ["name.json"]


def test_seeds_table(tmp_path):
    rows = seeds.seeds(["configs/digits/nano.yaml"], 2, options(tmp_path)[1:])
    (row,) = rows
    assert len(row["test_acc"]) == 2
    assert row["test_acc"][0] != row["test_acc"][1] or row["seconds"][0] != row["seconds"][1]
    table = seeds.report([{"config": "a/b.yaml", "test_acc": [0.5, 0.7], "seconds": [1.0, 3.0]}])
    assert table[-1] == "| b | 0.6000 | 0.1414 | 2 | 2 |"
