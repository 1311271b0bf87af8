"""What timm's own suite asks of every model, asked of every model of ours."""

import copy

import pytest
import timm
import torch
from models.replicas import replica
from timm.layers import get_notrace_functions, get_notrace_modules
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from timm.optim._param_groups import param_groups_layer_decay
from torch_geometric.data import Batch
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import pyg_avig.models  # noqa: F401  (registers the family)
from pyg_avig import InputError
from pyg_avig.transforms import ImageToGraph

PYRAMIDS = timm.list_models(module="attention_vig")
SAG_VITS = timm.list_models(module="sag_vit")
# A layer scale of 1 lets every branch show (at 1e-5 none would); dropout would hide equality.
SHOWN = {
    **{name: {"layer_scale": 1.0} for name in PYRAMIDS},
    **{name: {"encoder_drop_rate": 0.0} for name in SAG_VITS},
}


def small_input(name, batch=2, channels=3):
    cfg = timm.get_pretrained_cfg(name)
    # A graph of less than two patches a side would leave attention without a choice.
    side = 96 if name in SAG_VITS else min(cfg.input_size[-1], 64)
    return torch.randn(batch, channels, side, side)


def make(name, **kwargs):
    torch.manual_seed(0)
    return timm.create_model(name, **{**SHOWN[name], **kwargs})


@pytest.fixture(params=[*PYRAMIDS, *SAG_VITS])
def name(request):
    """Any model of ours."""
    return request.param


@pytest.fixture(params=PYRAMIDS)
def pyramid(request):
    """A model with stages and two classifiers."""
    return request.param


def classifiers(model):
    found = model.get_classifier()
    return found if isinstance(found, tuple) else (found,)


def test_cfg(name):
    cfg = timm.get_pretrained_cfg(name)
    model = timm.create_model(name, device="meta")
    assert dict(model.named_modules())[cfg.first_conv].in_channels == 3
    named = (cfg.classifier,) if isinstance(cfg.classifier, str) else cfg.classifier
    modules = dict(model.named_modules())
    assert [modules[classifier] for classifier in named] == list(classifiers(model))
    assert all(isinstance(classifier, torch.nn.Linear) for classifier in classifiers(model))
    assert cfg.license
    assert cfg.interpolation == "bicubic"
    if name in PYRAMIDS:
        features = model.forward_features(torch.empty(1, *cfg.input_size, device="meta"))
        assert features.shape[2:] == cfg.pool_size
        assert features.size(1) == model.num_features
    else:  # PyG's layers do not run on shapes alone.
        model = make(name).eval()
        rows, columns = cfg.pool_size
        x = torch.randn(1, *cfg.input_size)
        with torch.no_grad():
            tokens = model.forward_features(x)
            assert tokens.shape == (1, 1 + rows * columns, model.num_features)
            model.reset_classifier(0, "")
            assert model(x).shape == tokens.shape


def test_forward_and_pre_logits(name):
    model = make(name, num_classes=7).eval()
    x = small_input(name)
    with torch.no_grad():
        logits = model(x)
        features = model.forward_features(x)
        hidden = model.forward_head(features, pre_logits=True)
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()
    assert hidden.shape == (2, model.head_hidden_size)
    assert torch.equal(model.forward_head(features), logits)


def test_other_pooling_and_no_classes(name):
    x = small_input(name)
    model = make(name, num_classes=42).eval()
    width = model.head_hidden_size
    with torch.no_grad():
        dim = model.forward_features(x).dim()
        model.reset_classifier(0)
        assert model(x).shape == (2, width)
        model.reset_classifier(0, "")
        assert model(x).dim() == dim
        assert model(x).size(1 if dim == 4 else 2) == width
        model.reset_classifier(5, "avg")
        assert model(x).shape == (2, 5)
        assert make(name, num_classes=0).eval()(x).shape == (2, width)
        assert make(name, num_classes=0, global_pool="").eval()(x).dim() == dim
        assert make(name, num_classes=3, global_pool="").eval()(x).size(-1) == 3


def test_resetting_keeps_device_and_dtype(name):
    model = timm.create_model(name, device="meta", dtype=torch.bfloat16)
    model.reset_classifier(3)
    assert len(classifiers(model)) == (2 if name in PYRAMIDS else 1)
    assert all(c.weight.shape == (3, model.head_hidden_size) for c in classifiers(model))
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.bfloat16)}


def test_one_classifier_alone(pyramid):
    alone = timm.create_model(pyramid, device="meta", distilled=False)
    assert isinstance(alone.get_classifier(), torch.nn.Linear)


def test_other_numbers_of_channels(name):
    model = make(name, in_chans=1).eval()
    assert model(small_input(name, channels=1)).isfinite().all()


def test_every_parameter_gets_a_gradient(name):
    model = make(name, num_classes=42).train()
    model(small_input(name)).mean().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_checkpointing_changes_nothing(name):
    model = make(name, num_classes=3).train()
    other = copy.deepcopy(model)
    other.set_grad_checkpointing()
    stages = other.stages if name in PYRAMIDS else [other.backbone.model]
    assert all(stage.grad_checkpointing for stage in stages)
    x = small_input(name)
    results = []
    for m in (model, other):
        out = m(x)
        out.square().sum().backward()
        results.append((out, [p.grad for p in m.parameters()]))
    assert torch.equal(results[0][0], results[1][0])
    for a, b in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(a, b)
    other.set_grad_checkpointing(False)
    assert not any(stage.grad_checkpointing for stage in stages)


@pytest.mark.parametrize("indices", [None, (1, 3), (0, 1, 2)])
def test_features_only(name, indices):
    kwargs = {} if indices is None else {"out_indices": indices}
    model = make(name, features_only=True, **kwargs).eval()
    x = small_input(name)
    with torch.no_grad():
        features = model(x)
    every = 4 if name in PYRAMIDS else 3
    assert len(features) == (every if indices is None else len(indices))
    for feature, channels, reduction in zip(
        features, model.feature_info.channels(), model.feature_info.reduction(), strict=True
    ):
        assert feature.size(1) == channels
        assert feature.size(2) == x.size(2) // reduction


def test_forward_intermediates(name):
    model = make(name).eval()
    x = small_input(name)
    with torch.no_grad():
        expected = model.forward_features(x)
        last, found = model.forward_intermediates(x)
        assert torch.equal(last, expected)
        if name in PYRAMIDS:
            assert torch.equal(found[-1], expected)
        assert len(found) == len(model.feature_info) == 4
        for feature, info in zip(found, model.feature_info, strict=True):
            assert feature.size(1) == info["num_chs"]
            assert feature.size(2) == x.size(2) // info["reduction"]
        (first,) = model.forward_intermediates(
            x, indices=[0], stop_early=True, intermediates_only=True
        )
        assert torch.equal(first, found[0])
        assert len(model.forward_intermediates(x, indices=2)[1]) == 2
    with pytest.raises(InputError, match="'NCHW' .got 'NLC'"):
        model.forward_intermediates(x, output_fmt="NLC")


def test_pruning(pyramid):
    model = make(pyramid).eval()
    x = small_input(pyramid)
    with torch.no_grad():
        expected = model.forward_intermediates(x)[1][1]
        assert model.prune_intermediate_layers([1]) == [1]
        assert len(model.stages) == 2
        assert torch.equal(model(x), expected)
    assert model.num_features == model.head_hidden_size == expected.size(1)


def test_fx(name, monkeypatch):
    """Traced as timm traces its models, forward and backward are equal to the last bit.

    Without the kernels, of which a trace has no BatchNorm and GELU as one.
    """
    monkeypatch.setenv("PYG_AVIG_KERNELS", "0")
    model = make(name, num_classes=5).train()
    tracer = {
        "leaf_modules": list(get_notrace_modules()),
        "autowrap_functions": list(get_notrace_functions()),
    }
    train_nodes, eval_nodes = get_graph_node_names(model, tracer_kwargs=tracer)
    traced = create_feature_extractor(
        copy.deepcopy(model),
        train_return_nodes=[train_nodes[-1]],
        eval_return_nodes=[eval_nodes[-1]],
        tracer_kwargs=tracer,
    ).train()
    x = small_input(name)
    outs = [model(x), traced(x)[train_nodes[-1]]]
    assert torch.equal(*outs)
    for out in outs:
        out.square().sum().backward()
    grads = dict(traced.named_parameters())
    for n, p in model.named_parameters():
        assert torch.equal(p.grad, grads[n].grad), n


def test_groups_for_layer_wise_decay(name):
    model = timm.create_model(name, device="meta")
    names = {n for n, _ in model.named_parameters()}
    first = "stem" if name in PYRAMIDS else "backbone"
    for coarse in (False, True):
        groups = group_parameters(model, model.group_matcher(coarse))
        assert {n for group in groups.values() for n in group} == names
        assert all(n.startswith(first) for n in groups[0])
        assert all(n.startswith("head") for n in groups[max(groups)])


def test_groups_follow_the_blocks(pyramid):
    model = timm.create_model(pyramid, device="meta")
    names = {n for n, _ in model.named_parameters()}
    fine = group_parameters(model, model.group_matcher())
    depth = sum(len(stage.blocks) for stage in model.stages)
    assert len(fine) == 1 + depth + 1  # A down-sampling goes with the block behind it.
    order = [
        next(i for i, group in fine.items() if f"stages.{s}.{n}" in group)
        for s, n in ((0, "blocks.0.scale.gamma"), (0, "blocks.1.scale.gamma"))
        if f"stages.{s}.{n}" in names
    ]
    assert order == sorted(order)


def test_what_decays(name):
    model = timm.create_model(name, device="meta")
    optimizer = create_optimizer_v2(model, opt="adamw", weight_decay=0.05)
    names = {p: n for n, p in model.named_parameters()}
    decayed = {
        names[p] for g in optimizer.param_groups if g["weight_decay"] > 0 for p in g["params"]
    }
    assert decayed
    assert all(dict(model.named_parameters())[n].dim() > 1 for n in decayed)
    undecayed = ("log_beta", "gamma", "token", "offset", "bias")
    assert not any(word in n for n in decayed for word in undecayed)
    layered = param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.5)
    scale = {names[p]: group["lr_scale"] for group in layered for p in group["params"]}
    assert scale["head.classifier.weight"] == 1
    first, later = {
        True: ("stem.0.0.weight", "stages.3.blocks.0.scale.gamma"),
        False: ("backbone.model.conv_stem.weight", "encoder.layers.1.linear1.weight"),
    }[name in PYRAMIDS]
    assert scale[first] < scale[later] < 1


def test_replicas_of_data_parallel(name, monkeypatch):
    model = make(name, num_classes=3).eval()
    x = small_input(name)
    other = replica(model, monkeypatch)
    with torch.no_grad():
        assert torch.equal(other(x), model(x))
        with pytest.raises(InputError, match="dtype torch.float32 .got torch.float64"):
            other(x.double())


def test_batches_of_none_and_one(name):
    model = make(name, num_classes=3).eval()
    x = small_input(name)
    with torch.no_grad():
        torch.testing.assert_close(model(x[:1]), model(x)[:1], atol=1e-4, rtol=1e-4)
        assert model(x[:0]).shape == (0, 3)
    assert model.train()(x[:0]).shape == (0, 3)
    assert all(b.isfinite().all() for b in model.buffers() if b.is_floating_point())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
@pytest.mark.parametrize("name", ["attentionvig_nano", "sag_vit"])
def test_half_precision(name, dtype):
    model = make(name, num_classes=3, dtype=dtype).eval()
    x = small_input(name).to(dtype)
    out = model(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), model.float()(x.float()), atol=0.1, rtol=0.1)
    model.to(dtype).train()(x).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_tracing_is_refused(name):
    with pytest.raises(InputError, match="torch.export .* .got torch.jit.trace"):
        torch.jit.trace(make(name).eval(), small_input(name))


def test_fusing_changes_nothing_but_the_speed(pyramid):
    model = make(pyramid, num_classes=5).train()
    x = small_input(pyramid)
    model(x)  # Statistics other than the first ones.
    model.eval()
    with torch.no_grad():
        expected = model(x)
        assert model.fuse() is model
        assert not any(
            isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules()
        )
        torch.testing.assert_close(model(x), expected, atol=1e-4, rtol=1e-3)
        again = model(x)
        assert torch.equal(model.fuse()(x), again)
    with pytest.raises(InputError, match="evaluation mode"):
        make(pyramid).train().fuse()


def test_distilled_training(pyramid):
    model = make(pyramid, num_classes=5).train()
    x = small_input(pyramid)
    assert model(x).shape == (2, 5)
    model.set_distilled_training()
    a, b = model(x)
    assert a.shape == b.shape == (2, 5)
    assert not torch.equal(a, b)
    model.eval()
    assert model(x).shape == (2, 5)
    model.train().set_distilled_training(False)
    assert model(x).shape == (2, 5)


def test_state_dict_survives_timm(name, tmp_path):
    model = make(name, num_classes=5).eval()
    torch.save({"state_dict": model.state_dict()}, tmp_path / "model.pth")
    other = timm.create_model(name, num_classes=5, checkpoint_path=str(tmp_path / "model.pth"))
    x = small_input(name)
    assert torch.equal(other.eval()(x), model(x))


def test_features_of_graphs():
    model = make("attentionvig_nano", features_only=True).eval()
    images = torch.randn(2, 3, 32, 32)
    transform = ImageToGraph(1, edges=False)
    batch = Batch.from_data_list([transform(image) for image in images])
    for a, b in zip(model(batch), model(images), strict=True):
        torch.testing.assert_close(a, b)


def test_a_pruned_model_gets_classifiers_of_its_own_type():
    model = make("attentionvig_nano", dtype=torch.float64).eval()
    model.prune_intermediate_layers(1)
    model.reset_classifier(5, "avg")
    assert model(torch.randn(2, 3, 32, 32).double()).shape == (2, 5)


def test_a_pruned_sag_vit_is_its_backbone():
    model = make("sag_vit").eval()
    x = small_input("sag_vit")
    with torch.no_grad():
        last = model.forward_intermediates(x)[1][-1]
        assert model.prune_intermediate_layers() == [3]
        assert torch.equal(model(x), last)
        assert model.num_features == model.head_hidden_size == 160
        model.reset_classifier(5, "avg")
        assert model(x).shape == (2, 5)
        second = make("sag_vit").eval()
        assert second.prune_intermediate_layers([1]) == [1]
        assert torch.equal(second(x), model.forward_intermediates(x)[1][1])
    assert second.num_features == 48
    assert sum(p.numel() for p in second.parameters()) < 1e6


def test_feature_info_names_modules(name):
    model = timm.create_model(name, device="meta")
    modules = dict(model.named_modules())
    assert all(level["module"] in modules for level in model.feature_info)
