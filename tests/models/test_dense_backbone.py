import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from pyg_avig import AxialGraph, InputError
from pyg_avig.graphs import lattice_edges
from pyg_avig.models.dense_backbone import DenseBackbone

SMALL = {"channels": (8, 8, 8, 8), "irb_depths": (1, 1, 1, 1), "grapher_depths": (1, 1, 1, 1)}
NANO = {"stem_strides": (2, 2)}


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("attentionvig_s", SMALL),
        ("attentionvig_nano", NANO),
        ("resnet18", {}),  # Has features at stride 2 too.
        ("mobilenetv3_small_050", {}),  # Of its own class of features.
        ("swin_tiny_patch4_window7_224", {"img_size": (64, 96), "depths": (1, 1, 1, 1)}),  # NHWC.
    ],
)
def test_features_at_four_strides(name, args):
    backbone = DenseBackbone(name, **args)
    features = backbone(torch.rand(2, 3, 64, 96))
    assert [tuple(x.shape) for x in features] == [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(backbone.channels, (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "got"), [("attentionvig_nano", "2, 4, 8, 16"), ("sag_vit", "4, 8, 16")]
)
def test_a_backbone_without_these_strides_is_named(name, got):
    with pytest.raises(InputError, match=f"strides 4, 8, 16 and 32 .got {name} with {got}"):
        DenseBackbone(name)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("no_such", {}, "timm knows .got 'no_such'"),
        ("resnet18", {"foo": 1}, "resnet18 cannot be made .*foo"),
        ("attentionvig_s", {"pretrained": True}, "No pretrained weights exist"),
    ],
)
def test_what_cannot_be_made_is_named(name, args, message):
    with pytest.raises(InputError, match=message):
        DenseBackbone(name, **args)


def test_a_backbone_of_one_size_takes_any():
    backbone = DenseBackbone("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1), embed_dim=24)
    features = backbone.eval()(torch.randn(1, 3, 64, 96))
    assert [tuple(x.shape[2:]) for x in features] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_the_divisor_is_that_of_the_paper():
    assert DenseBackbone("attentionvig_s").size_divisible == 32
    assert DenseBackbone("resnet18").size_divisible == 32


@given(
    strides=st.tuples(*[st.sampled_from((1, 2, 3, 4, 8))] * 4),
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
)
def test_every_stride_divides_its_lattice(strides, size, lattices):
    """Whatever the image's size, once it is padded."""
    backbone = DenseBackbone("attentionvig_s", graph_strides=strides, **SMALL).eval()
    lattices.clear()
    pad = GeneralizedRCNNTransform(0, 0, [0], [1]).batch_images
    with torch.no_grad():
        backbone(pad([torch.rand(3, *size)], backbone.size_divisible))
    assert len(lattices) == 4
    for (height, width), stride in lattices:
        assert height % stride == width % stride == 0


@pytest.fixture(scope="module")
def lattices():
    """The size and stride of each graph that a backbone builds."""
    seen = []

    def spy(size, stride, *args):
        seen.append((tuple(size), stride))
        return AxialGraph(size, stride, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lattice_edges, "AxialGraph", spy)
        yield seen


def whole(name, **args):
    model = timm.create_model(name, num_classes=7, **args)
    return model.eval(), model.state_dict()


@pytest.mark.parametrize(
    ("name", "args"),
    [("attentionvig_nano", NANO), ("resnet18", {}), ("mobilenetv3_small_050", {})],
)
def test_weights_of_a_whole_model_are_taken(name, args):
    model, weights = whole(name, **args)
    images = torch.rand(2, 3, 64, 64)
    features = DenseBackbone(name, weights=weights, **args).eval()(images)
    last = model.forward_intermediates(images, intermediates_only=True)[-1]
    assert torch.allclose(features[-1], last, atol=1e-6)


def test_weights_of_another_model_are_refused():
    _, weights = whole("attentionvig_nano", **NANO)
    with pytest.raises(InputError, match="fit attentionvig_s .*do not, such as"):
        DenseBackbone("attentionvig_s", weights=weights)
    deeper = {**weights, "stages.0.blocks.9.block.0.0.weight": torch.zeros(1)}
    with pytest.raises(InputError, match="blocks.9"):
        DenseBackbone("attentionvig_nano", weights=deeper, **NANO)


@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_are_kept_if_frozen(frozen):
    backbone = DenseBackbone("resnet18", freeze_norm=frozen)
    backbone.eval()
    backbone.train()  # As a validation does.
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone(torch.rand(2, 3, 64, 64))[-1].sum().backward()
    same = [torch.equal(value, before[name]) for name, value in backbone.named_buffers()]
    assert all(same) if frozen else not any(same)
    assert backbone.body.bn1.weight.grad is not None


def test_checkpointing_changes_no_feature():
    backbone = DenseBackbone("attentionvig_nano", **NANO)
    images = torch.rand(1, 3, 64, 64)
    plain = backbone(images)[-1]
    backbone.set_grad_checkpointing()
    assert torch.allclose(backbone(images)[-1], plain, atol=1e-6)
