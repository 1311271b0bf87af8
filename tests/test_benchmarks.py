import importlib.util
import json
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from data.packages import install
from data.scenes import labels_tree
from torch_geometric.data import Batch, Data
from train.runs import options

from benchmarks import (
    accuracy,
    attention,
    degraded,
    dense,
    growth,
    images,
    large_graphs,
    loader,
    models,
    ops,
    roofline,
    sag_vit,
    seeds,
    serving,
    small_graphs,
    timing,
    trainings,
)
from benchmarks.__main__ import main
from pyg_avig import AxialGraph, CrossAttnConv
from pyg_avig.ops import cross_attention, kernels
from pyg_avig.ops.kernels.build import instruction_sets, instructions, library
from pyg_avig.train import ImageClassifier, export_int8
from pyg_avig.train.cli import CLI

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


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_flex_attention_is_a_fair_rival():
    graph = AxialGraph((5, 6), (2, 3), batch_size=2)
    query, key, value = torch.randn(3, graph.num_nodes, 1, 16)
    beta = torch.tensor([1.5])
    expected = cross_attention(query, key, value, graph, beta)
    found = ops.flex(query, key, value, ops.flex_mask(graph, CPU), beta)
    torch.testing.assert_close(found, expected)


def test_rivals_that_do_not_run_are_named(capsys):
    def broken(*inputs):
        raise RuntimeError("no compiler\nand much more")

    x = torch.ones(2, requires_grad=True)
    assert list(ops._that_run({"broken": broken, "sum": torch.sum}, [x])) == ["sum"]
    assert capsys.readouterr().out == "broken does not run here: no compiler\n"


def test_a_rival_without_numbers_has_none_in_the_table():
    times = {"Triton": 1.0, "roll": 3.0}
    rows = [
        {"graph": name, "ours": ["Triton"], "bytes": {}, "seconds": {"forward": more}}
        for name, more in (("a", times), ("b", {**times, "flex": 2.0}))
    ]
    table = ops.report(rows)
    assert table[0].endswith("| roll / ours, forward | flex / ours, forward |")
    assert table[2].endswith("| 3.00 | – |")
    assert table[4].endswith("| 3.00 | 2.00 |")


def test_on_a_gpu_its_kernels_are_measured_unless_they_failed(monkeypatch):
    monkeypatch.setattr(kernels.gpu, "_has_triton", lambda: True)
    gpu = torch.device("cuda")
    refusal = partial(kernels.refusal, gpu, torch.float32)
    used = ops.on_each_instruction_set(refusal, gpu, torch.float32)
    assert list(used) == ["Triton", ops.WITHOUT_KERNELS]
    assert used["Triton"]() is None
    assert "PYG_AVIG_KERNELS=0" in used[ops.WITHOUT_KERNELS]()
    monkeypatch.setattr(kernels.gpu, "_failed", {(torch.device("cuda:0"), torch.float32)})
    assert list(ops.on_each_instruction_set(refusal, gpu, torch.float32)) == ["ours"]


@pytest.mark.parametrize("edge_dim", [None, 3])
def test_peers_on_a_gpu(monkeypatch, edge_dim):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    peers = ops._peers(8, 4, 2, edge_dim, on_gpu=True)
    assert list(peers) == ["TransformerConv", "GATConv", "GATv2Conv"]
    attr = None if edge_dim is None else torch.randn(2, edge_dim)
    for peer in peers.values():
        assert peer(torch.randn(3, 8), torch.tensor([[0, 1], [1, 2]]), attr).shape == (3, 8)


@pytest.mark.parametrize("command", ["ops", "layer", "models", "roofline"])
def test_without_a_gpu_cuda_is_refused_in_a_line(command):
    with pytest.raises(SystemExit, match="device cuda: torch .* sees no GPU here"):
        main([command, "--device=cuda"])


def test_bytes_of_a_csr_matrix():
    """Three nodes, five edges, two heads of four channels."""
    moved = roofline.Csr(3, 5, 2, 4).moved(torch.bfloat16)
    pointer_and_columns, weights = (4 + 5) * 8, 5 * 2 * 4
    row, scales = 2 * 4 * 2, 2 * 4
    assert moved["pairs"].least == pointer_and_columns + weights + (3 + 3) * row
    assert moved["pairs"].most == pointer_and_columns + weights + (3 + 5) * row
    assert moved["cosines"].most == moved["pairs"].most + (3 + 5) * scales
    assert moved["spread"] == moved["pairs"]
    assert moved["spread, transposed"].least == moved["spread"].least + 5 * 8


def test_bytes_of_a_lattice():
    """Two lattices of four by four nodes, classes of two, three channels."""
    features, weights, scales = 32 * 3, 32 * 2, 32
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2)):
        moved = roofline.Lattice(2, 4, 2, 3).moved(dtype)
        assert moved["pairs"].least == 2 * (2 * features * size + weights * 4)
        assert moved["cosines"].least == moved["pairs"].least + 2 * 2 * scales * 4
        sums = 2 * features * 4 + features * size
        assert moved["spread"].least == 2 * (features * size + weights * 4) + sums
        assert moved["spread"].least == moved["spread"].most


def test_bytes_of_passes(capsys):
    shapes = [roofline.Csr(3, 5, 2, 4), roofline.Lattice(2, 4, 2, 3)]
    rows = roofline.on_paper([torch.float32], shapes)
    for row in rows:
        moved = {name: value.most for name, value in row["bytes"].items()}
        assert moved["forward"] == moved["cosines"] + moved["spread"]
        backward = moved["pairs"] + moved["spread"] + 2 * moved["spread, transposed"]
        assert moved["forward+backward"] == moved["forward"] + backward
    main(["roofline"])
    printed = capsys.readouterr().out
    assert "computed and not measured" in printed
    # 50001 + 800000 indices, 800000 weights, 50000 and 50000 to 800000 rows of 128 numbers.
    assert "| 50000 nodes, 800000 edges, 1 x 128 | float32 |" in printed
    assert roofline._megabytes(roofline.SHAPES[0].moved(torch.float32)["pairs"]) == "61 to 445"


@pytest.mark.skipif(library() is None, reason="needs the C++ kernels: no compiler, or switched off")
def test_roofline_table():
    shapes = [roofline.Csr(30, 90, 2, 4), roofline.Lattice(2, 4, 2, 3)]
    rows = roofline.measured(CPU, torch.float32, 2, shapes)
    assert len(rows) == 2 * 4
    assert all(row["seconds"] > 0 for row in rows)
    table = roofline.report_measured(rows)
    assert len(table) == 4 + 8
    assert "GB/s" in table[0]


@pytest.mark.skipif(library() is None, reason="needs the C++ kernels: no compiler, or switched off")
def test_what_is_measured_are_the_passes_of_the_operator(monkeypatch):
    """The products on paper are those that forward and backward call."""
    called = []
    for name in ("csr_pairs", "csr_spread", "axial_pairs", "axial_spread"):
        function = getattr(kernels, name)

        def spy(*args, name=name, function=function):
            scaled = name.endswith("pairs") and bool(args[4 if name == "csr_pairs" else 2])
            transposed = args[2] is not None if name == "csr_spread" else args[2] is True
            product = "cosines" if scaled else name.split("_")[1]
            features = args[3] if name == "csr_spread" else args[2 if name == "csr_pairs" else 0]
            if features.size(-1) > 1:  # Sums of weights are products with ones.
                called.append(product + ", transposed" * (name.endswith("spread") and transposed))
            return function(*args)

        monkeypatch.setattr(kernels, name, spy)
    products = ["cosines", "spread"]
    products += ["pairs", "spread", "spread, transposed", "spread, transposed"]
    for graph, backend in ((torch.randint(8, (2, 20)), "csr"), (AxialGraph((4, 2)), "axial")):
        called.clear()
        inputs = [torch.randn(8, 1, 3, requires_grad=True) for _ in range(3)]
        cross_attention(*inputs, graph, torch.ones(1), backend=backend).sum().backward()
        assert called[:2] == products[:2]
        assert sorted(called) == sorted(products)


def test_lattice_table(small):
    rows = ops.lattice(CPU, torch.float32, repeats=2, batch_size=2)
    table = ops.report(rows)
    ours = rows[0]["ours"]
    assert [line.count("geometric mean") for line in table].count(1) == len(ours)
    assert len(table) == 2 + 3 * len(ours) + 3 + 2
    assert all(row["bytes"][ours[0]] > 0 for row in rows)


@pytest.mark.skipif(library() is None, reason="needs the C++ kernels: no compiler, or switched off")
def test_every_instruction_set_and_none_are_measured(small, monkeypatch):
    backward = []

    def watched(*args, **kwargs):
        out = cross_attention(*args, **kwargs)
        if out.requires_grad:
            out.register_hook(lambda grad: backward.append(instructions()))
        return out

    monkeypatch.setattr(ops, "cross_attention", watched)
    rows = ops.lattice(CPU, torch.float32, repeats=1, batch_size=2)
    sets = instruction_sets()[::-1]
    assert rows[0]["ours"] == sets
    assert list(rows[0]["seconds"]["forward"])[: len(sets) + 1] == [*sets, ops.WITHOUT_KERNELS]
    assert set(backward) == {*sets, None}
    used = ops.on_each_instruction_set(instructions, CPU, torch.float32)
    assert [call() for call in used.values()] == [*sets, None]
    assert instructions() in sets


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
    assert len(ops.report(rows)) == 2 + 5 * len(rows[0]["ours"]) + 3 + 4


def test_growth_table():
    rows = growth.growth(
        CPU,
        torch.float32,
        1,
        sides=(7, 14),
        numbers_of_edges=(32, 64),
        widths=(2,),
        few_edges=(16,),
        strides=(18,),
    )
    assert [row["value"] for row in rows if row["of"] == "side of the lattice"] == [7, 14]
    assert all(row["bytes"] > 0 for row in rows)
    by_backend = [row for row in rows if row["of"].startswith(("few edges", "stride"))]
    assert {row["of"].split(", ")[-1] for row in by_backend} >= {"axial", "edge_list"}
    assert len(growth.report(rows)) == 2 + 6 + len(by_backend)


def test_sag_vit_table(monkeypatch):
    rows = sag_vit.sag_vit(CPU, repeats=1, batch_size=2, sides=(96,))
    table = sag_vit.report(rows)
    assert len(table) == 2 + 3
    assert rows[0]["difference"] < 1e-5
    monkeypatch.setattr(sag_vit.GraphPerImage, "edges", lambda *size: torch.zeros(2, 1).long())
    rows = sag_vit.sag_vit(CPU, repeats=1, batch_size=2, sides=(144,))
    assert "seconds" not in rows[0]
    assert "no speed" in sag_vit.report(rows)[-1]


def test_steps_on_what_a_loader_brings():
    (row,) = models.fed(CPU, torch.float32, ["attentionvig_nano"], 2, 0, batches=2, warm_up=1)
    assert 0 < row["waiting"] < 1
    assert row["images/s"] > 0
    assert len(models.report_fed([row])) == 3


@pytest.mark.slow
def test_models_table():
    names = ["attentionvig_nano"]
    rows = models.models(CPU, torch.float32, repeats=1, names=names, batch_size=2)
    table = models.report(rows)
    assert len(table) == 2 + 5
    assert "attentionvig_nano" in table[2]
    assert [line.endswith("| - |") for line in table[2:]] == [
        "onnxruntime" in line for line in table[2:]
    ]


@pytest.mark.parametrize("study", images.CONFIGS)
def test_rivals_of_images_fit_their_model(study):
    recipe = yaml.safe_load(Path(images.CONFIGS[study]).read_text())
    data = {"input_size": [1, 32, 32], "mean": [0.3], "std": [0.4], "crop_pct": 1.0}
    for change in images.rivals(study).values():
        args = trainings.merged(recipe, change)["model"]
        model = ImageClassifier(["a", "b", "c"], data, **args).eval()
        assert model(torch.randn(2, 1, 32, 32)).shape == (2, 3)


def test_features_table():
    names = ["resnet18", "mobilenetv3_small_050"]
    rows = models.features(CPU, torch.float32, repeats=1, names=names, sizes=[(64, 70)])
    table = models.report(rows)
    assert len(table) == 2 + 4
    assert "training step, 64 x 70" in table[-1]
    assert all(size > 0 for row in rows for size in row["bytes"].values())


@pytest.mark.slow
def test_dense_trainings(tmp_path, monkeypatch):
    """What is written is not run again; another budget is another table."""
    monkeypatch.setattr(timing, "__file__", str(tmp_path / "timing.py"))
    labels_tree(tmp_path)
    data = {"batch_size": 2, "classes": ["a", "b"]}
    segmenter = {"segmenter_args": {"pyramid_channels": 16}}
    changes = {"trainer": {"max_epochs": 1}, "model": {"init_args": segmenter}}
    changes["data"] = {"init_args": data}
    place = {"data": {"init_args": {"root": str(tmp_path)}}}
    config = "configs/own_data/semantic.yaml"
    soft = {"attentionvig_nano, softmax": dense.change("attentionvig_nano, softmax")}
    both = {**soft, "resnet18": dense.change("resnet18")}
    first = trainings.trainings("streets", config, 1, soft, changes, place)
    monkeypatch.setattr(timing, "environment", lambda device: {"device": "another"})
    rows = trainings.trainings("streets", config, 2, both, changes, place)
    assert [(row["rival"], row["seed"]) for row in rows] == [
        ("attentionvig_nano, softmax", 0),
        ("resnet18", 0),
        ("attentionvig_nano, softmax", 1),
        ("resnet18", 1),
    ]
    assert rows[0] == first[0]
    assert rows[0]["metrics"] != rows[2]["metrics"]
    assert set(rows[0]["metrics"]) == {"test_loss", "test_miou", "test_acc"}
    assert rows[0]["parameters"] < rows[1]["parameters"]
    assert all(0 < row["processor_seconds"] for row in rows)
    others = {"resnet18": both["resnet18"]}
    assert len(trainings.trainings("streets", config, 2, others, changes)) == 2  # None is run.
    assert str(tmp_path) not in (tmp_path / "results" / "streets.json").read_text()
    with pytest.raises(ValueError, match="'streets' have changes"):
        trainings.trainings("streets", config, 2, soft, {})


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """What would be trained: recipes and seeds."""
    monkeypatch.setattr(timing, "__file__", str(tmp_path / "timing.py"))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    seen = []

    def run(recipe, seed):
        seen.append(recipe)
        metrics = {"test_loss": 1.0, "test_acc": 0.5, "test_f1": 0.25}
        return {"metrics": metrics, "processor_seconds": 3, "seconds": 4, "parameters": 2e6}

    monkeypatch.setattr(trainings, "_run", run)
    return seen


def test_the_command_of_dense_tasks_changes_its_recipe(recipes, capsys):
    options = ["--max_epochs=2", "--root=here", "--rivals=[resnet18]"]
    options += ["--data={batch_size: 3, augmentation: [{class_path: a.Transform}]}"]
    options += ["--model={detector_args: {min_size: 99}}", "--number=1"]
    main(["dense", "--name=cells", "--recipe=configs/own_data/masks.yaml", *options])
    printed = capsys.readouterr().out
    assert "| resnet18 | 0.500 ± 0.000 | 0.250 ± 0.000 | 1 | 2.0 M | 3 |" in printed
    assert timing.saved("dense-cells")[0]["rival"] == "resnet18"
    (recipe,) = recipes
    assert recipe["trainer"]["max_epochs"] == 2
    assert recipe["data"]["init_args"]["root"] == "here"
    assert recipe["data"]["init_args"]["batch_size"] == 3
    assert recipe["data"]["init_args"]["augmentation"] == [{"class_path": "a.Transform"}]
    assert recipe["model"]["init_args"]["name"] == "resnet18"
    assert recipe["model"]["init_args"]["detector_args"]["min_size"] == 99
    assert recipe["model"]["init_args"]["detector_args"]["max_size"] == 448


def test_the_command_of_aggregations_changes_its_config(recipes, capsys):
    options = ["--root=here", '--rivals=[GATConv, "CrossAttnConv, softmax"]', "--number=2"]
    options += ["--metrics=[f1]", "--model={model_args: {channels: 8}}"]
    main(["accuracy", "--domain=minesweeper", "--max_epochs=3", *options])
    assert "| GATConv | 0.250 ± 0.000 | 2 | 2.0 M | 3 |" in capsys.readouterr().out
    assert len(timing.saved("accuracy-minesweeper-3-epochs")) == 4
    gat, softmax, *_ = recipes
    assert gat["data"]["init_args"]["dataset"]["init_args"] == {
        "root": "here",
        "name": "minesweeper",
    }
    assert gat["trainer"]["max_epochs"] == 3
    assert gat["model"]["init_args"]["model_args"]["aggregation"] == "gat"
    assert gat["model"]["init_args"]["model_args"]["channels"] == 8
    assert softmax["model"]["init_args"]["model_args"]["aggregation_args"]["affinity"] == "softmax"


def test_aggregations_are_trained_on_the_fold_of_their_number():
    config = {
        "trainer": {**trainings.QUIET_TRAINER, "max_epochs": 1},
        "model": {"class_path": "pyg_avig.train.GraphTask"},
        "data": {
            "class_path": "pyg_avig.data.GraphData",
            "init_args": {
                "dataset": {"class_path": "pyg_avig.data.Minesweeper", "init_args": {"size": 5}},
                "level": "node",
                "split": {"fold": 0},
            },
        },
    }
    model = {"init_args": {"model_args": {"channels": 8, "num_blocks": 1}}}
    config = trainings.merged(
        trainings.merged(config, {"model": model}),
        accuracy.changes(["GATConv"], on_degraded=True)["GATConv, 30 %"],
    )
    assert config["model"]["init_args"]["model_args"]["graph_args"] == {"remove": 0.3, "add": 0.3}
    cli = trainings.made(config, 3)
    assert cli.config["data"]["init_args"]["split"] == {"fold": 3}
    assert config["data"]["init_args"]["split"] == {"fold": 0}
    assert set(trainings._run(config, 3)["metrics"]) >= {"test_loss", "test_acc"}


def test_degraded_report():
    rows = [
        {"rival": degraded.named(rival, share), "metrics": {"test_acc": accuracy}}
        for rival, share, accuracy in (
            ("a, b", 0, 0.9),
            ("a, b", 10, 0.5),
            ("a, b", 10, 0.7),
            ("c", 50, 0.25),
        )
    ]
    assert degraded.report(rows, "what", "acc") == [
        "| what | 0 % | 10 % | 50 % | runs |",
        "|---|---|---|---|---|",
        "| a, b | 0.900 ± 0.000 | 0.600 ± 0.141 | - | 1 |",
        "| c | - | - | 0.250 ± 0.000 | 1 |",
    ]


def test_trainings_report():
    rows = [
        {"rival": "a", "metrics": {"test_loss": 1, "test_miou": miou}, "processor_seconds": seconds}
        for miou, seconds in ((0.5, 1.0), (0.7, 3.0))
    ]
    table = trainings.report([{**row, "parameters": 2000} for row in rows], "backbone")
    assert table[0] == "| backbone | miou | runs | parameters | processor seconds a training |"
    assert table[-1] == "| a | 0.600 ± 0.141 | 2 | 2 k | 2 |"
    untimed = [{"rival": "a", "metrics": rows[0]["metrics"], "parameters": 2e6}]
    assert trainings.report(untimed, "layer")[-1] == "| a | 0.500 ± 0.000 | 1 | 2.0 M |"


def test_changes_reach_into_a_config():
    config = {"a": {"b": 1, "c": {"d": 2}}, "e": [3]}
    assert trainings.merged(config, {"a": {"c": {"f": 4}}, "e": [5]}) == {
        "a": {"b": 1, "c": {"d": 2, "f": 4}},
        "e": [5],
    }
    assert config["e"] == [3]


@pytest.mark.parametrize("sampled", [False, pytest.param(True, marks=pytest.mark.sparse)])
def test_large_graphs_table(sampled):
    (row,) = large_graphs.large_graphs(1, ((3000, 9000, sampled),))
    assert row["updates"] == 1
    assert row["bytes"] >= row["before"] > 2**26
    assert row["train_seconds"] > 0
    assert "3,000 | 9,000" in large_graphs.report([row])[2]


def test_edges_that_carry_the_prediction_go_first():
    """Of two edges, one brings what the output is, the other nothing."""
    conv = CrossAttnConv(1, 1, bias=False)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.fill_(1)
    x = torch.tensor([[0.0], [5.0], [1e-6]])
    graph = Batch.from_data_list([Data(x=x, edge_index=torch.tensor([[1, 2], [0, 0]]))] * 2)

    class Value(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv

        def forward(self, batch):
            return self.conv(batch.x, batch.edge_index)[::3]

    found = attention._curves(Value(), graph, seed=0)
    by_gradient = found["gradient"]
    # Whatever the share, the first edge is the first to go, and the last to.
    assert by_gradient["deletion"].shape == (len(attention.SHARES), 2)
    assert (by_gradient["deletion"] > 0.1).all()
    assert (by_gradient["insertion"] < 1e-3).all()
    assert torch.equal(by_gradient["deletion"][:, 0], by_gradient["deletion"][:, 1])


def test_places_are_those_within_a_graph():
    place = attention._place(torch.tensor([1.0, 3, 2, 5, 4]), torch.tensor([0, 0, 0, 1, 1]))
    assert place.tolist() == pytest.approx([2 / 3, 0, 1 / 3, 0, 0.5])


@pytest.mark.slow
def test_attention_table(tmp_path, monkeypatch):
    install("freesolv", tmp_path, monkeypatch)
    rows = attention.attention("freesolv", 2, max_epochs=1, limit=20)
    assert len(attention.report(rows)) == 2 + 5
    assert {row["order"] for row in rows} >= {"weight", "gradient", "chance"}
    assert all(len(row["deletion"]) == 2 for row in rows)
    assert attention.area([2.0] * len(attention.SHARES)) == pytest.approx(2)


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
    assert len(row["metrics"]) == len(row["seconds"]) == 2
    assert row["metrics"][0] != row["metrics"][1]
    assert set(row["metrics"][0]) == {"test_loss", "test_acc", "test_f1", "test_mcc"}
    row = {"config": "a/b.yaml", "metrics": [{"acc": 0.5}, {"acc": 0.7}], "seconds": [1.0, 3.0]}
    assert seeds.report([row])[-1] == "| b | 0.6000 ± 0.1414 | 2 | 2 |"


def test_small_graphs_table():
    names = list(small_graphs.RIVALS)
    rows = small_graphs.small_graphs(None, 2, names, epochs=1)
    assert [row["rival"] for row in rows] == names
    assert all(0 <= value <= 1 for row in rows for value in row["accuracy"]["KarateClub"])
    table = small_graphs.report(rows)
    assert len(table) == 2 + len(names)
    assert table[0] == "| layer | KarateClub | seconds a run |"


@pytest.mark.slow
def test_each_form_of_export_is_tried_on_the_tests(tmp_path, monkeypatch):
    run = CLI(["fit", *options(tmp_path)])
    checkpoint = f"{run.trainer.log_dir}/checkpoints/best.ckpt"
    forms = ("model.safetensors", "model.safetensors, bf16", "model.onnx, int8")
    monkeypatch.setattr(serving, "FORMS", {form: serving.FORMS[form] for form in forms})
    monkeypatch.setattr(export_int8, "LOSS", 1.0)
    rows = serving.serving(checkpoint, repeats=1, batch_size=20)
    assert [(row["data"], row["form"], row["images"]) for row in rows] == [
        ("Digits", form, 16) for form in forms
    ]
    sizes = {row["form"]: row["bytes"] for row in rows}
    assert sizes["model.safetensors, bf16"] < 0.7 * sizes["model.safetensors"]
    table = serving.report(rows)
    assert len(table) == 2 + len(forms)
    assert table[2].endswith("| 1.00 |")
