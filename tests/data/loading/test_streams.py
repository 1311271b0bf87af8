import io
import json
import logging
import tarfile

import pytest
import torch
from data.trees import CLASSES, imagenet_tree

from pyg_avig import InputError
from pyg_avig.data import Images
from pyg_avig.graphs import graph_images
from pyg_avig.train.cli import CLI

pytest.importorskip("webdataset")
# WebDataset leaves the closing of its shards to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def write_shards(shards, split, per_shard=3):
    """Shards of an image tree, in WebDataset's layout."""
    files = [
        (path, label)
        for label, name in enumerate(CLASSES)
        for path in sorted((shards.parent / "tree" / split / name).iterdir())
    ]
    shards.mkdir(exist_ok=True)
    names = []
    for first in range(0, len(files), per_shard):
        names.append(f"{split}-{first // per_shard:04d}.tar")
        with tarfile.open(shards / names[-1], "w") as tar:
            for n, (path, label) in enumerate(files[first : first + per_shard]):
                for suffix, content in (("jpg", path.read_bytes()), ("cls", str(label).encode())):
                    info = tarfile.TarInfo(f"{split}{first + n:06d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return {
        "name": split,
        "num_samples": len(files),
        "filenames": names,
        "shard_lengths": [per_shard] * len(names),
    }


@pytest.fixture
def shards(tmp_path):
    imagenet_tree(tmp_path / "tree")
    folder = tmp_path / "shards"
    splits = {split: write_shards(folder, split) for split in ("train", "val")}
    (folder / "_info.json").write_text(json.dumps({"splits": splits}))
    return folder


def streamed(shards, **args):
    return Images(
        str(shards), reader="wds/", classes=list(CLASSES), image_size=64, batch_size=4, **args
    )


def test_shards_give_what_the_tree_gives(shards):
    data, plain = streamed(shards), Images(str(shards.parent / "tree"), image_size=64, batch_size=4)
    for module in (data, plain):
        module.setup("validate")
    pairs = list(zip(data.val_dataloader(), plain.val_dataloader(), strict=True))
    for a, b in pairs:
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)
    assert sum(len(a.y) for a, _ in pairs) == 6


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_depends_on_seed_and_number_alone(shards, num_workers):
    def epoch(number):
        data = streamed(shards, num_workers=num_workers)
        data.setup("fit")
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)
        batches = list(loader)
        assert len(batches) == len(loader)
        return torch.cat([graph_images(batch) for batch in batches])

    first = epoch(0)
    assert torch.equal(first, epoch(0))
    assert not torch.equal(first, epoch(1))


def test_split_by_shards_and_number(shards):
    data = streamed(shards, train_split="train-{0000..0003}.tar|12")
    data.setup("fit")
    assert len(data.train_dataloader()) == 3


@pytest.mark.filterwarnings("ignore:Your `IterableDataset` has")
def test_training_on_a_stream(shards, tmp_path):
    args = ["fit", "--data=Images", f"--data.root={shards}", "--data.reader=wds/"]
    args += [f"--data.classes={json.dumps(list(CLASSES))}", "--data.image_size=32"]
    args += ["--data.batch_size=4", "--trainer.max_epochs=2", "--trainer.logger=false"]
    args += ["--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={tmp_path}"]
    cli = CLI(args)
    assert cli.trainer.global_step == 6


def test_a_broken_image_is_left_out(shards, caplog):
    with tarfile.open(shards / "val-0000.tar", "w") as tar:
        for suffix, content in (("jpg", b"no image"), ("cls", b"1")):
            info = tarfile.TarInfo(f"broken.{suffix}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    data = streamed(shards)
    data.setup("validate")
    with caplog.at_level(logging.WARNING):
        assert sum(len(batch.y) for batch in data.val_dataloader()) == 3
    assert "UnidentifiedImageError" in caplog.text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"classes": None}, "expected `classes`"),
        ({"train_split": "nothing"}, "timm cannot read 'nothing'"),
        ({"repeats": 3}, "repeats of 1"),
    ],
)
def test_what_a_stream_cannot_do_is_said(shards, args, message):
    def train():
        data = Images(str(shards), **{"reader": "wds/", "classes": list(CLASSES), **args})
        data.setup("fit")
        data.train_dataloader()

    with pytest.raises(InputError, match=message):
        train()
