import pytest
import torch

from pyg_avig import InputError
from pyg_avig.models.dense_backbone import DenseBackbone
from pyg_avig.models.detection import faster_rcnn, mask_rcnn

SMALL = {
    "pyramid_channels": 16,
    "box_features": 16,
    "anchor_sizes": (8, 16, 32, 64, 128),
    "min_size": 64,
    "max_size": 96,
}


@pytest.fixture
def backbone():
    return DenseBackbone("attentionvig_nano", stem_strides=(2, 2), channels=(8, 8, 8, 8))


@pytest.fixture
def scenes():
    """Two images of different sizes, one of them without objects."""
    images = [torch.rand(3, 70, 90), torch.rand(3, 50, 40)]
    targets = [
        {
            "boxes": torch.tensor([[1.0, 2, 40, 50], [10, 10, 30, 30]]),
            "labels": torch.tensor([1, 3]),
            "masks": torch.ones(2, 70, 90, dtype=torch.uint8),
        },
        {
            "boxes": torch.zeros(0, 4),
            "labels": torch.zeros(0, dtype=torch.long),
            "masks": torch.zeros(0, 50, 40, dtype=torch.uint8),
        },
    ]
    return images, targets


def test_masks_are_learnt_and_found_in_the_images_own_pixels(backbone, scenes):
    model = mask_rcnn(backbone, 3, mask_channels=(16,), **SMALL)
    losses = model(*scenes)
    assert set(losses) >= {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness"}
    sum(losses.values()).backward()
    # Training on several devices counts on it.
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    for image, found in zip(scenes[0], model.eval()(scenes[0]), strict=True):
        assert len(found["boxes"]) > 0
        assert found["masks"].shape[1:] == (1, *image.shape[1:])
        assert (found["boxes"][:, 2] <= image.shape[2]).all()
        assert set(found["labels"].tolist()) <= {1, 2, 3}


def test_boxes_alone(backbone, scenes):
    model = faster_rcnn(backbone, 3, **SMALL)
    images, targets = scenes
    assert "loss_mask" not in model(images, targets)
    assert set(model.eval()(images)[0]) == {"boxes", "labels", "scores"}


def test_batches_without_any_object_are_learnt(backbone, scenes):
    model = mask_rcnn(backbone, 3, mask_channels=(16,), **SMALL)
    images, targets = scenes
    loss = sum(model(images[1:], targets[1:]).values())
    loss.backward()
    assert loss.isfinite()


def test_images_are_padded_to_the_backbones_multiple(scenes):
    backbone = DenseBackbone(
        "attentionvig_nano", stem_strides=(2, 2), channels=(8, 8, 8, 8), graph_strides=(4, 3, 2, 1)
    )
    sizes = []
    backbone.register_forward_pre_hook(lambda module, args: sizes.append(args[0].shape[2:]))
    faster_rcnn(backbone, 3, **SMALL).eval()(scenes[0])
    assert backbone.size_divisible == 96
    assert [tuple(size) for size in sizes] == [(96, 96)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"box_score_treshold": 0.1}, "FasterRCNN .got 'box_score_treshold'"),
        ({"anchor_sizes": (8, 16)}, r"5 values .got \[8, 16\]"),
    ],
)
def test_wrong_arguments_are_named(backbone, more, message):
    with pytest.raises(InputError, match=message):
        faster_rcnn(backbone, 3, **{**SMALL, **more})
