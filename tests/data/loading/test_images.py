import logging
import shutil
import tarfile

import pytest
import torch
from data.trees import CLASSES, imagenet_tree
from PIL import Image
from timm.data.readers import get_img_extensions

from pyg_avig import InputError
from pyg_avig.data import Images
from pyg_avig.data.loading.image_trees import image_endings
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


@pytest.fixture
def untidy(root):
    """What lies in folders beside images, and formats that are rarer."""
    first, second = (root / "train" / name for name in CLASSES[:2])
    with Image.open(next(first.iterdir())) as image:
        for ending in (".webp", ".BMP", ".tif", ".gif", ".ppm", ".jp2"):
            image.save(first / f"other{ending}")
        for name in (".hidden.png", "._mac.JPEG"):
            image.save(second / name, format="PNG")
        for folder in (root / "train" / ".thumbnails", second / ".cache", second / "deeper"):
            folder.mkdir()
            image.save(folder / "a.png")
        image.save(root / "train" / "stray.png")
    (first / "notes.txt").write_text("")
    (first / "Thumbs.db").write_text("")
    (root / "train" / "list.csv").write_text("")
    (root / "train" / "n01500000").mkdir()
    return root


def test_what_is_on_disk_and_what_is_taken_are_compared(untidy, caplog):
    data = Images(str(untidy), image_size=64)
    assert data.classes == [CLASSES[0], CLASSES[1], "n01500000", CLASSES[2]]
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
    labels = [label for _, label in data.splits["train"].reader.samples]
    assert [labels.count(n) for n in range(4)] == [4 + 6, 4 + 1, 0, 4]
    assert {data.splits["train"][n][1] for n in range(len(labels))} == {0, 1, 3}
    assert not data.splits["train"].bad.any()
    assert [label for _, label in data.splits["val"].reader.samples] == [0, 0, 1, 1, 3, 3]
    assert "took 19 images and left 2 files of other endings (1 ." in caplog.text
    assert "1 images in no folder of a class; 1 folders without images ('n01500000')" in caplog.text
    assert "no images of 1 of 4 classes in 'train': 'n01500000'" in caplog.text
    assert "no images of 1 of 4 classes in 'val': 'n01500000'" in caplog.text


def test_links_in_a_circle_are_not_followed(root):
    first, second = (root / "train" / name for name in CLASSES[:2])
    for name, folder in (("self", first), ("all", root / "train"), ("other", second)):
        (first / name).symlink_to(folder)
    data = Images(str(root), image_size=64)
    data.setup("fit")
    labels = [label for _, label in data.splits["train"].reader.samples]
    assert [labels.count(n) for n in range(3)] == [4 + 4, 4, 4]


def test_a_tidy_tree_needs_no_words(root, caplog):
    with caplog.at_level(logging.WARNING):
        Images(str(root)).setup()
    assert caplog.records == []


def test_an_empty_folder_of_no_class_is_no_class(root):
    (root / "val" / "empty").mkdir()
    data = Images(str(root))
    data.setup("validate")
    assert len(data.splits["val"]) == 6


def test_classes_are_numbered_alike_wherever_names_are_equal_in_order(tmp_path):
    names = ["b10", "B2", "b2", "a"]
    for name in names:
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "train" / name / "a.png")
    assert Images(str(tmp_path)).classes == ["a", "B2", "b2", "b10"]


def test_a_tree_without_folders_of_classes_is_named(tmp_path):
    (tmp_path / "train").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "train" / "a.png")
    with pytest.raises(InputError, match="one folder a class.*0 folders and 1 images beside them"):
        Images(str(tmp_path))


def test_every_format_that_pillow_reads_counts():
    endings = image_endings()
    assert {".jpg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".ppm"} <= endings
    assert not {".pdf", ".h5", ".hdf", ".mpg", ".txt", ""} & endings


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm's open tar.
def test_tar_files_are_read_as_folders_are(untidy, tmp_path, caplog):
    before = get_img_extensions()
    (tmp_path / "tars").mkdir()
    shutil.rmtree(untidy / "train" / CLASSES[1] / "deeper")
    with tarfile.open(tmp_path / "tars" / "train.tar", "w") as tar:
        tar.add(untidy / "train", ".")
    with caplog.at_level(logging.WARNING):
        data = Images(str(tmp_path / "tars"), train_split="train.tar", val_split="train.tar")
    assert "left 1 images in no folder of a class" in caplog.text
    assert tuple(data.classes) == CLASSES
    data.setup("fit")
    labels = [data.splits["val"][n][1] for n in range(len(data.splits["val"]))]
    assert [labels.count(n) for n in range(3)] == [4 + 6, 4, 4]
    assert not data.splits["val"].bad.any()
    assert get_img_extensions() == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tar_files_whose_folders_share_a_name_are_refused(root, tmp_path):
    for name in CLASSES:
        (root / "train" / name).rename(root / "images")
        (root / "train" / name).mkdir()
        (root / "images").rename(root / "train" / name / "images")
    assert tuple(Images(str(root)).classes) == CLASSES
    with tarfile.open(tmp_path / "train.tar", "w") as tar:
        tar.add(root / "train", "train")
    with pytest.raises(InputError, match="one folder a class .got train/n01440764/images and"):
        Images(str(tmp_path), train_split="train.tar")


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


def test_a_training_says_that_there_is_no_test(root, caplog):
    Images(str(root)).setup("fit")
    assert "pyg-avig test" not in caplog.text  # By default it is the validation split.
    Images(str(root), test_split="test").setup("fit")
    assert "there is no 'test', of which `pyg-avig test` would measure" in caplog.text


def test_a_small_tree_is_looked_through_before_a_training(root):
    broken = next((root / "val").rglob("*.JPEG"))
    broken.write_bytes(b"no image")
    data = Images(str(root))
    data.setup("test")  # What is only measured is read once anyway.
    with pytest.raises(InputError, match=f"got 1 broken of 6: .*{broken.name}"):
        data.setup("fit")
