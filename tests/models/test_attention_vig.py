import sys

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torch_geometric.data import Batch, Data

from pyg_avig import CrossAttnConv, InputError
from pyg_avig.graphs import graph_names
from pyg_avig.models import AttentionViG
from pyg_avig.nn import Grapher
from pyg_avig.ops import use_backend
from pyg_avig.transforms import ImageToGraph

FAMILY = timm.list_models(module="attention_vig")


@pytest.fixture
def nano():
    # A layer scale of 1 lets every branch show; at 1e-5 none would.
    return timm.create_model("attentionvig_nano", num_classes=10, layer_scale=1.0)


def test_the_family_is_registered():
    assert FAMILY == [f"attentionvig_{size}" for size in ("b", "m", "nano", "s")]
    model = timm.create_model("attentionvig_s", num_classes=10, device="meta")
    assert isinstance(model, AttentionViG)
    assert model.head.classifier.out_features == model.num_classes == 10


@pytest.mark.parametrize(
    ("name", "gmacs", "parameters"),
    [
        ("attentionvig_s", 1.6, 12.4e6),
        ("attentionvig_m", 3.2, 22.7e6),
        ("attentionvig_b", 4.8, 30.9e6),
    ],
)
def test_sizes_of_the_paper(name, gmacs, parameters):
    model = timm.create_model(name, device="meta").eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.04)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=0.01)


def test_nano_is_small(nano):
    assert sum(p.numel() for p in nano.parameters()) <= 1.5e6


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 40)])
def test_every_size_from_32_up(nano, size):
    nano.eval()
    images = torch.randn(2, 3, *size)
    features = nano.forward_features(images)
    reduction = nano.feature_info[-1]["reduction"]
    assert features.shape == (2, 160, *(-(-side // reduction) for side in size))
    assert nano(images).isfinite().all()


@pytest.mark.parametrize("patch_size", [1, 2, 16])
@pytest.mark.parametrize("edges", [False, True])
def test_a_batch_of_graphs_equals_the_images(nano, patch_size, edges):
    nano.eval()
    images = torch.randn(3, 3, 32, 48)
    transform = ImageToGraph(patch_size, edges=edges)
    graphs = [transform(image) for image in images]
    batch = Batch.from_data_list(graphs)
    assert torch.allclose(nano(batch), nano(images), atol=1e-4, rtol=1e-4)
    assert torch.allclose(nano(graphs[0]), nano(images[:1]), atol=1e-4, rtol=1e-4)


def test_a_batch_of_one_equals_its_image_in_a_batch(nano):
    nano.eval()
    images = torch.randn(3, 3, 32, 32)
    assert torch.allclose(nano(images)[1:2], nano(images[1:2]), atol=1e-4, rtol=1e-4)


def test_the_operator_is_cross_attn_conv_on_edges_too(nano, monkeypatch):
    """Through the edge list, the whole backbone gives the same."""
    nano.eval()
    images = torch.randn(2, 3, 32, 32)
    expected = nano(images)
    calls = []

    def by_edges(conv, x, graph):
        calls.append(graph)
        return CrossAttnConv.forward(conv, x, graph.edge_index)

    for module in nano.modules():
        if isinstance(module, CrossAttnConv):
            monkeypatch.setattr(module, "forward", by_edges.__get__(module))
    assert torch.allclose(nano(images), expected, atol=1e-4, rtol=1e-4)
    assert [graph.size for graph in calls] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert [graph.stride[0] for graph in calls] == [4, 2, 1, 1]


def with_graph(graph, **kwargs):
    args = {"num_classes": 10, "layer_scale": 1.0, "graph": graph, **kwargs}
    return timm.create_model("attentionvig_nano", **args)


def graph_args(name):
    return {"graph": "axial"} if name == "degraded" else None


@pytest.mark.parametrize("name", graph_names())
@pytest.mark.parametrize("size", [(32, 32), (37, 51)], ids=str)
def test_any_graph_constructor_joins_the_nodes(nano, name, size):
    model = with_graph(name, graph_args=graph_args(name))
    assert model.load_state_dict(nano.state_dict()).missing_keys == []
    images = torch.randn(2, 3, *size)
    calls = []
    hooks = [
        stage.blocks[-1].register_forward_hook(lambda *call: calls.append(call))
        for stage in model.stages
    ]
    logits = model(images)
    for hook in hooks:
        hook.remove()
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.eval()
    assert len(calls) == 4
    for module, (x,), _ in calls:
        places = torch.cartesian_prod(*map(torch.arange, x.shape[2:])).float()
        nodes = x.detach().movedim(1, -1).flatten(1, 2)
        graphs = [Data(x=n, pos=places, lattice_size=tuple(x.shape[2:])) for n in nodes]
        batch = module.graph(Batch.from_data_list(graphs))
        expected = module.grapher(batch.x, batch.edge_index, size=x.shape[2:])
        found = module(x.detach()).movedim(1, -1).flatten(0, 2)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_each_stage_has_a_graph_of_its_own():
    kinds = ("dynamic_axial", "mobile_graph", "knn", "window")
    model = with_graph(kinds, graph_args=(None, {"hop": 3}, {"k": 5}, {"side": 2}))
    graphs = [stage.blocks[-1].graph for stage in model.stages]
    assert [type(graph).__name__ for graph in graphs] == [
        "DynamicAxialEdges",
        "MobileGraphEdges",
        "KNNEdges",
        "WindowEdges",
    ]
    assert graphs[0].stride == 4
    assert graphs[1].hop == 3
    assert (graphs[2].k, graphs[2].of, graphs[2].cosine) == (5, "x", True)
    assert graphs[3].side == 2
    hops = [stage.blocks[-1].graph.hop for stage in with_graph("mobile_graph").stages]
    assert hops == [4, 2, 1, 1]


def test_the_dynamic_axial_graph_needs_no_edges():
    model = with_graph("dynamic_axial").eval()
    images = torch.randn(2, 3, 40, 32)
    expected = model(images)
    with use_backend("axial"):
        torch.testing.assert_close(model(images), expected)


@torch.no_grad()
@pytest.mark.parametrize("name", ["dynamic_axial", "window"])
def test_graphs_in_compiled_and_exported_programs(name):
    model = with_graph(name, channels=(8, 8, 8, 8), head_hidden_size=16).eval()
    images = torch.randn(2, 3, 40, 32)
    expected = model(images)
    torch._dynamo.reset()
    whole = name == "dynamic_axial"  # Other edges are found outside of a compiled graph.
    compiled = torch.compile(model, fullgraph=whole, backend="aot_eager")
    torch.testing.assert_close(compiled(images), expected, atol=1e-4, rtol=1e-4)
    batch = ({0: torch.export.Dim("batch", min=2)},)
    program = torch.export.export(model, (images,), dynamic_shapes=batch).module()
    images = torch.randn(3, 3, 40, 32)
    torch.testing.assert_close(program(images), model(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["neighborhood_attention", "window", "mobile_graph"])
def test_edges_of_a_lattice_are_found_once_a_size(name, monkeypatch):
    model = with_graph(name).eval()
    images = torch.randn(2, 3, 32, 32)
    expected = model(images)
    for stage in model.stages:
        monkeypatch.setattr(stage.blocks[-1].graph, "_joined", None)
    assert torch.equal(model(images), expected)


@pytest.mark.parametrize(
    ("graph", "args", "message"),
    [
        ("svga", None, r"graph must be one of \['axial', .*got 'svga'"),
        (("axial", "knn"), None, r"graph must be str, or 4 of them, one a stage"),
        (("axial", "knn", 3, "knn"), None, r"graph must be str, or 4 .* 3, 'knn'\)"),
        ("window", {"k": 3}, "expected arguments of the graph 'window'"),
        (
            "window",
            ({"side": 3}, 3, None, None),
            "graph_args must be dict or NoneType, or 4 of them",
        ),
        ("window", {"side": 0}, "side must be a positive int"),
    ],
)
def test_bad_graphs(graph, args, message):
    with pytest.raises(InputError, match=message):
        with_graph(graph, graph_args=args)


def test_one_training_step_changes_every_parameter(nano):
    before = {name: p.detach().clone() for name, p in nano.named_parameters()}
    optimizer = torch.optim.SGD(nano.parameters(), lr=1e3)
    logits = nano(torch.randn(4, 3, 32, 32))
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    optimizer.step()
    unchanged = [name for name, p in nano.named_parameters() if torch.equal(p, before[name])]
    assert unchanged == []


def test_storage_is_channels_last_through_the_stages(nano):
    nano.eval()
    features = nano.forward_features(torch.randn(2, 3, 64, 64))
    assert features.is_contiguous(memory_format=torch.channels_last)


def test_two_classifiers(nano):
    images = torch.randn(4, 3, 32, 32)
    pooled = nano.eval().forward_head(nano.forward_features(images), pre_logits=True)
    assert pooled.shape == (4, nano.head_hidden_size)
    both = nano.head.classifier(pooled), nano.head.classifier_dist(pooled)
    assert torch.allclose(nano(images), sum(both) / 2, atol=1e-6)
    nano.train()
    assert nano(images).shape == (4, 10)
    nano.set_distilled_training()
    assert [logits.shape for logits in nano(images)] == [(4, 10)] * 2
    assert timm.create_model("attentionvig_nano", distilled=False).head.classifier_dist is None


def test_constructor_options():
    model = timm.create_model(
        "attentionvig_nano",
        in_chans=1,
        num_classes=0,
        global_pool="",
        heads=(1, 2, 4, 8),
        affinity="softmax",
        drop_path_rate=0.2,
        dtype=torch.float64,
    )
    out = model(torch.randn(2, 1, 32, 32, dtype=torch.float64))
    assert out.shape == (2, 768, 2, 2)
    assert model.stages[3].blocks[-1].grapher.drop_path.p == pytest.approx(0.2)
    with pytest.raises(InputError, match="global_pool must be"):
        timm.create_model("attentionvig_nano", global_pool="max")


def test_no_weight_decay_on_beta_and_layer_scale(nano):
    names = nano.no_weight_decay()
    assert {name.rpartition(".")[2] for name in names} == {
        "log_beta",
        "gamma",
        "gamma1",
        "gamma2",
    }
    assert names <= dict(nano.named_parameters()).keys()


def test_the_graph_layers_matter(nano):
    nano.eval()
    images = torch.randn(2, 3, 32, 32)
    before = nano(images)
    for module in nano.modules():
        if isinstance(module, CrossAttnConv):
            module.lin_value.weight.data.mul_(0.9)
    assert (nano(images) - before).abs().max() > 1e-3


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_pixels_that_are_not_finite_are_refused(nano, value):
    images = torch.zeros(2, 3, 32, 32)
    images[0, 0, 0, 0] = value
    with pytest.raises(InputError, match="finite pixels .got NaN or infinity in 1 of them"):
        nano(images)


def test_images_of_another_dtype_are_refused(nano):
    with pytest.raises(InputError, match="dtype torch.float32 .got torch.uint8"):
        nano(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))


def test_stages_must_agree_in_number():
    with pytest.raises(InputError, match="one value a stage"):
        timm.create_model("attentionvig_nano", heads=(1, 1))


def test_builds_on_the_meta_device():
    real = timm.create_model("attentionvig_nano", drop_path_rate=0.1)
    with torch.device("meta"):
        model = timm.create_model("attentionvig_nano", drop_path_rate=0.1)
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 1000)
    model.to_empty(device="cpu").load_state_dict(real.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.eval()(x), real.eval()(x))


def test_one_image_in_training_is_refused_and_none_is_not(nano):
    with pytest.raises(InputError, match=r"more than one value a channel .*\(1, 768, 1, 1\)"):
        nano(torch.randn(1, 3, 64, 64))
    assert nano(torch.randn(0, 3, 64, 64)).shape == (0, 10)
    assert all(buffer.isfinite().all() for buffer in nano.buffers())
    # Of more places than one a channel has enough to learn from.
    last, _ = nano.forward_intermediates(torch.randn(1, 3, 64, 64))
    assert last.shape == (1, 160, 4, 4)


def test_numpys_integers_are_integers():
    four = np.array([8, 8, 16, 16])
    model = AttentionViG(
        in_chans=np.int64(1),
        num_classes=np.int64(3),
        channels=four,
        irb_depths=np.array([1, 0, 1, 0]),
        grapher_depths=np.array([0, 1, 0, 1]),
        graph_strides=np.array([4, 2, 1, 1]),
        stem_strides=np.array([2, 1]),
        heads=four // 8,
        head_hidden_size=np.int64(16),
    ).eval()
    assert model(torch.randn(1, 1, 32, 32)).shape == (1, 3)
    model.reset_classifier(np.int64(5))
    assert model(torch.randn(1, 1, 32, 32)).shape == (1, 5)
    assert type(model.num_classes) is int


def double(module, args, out):
    return 2 * out


@pytest.mark.parametrize(
    ("args", "change"),
    [
        ({}, lambda m: m.stem[0].register_forward_hook(double)),
        ({}, lambda m: m.stem[0][0].register_forward_hook(double)),
        ({}, lambda m: m.stages[1].blocks[0].block[2][1].register_forward_hook(double)),
        ({}, lambda m: m.stages[1].blocks[1].grapher.conv.register_forward_hook(double)),
        ({}, lambda m: m.head.classifier.register_forward_hook(double)),
        ({}, lambda m: m.head.register_forward_hook(double)),
        ({}, lambda m: setattr(m.head, "classifier_dist", nn.Sequential(m.head.classifier_dist))),
        ({}, lambda m: setattr(m.stages[2].downsample, "1", nn.BatchNorm2d(96, affine=False))),
        ({}, lambda m: nn.utils.parametrizations.weight_norm(m.stem[2][0])),
        ({"heads": (1, 2, 4, 8), "normalize": True}, lambda m: None),
        ({"distilled": False, "affinity": "softmax"}, lambda m: None),
        ({"num_classes": 0, "global_pool": ""}, lambda m: None),
    ],
)
def test_fusing_changes_no_output_whatever_the_model(args, change):
    args = {"num_classes": 3, "layer_scale": 1.0, **args}
    model = timm.create_model("attentionvig_nano", **args).train()
    x = torch.randn(2, 3, 48, 32)
    model(x)  # Statistics other than the first ones.
    model.eval()
    change(model)
    expected = model.eval()(x)
    torch.testing.assert_close(model.fuse()(x), expected, atol=1e-4, rtol=1e-3)


def test_nothing_is_fused_if_a_part_is_in_training(nano):
    nano.eval().stages[3].train()
    with pytest.raises(InputError, match="evaluation mode"):
        nano.fuse()
    assert isinstance(nano.stem[0], nn.Sequential)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 1, 32, 32), r"\(B, 3, H, W\).*got \(2, 1, 32, 32\)"),
        ((2, 3, 31, 64), r"at least 32.*got \(2, 3, 31, 64\)"),
        ((3, 32, 32), r"got \(3, 32, 32\)"),
    ],
)
def test_bad_images(nano, shape, message):
    with pytest.raises(InputError, match=message):
        nano(torch.zeros(shape))


def test_unequal_lattices_are_refused_with_both_sizes(nano):
    graphs = [ImageToGraph(16)(torch.rand(3, 32, side)) for side in (32, 48)]
    with pytest.raises(InputError, match=r"\(2, 2\) and \(2, 3\)"):
        nano(Batch.from_data_list(graphs))


@pytest.mark.slow
def test_exports_to_onnx(nano, tmp_path):
    import onnxruntime

    nano.eval()
    images = torch.randn(2, 3, 32, 32)
    program = torch.onnx.export(nano, (images,), dynamo=True, opset_version=18, verbose=False)
    program.save(str(tmp_path / "nano.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "nano.onnx"))
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert torch.allclose(torch.from_numpy(logits), nano(images), atol=1e-5, rtol=1e-5)
    exported = torch.export.export(nano, (images,)).module()
    assert torch.allclose(exported(images), nano(images), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_compiles_in_one_graph(nano):
    nano.double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.double)
    torch._dynamo.reset()
    compiled = torch.compile(nano, fullgraph=True, backend="aot_eager")
    nano.eval()
    assert torch.allclose(compiled(images), nano(images))
    nano.train()
    grads = []
    for model in (compiled, nano):
        nano.zero_grad()
        model(images).square().sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in nano.parameters()]))
    assert torch.allclose(*grads)


def test_gradients_of_each_image(nano):
    nano.double().eval()
    parameters = dict(nano.named_parameters())

    def loss(parameters, image):
        return functional_call(nano, parameters, (image[None],)).square().sum()

    images = torch.randn(2, 3, 32, 32, dtype=torch.double)
    found = vmap(grad(loss), (None, 0))(parameters, images)
    for n, image in enumerate(images):
        for name, expected in grad(loss)(parameters, image).items():
            torch.testing.assert_close(found[name][n], expected)


class Seen(TorchDispatchMode):
    """The operators that run, with the shape and strides of their first input."""

    def __init__(self):
        super().__init__()
        self.operators = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        first = args[0] if args and isinstance(args[0], torch.Tensor) else torch.empty(0)
        name = operator.overloadpacket.__name__
        self.operators.append((name, tuple(first.shape), first.stride()))
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("training", [False, True])
def test_a_gpu_copies_nothing_between_convolutions_and_nodes(monkeypatch, training):
    """On fake tensors, which need no GPU but for backward, and know where all would lie on one."""
    monkeypatch.delenv("PYG_AVIG_KERNELS", raising=False)
    monkeypatch.setattr("pyg_avig.ops.kernels.gpu._has_triton", lambda: True)
    # Fake tensors are taken for a program that is recorded, in which no kernels run.
    ops = ("ops.axial", "ops.cross_attention", "ops.csr", "ops.products")
    for module in ("graphs.adjacency", *ops):
        monkeypatch.setattr(sys.modules[f"pyg_avig.{module}"], "is_recorded", lambda: False)
    model = timm.create_model("attentionvig_nano").train(training)
    state = model.to(memory_format=torch.channels_last).state_dict()
    with FakeTensorMode():
        parameters = {
            name: torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda")
            for name, x in state.items()
        }
        images = torch.empty(2, 3, 64, 64, device="cuda").to(memory_format=torch.channels_last)
        with Seen() as seen:
            functional_call(model, parameters, (images,))
    ran = [name for name, *_ in seen.operators]
    graphers = sum(isinstance(module, Grapher) for module in model.modules())
    assert ran.count("axial_pairs") == ran.count("axial_spread") == graphers > 0
    copies = [found for found in seen.operators if found[0] in ("clone", "copy_", "_to_copy")]
    assert [found for found in copies if len(found[1]) > 1] == []  # Of beta alone.
