import pytest
import torch

from pyg_avig import InputError
from pyg_avig.data import DigitInstances, DigitPixels


@pytest.fixture
def instances():
    data = DigitInstances(scenes=8)
    data.setup()
    return data


def test_boxes_fit_their_masks(instances):
    for n in range(8):
        image, target = instances.splits["train"][n]
        assert image.shape == (3, 64, 64)
        assert image.dtype == torch.uint8
        assert 1 <= len(target["labels"]) <= 4
        assert 1 <= min(target["labels"]) <= max(target["labels"]) <= 10
        assert target["masks"].sum(0).max() == 1  # None overlaps another.
        for box, mask, area in zip(
            target["boxes"].long(), target["masks"], target["area"], strict=True
        ):
            left, top, right, bottom = box.tolist()
            inside = mask[top:bottom, left:right]
            assert inside.sum() == mask.sum() == area
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


@pytest.mark.parametrize("side", [48, 64, 96])
def test_digits_grow_with_their_scene(side):
    data = DigitInstances(scenes=20, side=side)
    data.setup("fit")
    boxes = torch.cat([data.splits["train"][n][1]["boxes"] for n in range(20)])
    heights = (boxes[:, 3] - boxes[:, 1]) / side
    assert 0.28 < heights.min() < heights.max() <= 0.57  # Ink fills most of a digit's square.


def test_scenes_are_the_same_whenever_they_are_asked_for(instances):
    train, val = instances.splits["train"], instances.splits["val"]
    assert torch.equal(train[3][0], train[3][0])
    assert not torch.equal(train[3][0], train[4][0])
    assert not torch.equal(train[1][0], val[1][0])
    other = DigitInstances(scenes=8, seed=1)
    other.setup()
    assert not torch.equal(train[3][0], other.splits["train"][3][0])


def test_classes_of_pixels_are_those_of_the_objects(instances):
    data = DigitPixels(scenes=8)
    data.setup()
    assert len(data.splits["train"]) == 8
    assert len(data.splits["test"]) == 2
    image, target = instances.splits["train"][5]
    same, labels = data.splits["train"][5]
    assert torch.equal(image, same)
    assert (labels != 10).sum() == target["area"].sum()
    for mask, label in zip(target["masks"].bool(), target["labels"], strict=True):
        assert labels[mask].unique().tolist() == [label - 1]


@pytest.mark.parametrize(
    ("args", "message"),
    [({"side": 20}, "side must be at least 48 .got 20"), ({"scenes": 0}, "at least one scene")],
)
def test_wrong_arguments_are_named(args, message):
    with pytest.raises(InputError, match=message):
        DigitInstances(**args).setup()
