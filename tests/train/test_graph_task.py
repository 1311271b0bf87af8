import json
import math

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from data.loading.test_graph_data import Folded, Graphs, Nodes
from data.neighbors import Connected
from pytorch_lightning.callbacks import StochasticWeightAveraging
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    roc_auc_score,
)
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import RandomLinkSplit

from pyg_avig import InputError
from pyg_avig.data import GraphData
from pyg_avig.train import GraphTask
from pyg_avig.train.cli import CLI, main

SMALL = {"channels": 8, "num_blocks": 1}
pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")


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


def scores(data, task, split="val"):
    """The labels of a split and what a task says of them."""
    with torch.no_grad():
        batches = list(data.loader(split))
        pairs = [task._of_split(task(batch), batch, split) for batch in batches]
    return torch.cat([y for _, y in pairs]), torch.cat([out for out, _ in pairs])


def test_two_classes_and_the_mean_over_classes_are_scored_as_scikit_learn_does():
    data = GraphData(Graphs(label=lambda n: torch.tensor([int(n % 3 == 0)])), batch_size=3)
    names = ["auroc", "ap", "class_acc"]
    task = fit(data, epochs=1, metrics=names)
    (metrics,) = trainer().test(task, data.train_dataloader(), verbose=False)
    assert set(metrics) == {"test_loss", *(f"test_{name}" for name in names)}
    loader = data.train_dataloader()
    seen = torch.cat([batch.y for batch in loader])
    with torch.no_grad():
        p = torch.cat([task(batch).softmax(-1)[:, 1] for batch in loader])
    assert metrics["test_auroc"] == pytest.approx(roc_auc_score(seen, p), abs=1e-6)
    assert metrics["test_ap"] == pytest.approx(average_precision_score(seen, p), abs=1e-6)
    expected = balanced_accuracy_score(seen, p > 0.5)
    assert metrics["test_class_acc"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("graphs", "task", "metrics", "message"),
    [
        (Graphs(), "multiclass", ["auroc"], "two classes, for the metric auroc .got 3"),
        (Graphs(), "multiclass", ["rmse"], "metrics among acc, .* for multiclass .got 'rmse'"),
        (
            Graphs(label=lambda n: torch.tensor([0])),
            "multiclass",
            None,
            "two classes or more .got 1",
        ),
        (
            Graphs(label=lambda n: torch.tensor([[1.0]])),
            "multilabel",
            None,
            "two labels or more .got 1",
        ),
    ],
)
def test_metrics_of_other_labels_are_refused(graphs, task, metrics, message):
    with pytest.raises(InputError, match=message):
        GraphTask(GraphData(graphs, task=task).facts, SMALL, metrics=metrics)


@pytest.mark.parametrize("split", ["val", "test"])
def test_labels_of_one_class_have_no_roc(split):
    """Of a whole split: those that Lightning's check sees may be of one class."""

    class Sorted(Graphs):
        def split(self):
            parts = [torch.arange(first, last) for first, last in ((0, 10), (10, 15), (15, 20))]
            return dict(zip(("train", "val", "test"), parts, strict=True))

    def data(classes):
        label = lambda n: torch.tensor([classes if n > 9 and n != 13 else n % 2])  # noqa: E731
        return GraphData(Sorted(label=label), batch_size=1)

    task = GraphTask(data(1).facts, SMALL, metrics=["auroc"])
    runner = trainer(max_epochs=1, limit_val_batches=None, num_sanity_val_steps=2)
    if split == "val":  # Graph 13 is of the other class.
        runner.fit(task, data(0))
        assert 0 <= runner.callback_metrics["val_auroc"] <= 1
    message = f"labels of both classes in the split {split}, for the metric auroc"
    one = data(1)
    one.parts[split] = one.parts[split][0], [14, 15, 16]
    with pytest.raises(InputError, match=message):
        runner.test(task, one) if split == "test" else trainer(
            max_epochs=1, limit_val_batches=None
        ).fit(task, one)


def test_a_batch_without_a_known_target_teaches_nothing():
    label = lambda n: torch.tensor([[torch.nan if n else 1.0, torch.nan if n else 0.0]])  # noqa: E731
    for task in ("multilabel", "regression"):
        data = GraphData(Graphs(label=label), Graphs(3), task=task, batch_size=1)
        module = fit(data, epochs=1)
        assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_batches_of_neighbours_are_evaluated_as_the_whole_graph(neighbor_sampler):
    args = {"level": "node", "batch_size": 7}
    whole = GraphData(Connected(), **args)
    data = GraphData(Connected(), **args, num_neighbors=[3, 2])
    assert data.facts == whole.facts
    pl.seed_everything(0, verbose=False)
    task = GraphTask(data.facts, {**SMALL, "num_blocks": 2}, lr=1e-2, metrics=["auroc", "acc"])
    trainer(max_epochs=2).fit(task, data)
    task.eval()
    for split in ("train", "val", "test"):
        y, out = scores(data, task, split)
        expected_y, expected = scores(whole, task, split)
        assert torch.equal(y, expected_y)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    (some,) = trainer().test(task, data, verbose=False)
    (all_at_once,) = trainer().test(task, whole, verbose=False)
    assert some == pytest.approx(all_at_once, rel=1e-5)


def test_batches_of_neighbours_teach_what_neighbours_say(neighbor_sampler):
    """The class is a matter of the neighbours alone, so that it is not learned without them."""
    data = GraphData(Connected(200, 800), level="node", batch_size=20, num_neighbors=[5])
    pl.seed_everything(0, verbose=False)
    task = GraphTask(data.facts, {"channels": 16, "num_blocks": 1}, lr=1e-2)
    trainer(max_epochs=15).fit(task, data)
    (metrics,) = trainer().test(task, data, verbose=False)
    assert metrics["test_acc"] > 0.7


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"num_blocks": 3}, "num_neighbors for each of the model's 3 blocks .got 2"),
        ({"graph": "knn", "graph_args": {"k": 2, "of": "x"}}, "on the edges at hand"),
    ],
)
def test_neighbours_that_do_not_fit_the_model_are_refused(args, message, neighbor_sampler):
    data = GraphData(Connected(), level="node", num_neighbors=[3, 2])
    task = GraphTask(data.facts, {**SMALL, **args})
    with pytest.raises(InputError, match=message):
        trainer(max_epochs=1).fit(task, data)


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


def test_masks_of_nodes_choose_no_pairs():
    """As in Planetoid's graphs, when their edges are learned."""
    data = GraphData(Connected(), level="edge", transform=[RandomLinkSplit()])
    task = GraphTask(data.facts, SMALL).eval()
    (batch,) = data.test_dataloader()
    out, y = task._of_split(task(batch), batch, "test")
    assert batch.test_mask is not None
    assert len(out) == len(y) == batch.edge_label_index.size(1)


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


class Trained(Graphs):
    """Graphs without any for validation or test."""

    def split(self):
        none = torch.empty(0, dtype=torch.long)
        return {"train": torch.arange(20), "val": none, "test": none}


@pytest.mark.filterwarnings("ignore:Total length of", "ignore:The dirpath has changed")
def test_a_split_without_graphs_is_not_measured_on(tmp_path, capsys):
    given = words(tmp_path, "--data.dataset=train.test_graph_task.Trained")
    assert main(["fit", *given]) == 0
    checkpoint = max(tmp_path.rglob("*.ckpt"))
    for command, split in (("validate", "validation"), ("test", "test")):
        assert main([command, *given, f"--ckpt_path={checkpoint}"]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said == f"pyg-avig: expected data with a {split} split to measure on (got none)"


def test_a_bare_assertion_of_a_data_set_says_what_it_asserts(tmp_path, capsys):
    given = words(tmp_path, "--data.dataset=torch_geometric.datasets.Planetoid")
    cora = [f"--data.dataset.{word}" for word in (f"root={tmp_path}", "name=Cora", "split=none")]
    assert main(["fit", *given, *cora]) == 2
    (*_, line) = capsys.readouterr().err.splitlines()
    assert "(got AssertionError: torch_geometric.datasets.Planetoid: assert " in line
    assert "'public'" in line
    assert "Namespace" not in line


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


def test_statistics_may_differ_in_their_last_digits(tmp_path, capsys):
    """As they do where another number of threads sums: the checkpoint's are taken."""
    given = words(tmp_path, "--data.task=regression", "--trainer.max_epochs=1")
    assert main(["fit", *given]) == 0
    saved = max(tmp_path.rglob("*.ckpt"))
    content = torch.load(saved, weights_only=True)
    facts = content["hyper_parameters"]["facts"]
    facts["mean"] = [facts["mean"][0] + 3e-7]
    torch.save(content, saved)
    cli = CLI(["test", *given, f"--ckpt_path={saved}"])
    assert cli.model.hparams["facts"]["mean"] == facts["mean"]
    assert cli.model.mean.tolist() == torch.tensor(facts["mean"]).tolist()
    facts["mean"] = [facts["mean"][0] + 0.1]
    torch.save(content, saved)
    assert main(["test", *given, f"--ckpt_path={saved}"]) == 2
    assert "expected a checkpoint with facts" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "bf16-mixed"])
def test_precisions_leave_labels_and_statistics_alone(precision):
    data = GraphData(Graphs(label=lambda n: torch.tensor([1000.0 + n])), task="regression")
    task = GraphTask(data.facts, SMALL, opt_args={"eps": 1e-4})  # That halves can hold.
    trainer(precision=precision, max_epochs=1).fit(task, data)
    assert torch.equal(task.mean, torch.tensor(data.facts["mean"]))
    assert all(parameter.isfinite().all() for parameter in task.parameters())
    task = GraphTask(data.facts, SMALL).eval()
    plain, other = (
        trainer(precision=p).test(task, data.train_dataloader(), verbose=False)[0]
        for p in ("32-true", precision)
    )
    assert other["test_mae"] == pytest.approx(plain["test_mae"], rel=0.02)


def plain_loader(data, split="train"):
    return DataLoader(list(data.items(split)), batch_size=4)


@pytest.mark.parametrize(
    ("args", "recipe"),
    [
        ({"max_epochs": 2}, {"lr_batch_size": 16}),
        ({"max_epochs": 3, "callbacks": [StochasticWeightAveraging(0.1)]}, {}),
        ({"max_epochs": -1, "max_time": {"seconds": 1}}, {"sched": "constant", "warmup_epochs": 1}),
        ({"max_epochs": -1, "max_steps": 5}, {"warmup_epochs": 1}),
        ({"max_epochs": 1, "accumulate_grad_batches": 2}, {"lr_batch_size": 16}),
    ],
    ids=["epochs", "swa", "time", "steps", "accumulated"],
)
@pytest.mark.filterwarnings("ignore:SWA is currently", "ignore:Swapping scheduler")
def test_any_trainer_and_loader_will_do(args, recipe):
    data = GraphData(Graphs(label=lambda n: torch.tensor([n % 2])))
    task = GraphTask(data.facts, SMALL, lr=0.1, **recipe)
    runner = trainer(**args)
    runner.fit(task, plain_loader(data))
    assert runner.global_step > 0
    (optimizer,) = runner.optimizers
    scale = 4 * args.get("accumulate_grad_batches", 1) / recipe.get("lr_batch_size", 4)
    assert optimizer.param_groups[0]["initial_lr"] == pytest.approx(0.1 * scale)


class Rates(pl.Callback):
    """Notes the learning rate of each update."""

    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])


def rates(limits, **recipe):
    """The learning rates of a training with 4 updates an epoch."""
    data = GraphData(Graphs(label=lambda n: torch.tensor([n % 2])))
    noted = Rates()
    task = GraphTask(data.facts, SMALL, lr=1.0, warmup_lr=0.1, min_lr=0.01, **recipe)
    trainer(callbacks=[noted], **limits).fit(task, plain_loader(data))
    return noted.rates


def test_a_warm_up_ends_where_steps_limit_the_training():
    by_steps = rates({"max_epochs": -1, "max_steps": 12}, warmup_epochs=1)
    assert by_steps == rates({"max_epochs": 3}, warmup_epochs=1)
    assert by_steps[:4] == pytest.approx([0.1, 0.325, 0.55, 0.775])
    assert by_steps[4] > 0.7
    assert 0.01 < by_steps[-1] < 0.1
    # Within an epoch, too.
    assert len(set(rates({"max_epochs": 9, "max_steps": 6}, warmup_epochs=1))) == 6


@pytest.mark.parametrize(
    ("sched", "args", "expected"),
    [
        ("step", None, [1.0] * 12 + [0.1] * 12 + [0.01] * 12 + [0.001] * 4),
        ("step", {"decay_epochs": 5, "decay_rate": 0.5}, [1.0] * 20 + [0.5] * 20),
        # timm's milestones come an update early.
        ("multistep", None, [1.0] * 11 + [0.1] * 12 + [0.01] * 12 + [0.001] * 5),
        ("multistep", {"decay_milestones": [2, 3]}, [1.0] * 7 + [0.1] * 4 + [0.01] * 29),
    ],
)
def test_steps_come_within_a_training_of_any_length(sched, args, expected):
    found = rates({"max_epochs": 10}, sched=sched, sched_args=args)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("recipe", "limits", "message"),
    [
        ({"sched_args": {"decay": 2}}, {}, "sched_args among .*decay_epochs.* .got decay"),
        ({"sched_args": {"min_lr": 2}}, {}, "got min_lr"),
        (
            {"sched": "multistep", "sched_args": {"decay_milestones": 3}},
            {"max_epochs": 1},
            "cannot make the schedule multistep",
        ),
        ({}, {"max_epochs": -1}, "max_epochs or max_steps for sched 'cosine'"),
        ({"sched": "step"}, {"max_epochs": -1}, "sched_args with decay_epochs for sched 'step'"),
        ({"opt": "fusedadam"}, {"max_epochs": 1}, "cannot make the optimiser fusedadam"),
        ({"opt_args": {"foo": 1}}, {"max_epochs": 1}, "cannot make the optimiser adamw .*foo"),
    ],
)
def test_what_a_recipe_cannot_be_is_said(recipe, limits, message):
    with pytest.raises(InputError, match=message):
        rates(limits, **recipe)


def test_a_loader_without_a_length_or_a_batch_size():
    data = GraphData(Graphs(label=lambda n: torch.tensor([n % 2])))
    batches = list(plain_loader(data))

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from batches

    loader = torch.utils.data.DataLoader(Stream(), batch_size=None)
    for recipe, limits, message in (
        ({}, {"max_epochs": 2}, "max_epochs or max_steps"),
        ({"warmup_epochs": 1}, {"max_epochs": -1, "max_steps": 2}, "knows its length"),
        ({"sched": "constant", "lr_batch_size": 8}, {"max_epochs": 2}, "with a batch_size"),
    ):
        with pytest.raises(InputError, match=message):
            trainer(**limits).fit(GraphTask(data.facts, SMALL, **recipe), loader)
    for recipe, limits in (
        ({"sched": "constant"}, {"max_epochs": 2}),
        ({}, {"max_epochs": -1, "max_steps": 3}),
    ):
        runner = trainer(**limits)
        runner.fit(GraphTask(data.facts, SMALL, **recipe), loader)
        assert runner.global_step > 2


@pytest.mark.filterwarnings("ignore:Total length of")
def test_nothing_to_train_on_is_said():
    data = GraphData(Graphs(label=lambda n: torch.tensor([n % 2])))
    loader = DataLoader([], batch_size=4)
    with pytest.raises(InputError, match="a batch to train on"):
        trainer(max_epochs=1).fit(GraphTask(data.facts, SMALL), loader)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph")
@pytest.mark.parametrize("opt", ["adahessian", "lars", "lookahead_adamw", "muon", "madgrad"])
def test_optimisers_of_other_kinds_train(opt):
    data = GraphData(Graphs(label=lambda n: torch.tensor([n % 2])))
    task = GraphTask(data.facts, SMALL, opt=opt, lr=1e-3)
    before = {name: value.clone() for name, value in task.named_parameters()}
    trainer(max_epochs=1).fit(task, plain_loader(data))
    moved = [
        name for name, value in task.named_parameters() if not torch.equal(value, before[name])
    ]
    assert moved
    assert all(value.isfinite().all() for value in task.parameters())
