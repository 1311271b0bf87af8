import numpy as np
import pytest
import torch
from data.scenes import labels_tree, picture
from PIL import Image
from torchvision.transforms import v2

from pyg_avig import InputError
from pyg_avig.data import SegmentationFolder

CLASSES = ["road", "sky"]


@pytest.fixture
def root(tmp_path):
    return labels_tree(tmp_path / "streets")


def scenes(root, split="train", **args):
    data = SegmentationFolder(str(root), **{"classes": CLASSES, **args})
    data.setup()
    return data.splits[split]


def test_images_and_labels_of_one_name(root):
    found = scenes(root)
    assert len(found) == 3
    image, labels = found[2]
    assert image.shape == (3, 48, 56)
    assert labels.shape == (48, 56)
    assert labels.unique().tolist() == [0, 1, 255]
    assert labels[0].unique().tolist() == [255]


def test_files_that_are_no_images_are_passed_over(root):
    for name in ("notes.pdf", "clip.mpg", ".hidden.jpg"):
        (root / "images" / "train" / name).write_bytes(b"no image")
    assert len(scenes(root)) == 3


def test_a_layout_like_ade20k(tmp_path):
    picture(tmp_path / "images/training/a.jpg", (8, 8))
    path = tmp_path / "annotations/training/a.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.tile(np.array([0, 1, 2, 1], np.uint8), (8, 2))).save(path)
    args = {"labels": "annotations/{split}", "train_split": "training", "val_split": "training"}
    found = scenes(tmp_path, **args, test_split="training", values=[1, 2], ignore=[0])
    assert found[0][1][0].tolist() == [255, 0, 1, 0] * 2


def test_a_layout_like_cityscapes(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path / f"leftImg8bit/{split}/ulm/ulm_0_leftImg8bit.png", (8, 8))
        for kind in ("labelTrainIds", "labelIds"):
            path = tmp_path / f"gtFine/{split}/ulm/ulm_0_gtFine_{kind}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 1, np.uint8)).save(path)
    found = scenes(
        tmp_path,
        images="leftImg8bit/{split}",
        labels="gtFine/{split}",
        image_suffix="_leftImg8bit.png",
        label_suffix="_gtFine_labelTrainIds.png",
    )
    assert len(found) == 1
    assert found[0][1].unique().tolist() == [1]


def test_a_palette_is_not_looked_up(root):
    image = Image.fromarray(np.ones((48, 40), np.uint8), mode="P")
    image.putpalette([7, 8, 9] * 256)
    image.save(root / "labels/train/0.png")
    assert scenes(root)[0][1].unique().tolist() == [1]


def test_what_augmentation_fills_in_is_ignored(root):
    data = SegmentationFolder(
        str(root),
        CLASSES,
        batch_size=3,
        augmentation=[v2.RandomCrop((64, 64), pad_if_needed=True)],
    )
    data.setup("fit")
    ((images, labels),) = data.train_dataloader()
    assert [tuple(image.shape) for image in images] == [(3, 64, 64)] * 3
    for image, one in zip(images, labels, strict=True):
        filled = image.sum(0) == 0
        assert filled.any()
        assert (one[filled] == 255).all()
        assert set(one[~filled].unique().tolist()) <= {0, 1, 255}
        assert (one != 255).any()


def test_evaluation_keeps_every_size(root):
    data = SegmentationFolder(str(root), CLASSES, augmentation=[v2.RandomCrop((8, 8))])
    data.setup("validate")
    assert [labels[0].shape[1] for _, labels in data.val_dataloader()] == [40, 48, 56]


def wide(root):
    Image.fromarray(np.zeros((48, 99), np.uint8)).save(root / "labels/train/0.png")


def beyond(root):
    Image.fromarray(np.full((48, 40), 9, np.uint8)).save(root / "labels/train/0.png")


def colour(root):
    picture(root / "labels/train/0.png", (40, 48))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: (root / "labels/train/1.png").unlink(),
            "1 of 3 .* no label .*1.jpg",
        ),
        (wide, "0.png: expected labels of the image's 40 x 48 pixels .got 99 x 48"),
        (beyond, "0.png: expected labels of 2 classes or to ignore .got 9"),
        (colour, "0.png: expected a readable label image .mode RGB"),
    ],
)
def test_what_is_wrong_with_the_files_is_named(root, change, message):
    change(root)
    with pytest.raises(InputError, match=message):
        scenes(root)[0]


def test_folders_that_are_not_there_are_named(root, tmp_path):
    for args, message in (
        ({"labels": "masks/{split}"}, "masks/train: expected a folder"),
        ({"train_split": "training"}, "images/training: expected a folder"),
        ({"image_suffix": ".tif"}, "images named .*.tif"),
    ):
        with pytest.raises(InputError, match=message):
            scenes(root, **args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"values": [0]}, "a value for each of 2 classes"),
        ({"values": [0, 255]}, "none twice"),
        ({"values": [0, 256]}, "of a byte"),
        ({"classes": []}, "1 to 253 classes .got 0"),
    ],
)
def test_arguments_that_do_not_fit_are_named(root, args, message):
    with pytest.raises(InputError, match=message):
        scenes(root, **args)


@pytest.mark.parametrize("change", [wide, beyond])
def test_what_contradicts_itself_is_not_replaced(root, change):
    change(root)
    with pytest.raises(InputError, match="0.png: expected labels of"):
        scenes(root, bad_share=0.9)[0]


def test_a_broken_file_is_replaced(root, caplog):
    (root / "labels/train/0.png").write_bytes(b"broken")
    found = scenes(root, bad_share=0.5)
    assert torch.equal(found[0][1], found[1][1])
    assert "0.png" in caplog.text
