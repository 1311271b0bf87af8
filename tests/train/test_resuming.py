"""A training that was ended goes on to the very weights of an undisturbed one."""

import json
import signal
import threading

import pytest
import pytorch_lightning as pl
import torch
from data.loading.test_graph_data import Graphs
from data.loading.test_streams import write_shards
from data.neighbors import Connected
from data.trees import CLASSES, imagenet_tree
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from train.runs import Signal

from pyg_avig.data import Digits, GraphData, Images
from pyg_avig.train import GraphTask, ImageClassifier
from pyg_avig.train.interruption import LastCheckpoint, Stopped

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists"),
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has"),
    # WebDataset leaves the closing of its shards to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class KilledError(Exception):
    pass


class Watch(Callback):
    """Notes what is seen; ends the training before a batch, as a power cut would."""

    def __init__(self, killed_at=None):
        self.killed_at = killed_at
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.killed_at:
            raise KilledError
        self.seen.append((trainer.current_epoch, batch_idx, float(batch.x.double().sum())))


def graphs(folder, num_workers=0, batch_size=4):
    data = GraphData(
        Graphs(label=lambda n: torch.tensor([n % 2])),
        batch_size=batch_size,
        num_workers=num_workers,
        augment=[Noise()],
    )
    # Dropout draws in training.
    return GraphTask(data.facts, {"channels": 8, "num_blocks": 1, "dropout": 0.2}, lr=1e-2), data


def neighbors(folder, num_workers=0, batch_size=4):
    data = GraphData(
        Connected(nodes=32, edges=128),
        level="node",
        batch_size=batch_size,
        num_workers=num_workers,
        augment=[Noise()],
        num_neighbors=[2, 2],
    )
    return GraphTask(data.facts, {"channels": 8, "num_blocks": 2, "dropout": 0.2}, lr=1e-2), data


class Noise:
    """A random transform."""

    def __call__(self, data):
        data.x = data.x + torch.randn(data.x.shape)
        return data


def images(folder, num_workers=0, batch_size=4):
    data = Digits(limit=16, batch_size=batch_size, num_workers=num_workers)
    return classifier(data), data


def streams(folder, num_workers=0, batch_size=4):
    shards = folder.parent / "shards"
    if not shards.exists():
        imagenet_tree(folder.parent / "tree")
        splits = {split: write_shards(shards, split) for split in ("train", "val")}
        (shards / "_info.json").write_text(json.dumps({"splits": splits}))
    given = {"reader": "wds/", "classes": list(CLASSES), "image_size": 32}
    data = Images(str(shards), **given, batch_size=batch_size, num_workers=num_workers)
    return classifier(data), data


def classifier(data):
    small = {"channels": [8] * 4, "head_hidden_size": 16, "drop_path_rate": 0.2}
    mixup = {"mixup_alpha": 0.8}
    return ImageClassifier(data.classes, data.data_config, model_args=small, mixup=mixup, lr=1e-2)


def train(make, folder, *callbacks, data=None, killed_at=None, ckpt_path=None, **args):
    """Train for three epochs; the weights, and what was seen."""
    pl.seed_everything(0, verbose=False)
    watch = Watch(killed_at)
    limits = {"max_epochs": 3} if "max_steps" not in args else {"max_epochs": -1}
    trainer = pl.Trainer(
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        callbacks=[watch, *callbacks],
        **{**limits, **args},
    )
    task, module = make(folder, **(data or {}))
    try:
        trainer.fit(task, module, ckpt_path=ckpt_path)
    except KilledError:
        assert killed_at is not None
    return task.state_dict(), watch.seen


def saving(folder, **when):
    return [ModelCheckpoint(folder, filename="x", enable_version_counter=False, **when)]


def averaged(folder, **when):
    return [*saving(folder, **when), EMAWeightAveraging(decay=0.5)]


def check_resumes(make, folder, when, callbacks=saving, **args):
    """The weights and batches of a resumed training are those of an undisturbed one."""
    expected, seen = train(make, folder / "a", *callbacks(folder / "a", **when), **args)
    train(make, folder / "b", *callbacks(folder / "b", **when), killed_at=(1, 2), **args)
    saved = str(folder / "b" / "x.ckpt")
    found, after = train(
        make, folder / "b", *callbacks(folder / "b", **when), ckpt_path=saved, **args
    )
    assert 0 < len(after) < len(seen)
    assert after == seen[-len(after) :]
    different = [name for name in expected if not torch.equal(expected[name], found[name])]
    assert not different
    return len(after), len(seen)


END, VALIDATED = {"save_on_train_epoch_end": True}, {"save_on_train_epoch_end": False}
MID = {"every_n_train_steps": 1}
THREE = {"accumulate_grad_batches": 3, "data": {"batch_size": 6}}


@pytest.mark.parametrize("when", [END, MID], ids=["epoch", "batch"])
@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("make", [graphs, images, streams])
def test_killed(make, num_workers, when, tmp_path):
    if make is streams:
        pytest.importorskip("webdataset")
    left, batches = check_resumes(make, tmp_path, when, data={"num_workers": num_workers})
    assert left == batches * 2 // 3 - (2 if when is MID else 0)


@pytest.mark.parametrize("when", [END, MID], ids=["epoch", "batch"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_killed_with_batches_of_neighbours(num_workers, when, tmp_path, neighbor_sampler):
    left, batches = check_resumes(neighbors, tmp_path, when, data={"num_workers": num_workers})
    assert left == batches * 2 // 3 - (2 if when is MID else 0)


@pytest.mark.parametrize(
    ("when", "args"),
    [
        (MID, {"accumulate_grad_batches": 2}),
        # Between two updates, when gradients wait for the next.
        (
            {"save_on_train_epoch_end": False},
            {**THREE, "val_check_interval": 2},
        ),
        ({"save_on_train_epoch_end": False}, {"val_check_interval": 2}),
        ({"save_on_train_epoch_end": False}, {}),
        ({"every_n_train_steps": 4}, {}),
        (END, {"max_steps": 11}),
        (MID, {"max_steps": 11}),
        (END, {"limit_train_batches": 3}),
        (MID, {"limit_train_batches": 3}),
    ],
    ids=str,
)
def test_killed_in_trainings_of_other_forms(when, args, tmp_path):
    check_resumes(graphs, tmp_path, when, **args)


def test_killed_with_averaged_weights(tmp_path):
    check_resumes(graphs, tmp_path, MID, averaged)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_ended_within_an_epoch_by_max_steps(num_workers, tmp_path):
    args = {"data": {"num_workers": num_workers}}
    _, seen = train(graphs, tmp_path / "a", max_steps=11, **args)
    last = LastCheckpoint(tmp_path / "b")
    train(graphs, tmp_path / "b", last, max_steps=6, **args)
    # The learning rate of a training of 6 updates is another; only what is seen is compared.
    last, saved = LastCheckpoint(tmp_path / "b"), str(tmp_path / "b" / "last.ckpt")
    _, after = train(graphs, tmp_path / "b", last, max_steps=11, ckpt_path=saved, **args)
    assert after == seen[6:]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_signal_saves_and_stops(number, accumulated, tmp_path):
    args = {"accumulate_grad_batches": accumulated}
    expected, seen = train(graphs, tmp_path / "a", **args)
    stop = Signal(number, 1, 0), LastCheckpoint(tmp_path / "b")
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Stopped) as stopped:
        train(graphs, tmp_path / "b", *stop, **args)
    assert stopped.value.code == 128 + number
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    last = LastCheckpoint(tmp_path / "b")
    saved = stopped.value.checkpoint
    found, after = train(graphs, tmp_path / "b", last, ckpt_path=saved, **args)
    assert after == seen[-len(after) :]
    assert len(after) == len(seen) * 2 // 3 - accumulated
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_signal_in_the_last_batch_waits_for_the_validation(tmp_path):
    last = LastCheckpoint(tmp_path)
    with pytest.raises(Stopped):
        train(graphs, tmp_path, Signal(signal.SIGTERM, 0, 3), last)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    progress = content["loops"]["fit_loop"]["epoch_progress"]["current"]
    assert progress["processed"] == 1


def test_the_last_checkpoint_is_of_the_last_epoch(tmp_path):
    last = LastCheckpoint(tmp_path)
    train(graphs, tmp_path, last, check_val_every_n_epoch=2)
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["epoch"] == 2
    assert content["global_step"] == 12


def test_outside_the_main_thread_no_signal_is_heard(tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=train, args=(graphs, tmp_path, LastCheckpoint(tmp_path)))
    thread.start()
    thread.join()
    assert (tmp_path / "last.ckpt").exists()
    assert signal.getsignal(signal.SIGTERM) == handler
