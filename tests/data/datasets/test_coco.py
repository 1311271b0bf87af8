import json
import logging

import pytest
import torch
from data.scenes import coco_content, coco_tree, picture
from torchvision.transforms import v2

from pyg_avig import InputError
from pyg_avig.data import CocoInstances


@pytest.fixture
def root(tmp_path):
    return coco_tree(tmp_path / "coco")


def scenes(root, split="train", **args):
    data = CocoInstances(str(root), batch_size=2, **args)
    data.setup()
    return data.splits[split]


def changed(root, change, split="train"):
    """The data with a changed JSON."""
    content = coco_content()
    change(content)
    (root / f"{split}.json").write_text(json.dumps(content))
    return root


def test_polygons_run_lengths_crowds_and_holes_in_the_ids(root):
    data = CocoInstances(str(root))
    assert data.annotation == {
        "of": "instances",
        "masks": True,
        "classes": ["cat", "dog"],
        "category_ids": [3, 7],
    }
    data.setup("fit")
    images, targets = zip(*(data.splits["train"][n] for n in range(3)), strict=True)
    assert [tuple(image.shape) for image in images] == [(3, 40, 48)] * 3
    assert [target["labels"].tolist() for target in targets] == [[1, 2], [2], []]
    assert targets[0]["boxes"].tolist() == [[4, 6, 20, 26], [24, 0, 34, 10]]
    assert targets[0]["iscrowd"].tolist() == [0, 1]
    assert targets[0]["masks"].flatten(1).sum(1).tolist() == [320, 100]
    assert targets[1]["masks"][0, 8:28, 8:38].all()
    assert targets[2]["boxes"].shape == (0, 4)
    assert targets[2]["masks"].shape == (0, 40, 48)


def test_crowds_are_for_evaluation_alone(root):
    data = CocoInstances(str(root), batch_size=3)
    data.setup("fit")
    (_, targets), *_ = data.train_dataloader()
    assert sorted(len(target["labels"]) for target in targets) == [0, 1, 1]
    assert all(set(target) == {"boxes", "labels", "masks"} for target in targets)
    crowds = [target["iscrowd"].tolist() for _, (target,) in data.val_dataloader()]
    assert crowds == [[0, 1], [0], []]


def test_augmentation_takes_boxes_and_masks_along(root):
    data = CocoInstances(str(root), batch_size=3, augmentation=[v2.RandomHorizontalFlip(1.0)])
    data.setup("fit")
    ((images, targets),) = data.train_dataloader()
    assert all(image.dtype == torch.float32 and image.max() <= 1 for image in images)
    (target,) = [t for t in targets if t["labels"].tolist() == [1]]
    assert target["boxes"].tolist() == [[28, 6, 44, 26]]
    assert target["masks"][0, 6:26, 28:44].all()


def test_what_a_crop_leaves_nothing_of_is_no_object(root):
    crop = v2.Lambda(lambda x: v2.functional.crop(x, 0, 44, 40, 4))
    data = CocoInstances(str(root), batch_size=3, augmentation=[crop])
    data.setup("fit")
    ((_, targets),) = data.train_dataloader()
    assert all(len(t["boxes"]) == len(t["labels"]) == len(t["masks"]) == 0 for t in targets)


def test_orders_and_augmentation_are_those_of_the_epoch(root):
    def epoch(number, workers):
        data = CocoInstances(
            str(root),
            batch_size=1,
            num_workers=workers,
            augmentation=[v2.RandomResizedCrop(32), v2.RandomHorizontalFlip()],
        )
        data.setup("fit")
        loader = data.train_dataloader()
        loader.sampler.set_epoch(number)
        return [images[0] for images, _ in loader]

    first, again, other = epoch(0, 0), epoch(0, 2), epoch(1, 0)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_boxes_are_cut_at_the_borders(root):
    def reach_out(content):
        content["annotations"][0]["bbox"] = [-3, 30, 60.5, 20]

    boxes = scenes(changed(root, reach_out))[0][1]["boxes"]
    assert boxes[0].tolist() == [0, 30, 48, 40]


def test_boxes_alone_need_no_masks(root):
    def without(content):
        for annotation in content["annotations"]:
            del annotation["segmentation"]

    changed(changed(root, without), without, "val")
    assert "masks" not in scenes(root, masks=False)[0][1]
    with pytest.raises(
        InputError, match="annotation 1: expected a mask as polygons or run lengths .got None"
    ):
        scenes(root)


def remove(content, *names):
    for name in names:
        del content[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(bbox=[4, 4, 0, 9]), "1 of 3 boxes .* no area .*4, 0"),
        (lambda c: c["annotations"][0].update(bbox=[90, 0, 9, 9]), "no area within their image"),
        (
            lambda c: c["annotations"][0].update(bbox=[90, 9]),
            "four numbers as bbox of",
        ),
        (lambda c: c["annotations"][0].update(bbox=[1, 1, float("nan"), 9]), "four numbers"),
        (lambda c: c["annotations"][0].update(image_id=77), "image 77, which it lacks"),
        (lambda c: c["annotations"][0].update(category_id=1), "category 1, which it lacks"),
        (lambda c: c["annotations"][2]["segmentation"].update(size=[9, 9]), r"\[40, 48\] .got \[9"),
        (lambda c: c["annotations"][0].update(segmentation=[[1, 2]]), "polygons or run lengths"),
        (
            lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5, None]]),
            "polygons or run lengths",
        ),
        (
            lambda c: c["annotations"][0].update(segmentation=[[60, 1, 70, 1, 60, 9]]),
            "annotation 1: expected a mask within its image of 48 x 40 pixels .got polygons",
        ),
        (lambda c: c["annotations"].clear(), "none of 3 images has any"),
        (lambda c: c["images"].append({**c["images"][0], "id": 10, "file_name": "x.png"}), "x.png"),
        (lambda c: remove(c, "categories"), "lacks 'categories'"),
        (lambda c: remove(c["images"][0], "width"), "lacks 'width'"),
        (lambda c: c["categories"].clear(), "expected categories .got none"),
        (lambda c: c["images"][0].update(width="48"), "pixels as width of image 2 .got '48'"),
        (lambda c: c["images"][1].update(height=0), "pixels as height of image 5 .got 0"),
        (lambda c: c["images"][1].update(file_name=5), "a string as file_name of image 5"),
        (lambda c: c["annotations"][0].update(iscrowd=None), "0 or 1 as iscrowd .* .got None"),
        (lambda c: c["annotations"][0].update(area="a"), "a number as area of annotation 1"),
        (lambda c: c["images"][1].update(id=2), "image ids of their own .got 2 twice"),
        (lambda c: c["annotations"][1].update(id=1), "annotation ids of their own .got 1 twice"),
        (lambda c: c["categories"][1].update(id=3), "category ids of their own .got 3 twice"),
    ],
)
def test_what_is_wrong_with_a_json_is_named(root, change, message):
    with pytest.raises(InputError, match=message):
        scenes(changed(root, change))


@pytest.mark.parametrize("counts", ["words", "", None, [100, 50], [-5, 1925], [100, 5000]])
def test_a_mask_that_cannot_be_decoded_is_named(root, counts):
    found = scenes(
        changed(root, lambda c: c["annotations"][2]["segmentation"].update(counts=counts))
    )
    with pytest.raises(InputError, match="train.json: annotation 3: expected a mask that can"):
        found[1]


def test_other_categories_than_those_trained_are_refused(root):
    changed(root, lambda c: c["categories"].append({"id": 8, "name": "cow"}), "val")
    with pytest.raises(
        InputError, match="than the training split's .got 8, 'cow', where it has None"
    ):
        scenes(root)


def test_categories_numbered_otherwise_than_in_training_are_refused(root):
    def swap(content):
        content["categories"][0]["name"], content["categories"][1]["name"] = "dog", "cat"

    changed(root, swap, "val")
    with pytest.raises(InputError, match="val.json: .*got 3, 'dog', where it has 'cat'"):
        scenes(root)


def test_a_json_that_is_none_is_named(root):
    (root / "train.json").write_text("{")
    with pytest.raises(InputError, match="train.json: expected a JSON of COCO's format"):
        scenes(root)
    (root / "train.json").write_text("[]")
    with pytest.raises(InputError, match="train.json: expected a JSON of COCO's format"):
        scenes(root)
    (root / "train.json").unlink()
    with pytest.raises(InputError, match="no such file"):
        scenes(root)
    with pytest.raises(InputError, match="data.root as a folder"):
        scenes(root / "nowhere")


def test_a_few_broken_ones_are_left_out_and_named(root, caplog):
    def flat(content):
        content["annotations"][0]["bbox"] = [4, 4, 0, 9]

    changed(root, flat)
    (root / "train" / "9.png").write_bytes(b"broken")
    with caplog.at_level(logging.WARNING):
        found = scenes(root, bad_share=0.4)
        assert found[0][1]["labels"].tolist() == [2]  # The crowd alone.
        assert found[2][1]["labels"].tolist() == [2]  # Of the first image, in its place.
    assert "annotation 1, [4, 4, 0, 9]" in caplog.text
    assert "9.png" in caplog.text


def test_an_image_of_another_size_is_named(root):
    picture(root / "train" / "2.png", (30, 30))
    with pytest.raises(InputError, match="2.png: expected 48 x 40 pixels.*got 30 x 30"):
        scenes(root)[0]
