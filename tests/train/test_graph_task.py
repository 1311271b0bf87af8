import json
import math

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from data.loading.test_graph_data import Folded, Graphs, Nodes
from sklearn.metrics import average_precision_score, f1_score
from torch_geometric.loader import DataLoader

from pyg_avig import InputError
from pyg_avig.data import GraphData
from pyg_avig.train import GraphTask
from pyg_avig.train.cli import CLI, main

SMALL = {"channels": 8, "num_blocks": 1}


def trainer(**args):
    """A trainer that only trains and tests."""
    args = {"limit_val_batches": 0, **args}
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(**quiet, enable_model_summary=False, accelerator="cpu", **args)


def fit(data, epochs=20, **args):
    pl.seed_everything(0, verbose=False)
    task = GraphTask(data.facts, SMALL, lr=1e-2, **args)
    trainer(max_epochs=epochs).fit(task, data)
    return task.eval()


def test_classes_of_graphs_are_learned():
    data = GraphData(Graphs(label=lambda n: torch.tensor([n // 10])), batch_size=8)
    task = fit(data)
    (metrics,) = trainer().test(task, data.train_dataloader(), verbose=False)
    assert metrics["test_acc"] > 0.8  # 0.94 in the worst of ten seeds.
    assert set(metrics) == {"test_loss", "test_acc", "test_f1"}


def test_the_loss_is_a_mean_over_graphs_not_batches():
    data = GraphData(Graphs(label=lambda n: torch.tensor([n % 2])), batch_size=3)
    task = fit(data, epochs=1)
    loader = DataLoader(list(data.items("train")), batch_size=3)
    batches = list(loader)
    assert len({batch.num_graphs for batch in batches}) == 2
    (metrics,) = trainer().test(task, loader, verbose=False)
    with torch.no_grad():
        losses = torch.cat([F.cross_entropy(task(b), b.y, reduction="none") for b in batches])
    assert metrics["test_loss"] == pytest.approx(losses.mean().item(), rel=1e-5)


def test_a_loss_that_is_no_number_shows():
    data = GraphData(Graphs(label=lambda n: torch.tensor([n % 2])), batch_size=3)
    task = GraphTask(data.facts, SMALL)
    items = list(data.items("train"))
    items[0].x = items[0].x * torch.nan
    (metrics,) = trainer().test(task, DataLoader(items, batch_size=3), verbose=False)
    assert math.isnan(metrics["test_loss"])


def test_images_are_not_its_data(capsys):
    args = ["--model=GraphTask", "--data=Digits", "--trainer.logger=false"]
    assert main(["fit", *args]) == 2
    assert "expected GraphData for a GraphTask" in capsys.readouterr().err


def test_metrics_are_those_of_scikit_learn():
    data = GraphData(Folded(label=lambda n: torch.tensor([(n * n) % 3])), batch_size=5)
    task = fit(data, epochs=1)
    batches = list(data.train_dataloader())
    (metrics,) = trainer().test(task, data.train_dataloader(), verbose=False)
    with torch.no_grad():
        predicted = torch.cat([task(batch).argmax(-1) for batch in batches])
    y = torch.cat([batch.y for batch in batches])
    expected = f1_score(y, predicted, average="macro", labels=[0, 1], zero_division=0)
    assert metrics["test_acc"] == pytest.approx((y == predicted).float().mean().item())
    # torchmetrics leaves out a class that neither occurs nor is predicted.
    assert metrics["test_f1"] == pytest.approx(expected, abs=1e-6)


def test_numbers_are_predicted_in_their_own_unit():
    graphs = Graphs(label=lambda n: torch.tensor([1000.0 + 10 * n]))
    data = GraphData(graphs, task="regression", batch_size=8)
    task = fit(data, epochs=40)
    batches = list(data.train_dataloader())
    (metrics,) = trainer().test(task, data.train_dataloader(), verbose=False)
    with torch.no_grad():
        errors = torch.cat([task(batch).flatten() - batch.y for batch in batches])
    assert metrics["test_rmse"] == pytest.approx(errors.square().mean().sqrt().item(), rel=1e-3)
    assert metrics["test_mae"] == pytest.approx(errors.abs().mean().item(), rel=1e-3)
    assert metrics["test_rmse"] < 0.7 * 58  # The deviation of the targets.


def test_several_labels_at_once():
    label = lambda n: torch.tensor([[float(n > 9), float(n < 5)]])  # noqa: E731
    data = GraphData(Graphs(label=label), task="multilabel", batch_size=8)
    (metrics,) = trainer().test(fit(data, epochs=40), data.train_dataloader(), verbose=False)
    assert set(metrics) == {"test_loss", "test_ap", "test_f1"}
    assert metrics["test_f1"] > 0.8  # 0.96 in the worst of ten seeds.


@pytest.mark.parametrize("batch_size", [1, 20])
def test_several_labels_are_scored_as_scikit_learn_scores_them(batch_size):
    label = lambda n: torch.tensor([[float(n % 2), float(n > 9)]])  # noqa: E731
    data = GraphData(Graphs(label=label), task="multilabel", batch_size=16)
    task = fit(data, epochs=1)
    batches = list(GraphData(Graphs(label=label), task="multilabel").train_dataloader())
    data.batch_size = batch_size
    (metrics,) = trainer().test(task, data.train_dataloader(), verbose=False)
    with torch.no_grad():
        out = torch.cat([task(batch) for batch in batches])
    y = torch.cat([batch.y for batch in batches])
    assert metrics["test_ap"] == pytest.approx(average_precision_score(y, out), abs=1e-5)
    assert metrics["test_f1"] == pytest.approx(f1_score(y, out > 0, average="micro"), abs=1e-5)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_targets_that_are_not_known_are_left_out(task):
    def label(n):
        return torch.tensor([[float(n % 2), torch.nan if n % 3 else float(n > 9)]])

    data = GraphData(Graphs(label=label), task=task, batch_size=8)
    module = fit(data, epochs=2)
    (metrics,) = trainer().test(module, data.train_dataloader(), verbose=False)
    assert all(torch.tensor(list(metrics.values())).isfinite())
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_large_targets_keep_their_digits_in_half_precision():
    data = GraphData(Graphs(label=lambda n: torch.tensor([1000.0 + n])), task="regression")
    task = GraphTask(data.facts, SMALL).eval()
    plain, half = (
        trainer(precision=precision).test(task, data.train_dataloader(), verbose=False)[0]
        for precision in ("32-true", "bf16-mixed")
    )
    assert half["test_rmse"] == pytest.approx(plain["test_rmse"], rel=0.02)


def test_nodes_are_counted_in_their_own_split_alone():
    data = GraphData(Nodes(), level="node")
    task = GraphTask(data.facts, SMALL)
    (batch,) = data.test_dataloader()
    outs = task.eval()(batch)
    for split in ("train", "val", "test"):
        out, y = task._of_split(outs, batch, split)
        mask = batch[f"{split}_mask"]
        assert torch.equal(out, outs[mask])
        assert torch.equal(y, batch.y[mask])


def test_balancing_weighs_rare_classes_more():
    data = GraphData(Graphs(label=lambda n: torch.tensor([int(n > 16)])), split={"seed": 1})
    task = GraphTask(data.facts, SMALL, balance=True)
    shares = torch.tensor(data.facts["shares"])
    assert torch.allclose(task.weight * shares, torch.full((2,), 0.5))
    assert "weight" not in task.state_dict()
    facts = {**data.facts, "shares": [0.5, 0.5, 0.0], "out_channels": 3}
    assert GraphTask(facts, SMALL, balance=True).weight[2] == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"model_args": {"width": 3}}, "model_args as arguments of ViG .*width"),
        ({"opt": "none"}, "opt must be an optimiser of timm .got 'none'"),
    ],
)
def test_bad_input_is_named(args, message):
    with pytest.raises(InputError, match=message):
        GraphTask(GraphData(Graphs()).facts, **args)


def test_balance_needs_classes():
    facts = GraphData(Graphs(label=lambda n: torch.tensor([1.0 * n])), task="regression").facts
    with pytest.raises(InputError, match="multiclass task, to balance"):
        GraphTask(facts, balance=True)


def words(folder, *more):
    return [
        "--model=GraphTask",
        f"--model.model_args={json.dumps(SMALL)}",
        "--data=GraphData",
        "--data.dataset=data.loading.test_graph_data.Graphs",
        "--data.batch_size=4",
        "--trainer.max_epochs=2",
        "--trainer.logger=CSVLogger",
        f"--trainer.logger.save_dir={folder}",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        *more,
    ]


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_the_command_line_trains_resumes_and_tests(tmp_path, capsys):
    cli = CLI(["fit", *words(tmp_path)])
    assert cli.trainer.global_step == 8
    checkpoint = max(tmp_path.rglob("*.ckpt"))
    cli = CLI(["fit", *words(tmp_path, f"--ckpt_path={checkpoint}", "--trainer.max_epochs=3")])
    assert cli.trainer.global_step == 12
    assert main(["test", *words(tmp_path, f"--ckpt_path={checkpoint}")]) == 0
    assert "test_f1" in capsys.readouterr().out
    wider = '--model.model_args={"channels": 16, "num_blocks": 1}'
    assert main(["test", *words(tmp_path, f"--ckpt_path={checkpoint}", wider)]) == 2
    assert "checkpoint with model_args" in capsys.readouterr().err
