import shutil
import tarfile

import pytest
import torch
from data.trees import CLASSES, imagenet_tree

from pyg_avig import InputError
from pyg_avig.data import Images
from pyg_avig.graphs import graph_images


@pytest.fixture
def root(tmp_path):
    return imagenet_tree(tmp_path / "imagenet")


def test_a_tree_of_folders(root):
    data = Images(str(root), image_size=64, batch_size=6)
    assert tuple(data.classes) == CLASSES
    data.setup()
    assert {name: len(images) for name, images in data.splits.items()} == {
        "train": 12,
        "val": 6,
        "test": 6,
    }
    batch = next(iter(data.train_dataloader()))
    assert graph_images(batch).shape == (6, 3, 64, 64)
    (whole,) = data.val_dataloader()
    assert whole.y.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm's open tar.
def test_tar_files(root, tmp_path):
    for split in ("train", "val"):
        (tmp_path / "tars").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / "tars" / f"{split}.tar", "w") as tar:
            for name in CLASSES:
                tar.add(root / split / name, name)
    args = {"image_size": 64, "train_split": "train.tar", "val_split": "val.tar"}
    data = Images(str(tmp_path / "tars"), test_split="val.tar", **args)
    plain = Images(str(root), image_size=64)
    for module in (data, plain):
        module.setup("validate")
    assert tuple(data.classes) == CLASSES
    (a,), (b,) = data.val_dataloader(), plain.val_dataloader()
    assert torch.equal(a.x, b.x)
    assert torch.equal(a.y, b.y)


def test_grey_images(root):
    data = Images(str(root), image_size=64, channels=1)
    data.setup("validate")
    (batch,) = data.val_dataloader()
    assert graph_images(batch).shape == (6, 1, 64, 64)


def test_repeated_augmentation_sees_an_image_several_times(root):
    data = Images(str(root), image_size=64, batch_size=6, repeats=3)
    data.setup("fit")
    loader = data.train_dataloader()
    seen = [index for index, _ in loader.sampler]
    assert len(seen) == 12
    assert len(set(seen)) == 4
    images = graph_images(next(iter(loader)))
    assert not torch.equal(images[0], images[1])  # The same one, differently augmented.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"root": "nowhere"}, "data.root as a folder .*'nowhere'"),
        ({"train_split": "training"}, "folder 'training'"),
        ({"reader": "hfds/no/such"}, "timm cannot read"),
    ],
)
def test_what_is_not_there_is_named(root, arguments, message):
    with pytest.raises(InputError, match=message):
        Images(**{"root": str(root), **arguments})


def test_more_classes_than_were_trained_are_refused(root):
    data = Images(str(root), classes=["a", "b"])
    with pytest.raises(InputError, match="other classes in 'val' .* 2 that are known .got 'n01"):
        data.setup("validate")


def test_a_split_without_a_class_keeps_the_others_numbers(root):
    shutil.rmtree(root / "val" / CLASSES[0])
    data = Images(str(root), image_size=64)
    data.setup("validate")
    (batch,) = data.val_dataloader()
    assert batch.y.tolist() == [1, 1, 2, 2]
