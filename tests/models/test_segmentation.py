import pytest
import torch

from pyg_avig import InputError
from pyg_avig.models.dense_backbone import DenseBackbone
from pyg_avig.models.segmentation import SemanticFPN


def semantic_fpn(**args):
    backbone = DenseBackbone("attentionvig_nano", stem_strides=(2, 2), channels=(8, 8, 8, 8))
    return SemanticFPN(backbone, 5, 16, 32, **args)


def test_training_sees_the_padded_batch_and_evaluation_each_image():
    model = semantic_fpn()
    images = [torch.rand(3, 70, 90), torch.rand(3, 50, 40)]
    assert model(images).shape == (2, 5, 96, 96)
    model.eval()
    assert [tuple(x.shape) for x in model(images)] == [(5, 70, 90), (5, 50, 40)]


def test_images_are_resized_for_evaluation_alone():
    model = semantic_fpn(min_size=128)
    sizes = []
    model.backbone.register_forward_pre_hook(lambda module, args: sizes.append(args[0].shape[2:]))
    image = torch.rand(3, 64, 96)
    assert model([image, image]).shape[2:] == (64, 96)
    assert model.eval()([image])[0].shape[1:] == (64, 96)
    assert [tuple(size) for size in sizes] == [(64, 96), (128, 192)]


def test_no_image_hangs_on_itself_being_alone():
    """Images of one size that needs no padding have the same result together and alone."""
    model = semantic_fpn().eval()
    images = list(torch.rand(2, 3, 64, 64))
    together, alone = model(images), [model([image])[0] for image in images]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(together, alone, strict=True))


def test_wrong_channels_are_named():
    with pytest.raises(InputError, match="multiple of 32 .got 48"):
        SemanticFPN(DenseBackbone("resnet18"), 5, 16, 48)
