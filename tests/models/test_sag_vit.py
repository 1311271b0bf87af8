import gc
import weakref

import networkx as nx
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GATConv, GCNConv, global_mean_pool
from torch_geometric.utils import from_networkx
from torchvision.models import efficientnet_v2_s

from pyg_avig import InputError
from pyg_avig.graphs import make_graph
from pyg_avig.models import SAGViT, load_public_checkpoint
from pyg_avig.models.sag_vit_layers import (
    PatchGraph,
    codes_of_grid,
    edges_of_grid,
    insertion_order,
)
from pyg_avig.transforms import ImageToGraph

SMALL = {"backbone": "mobilenetv3_small_050", "num_classes": 5}


def make(**args):
    torch.manual_seed(0)
    return SAGViT(**{**SMALL, **args}).eval()


def king_graph(rows, columns):
    """Each node beside the up to eight around it, composed one node after the other."""
    graph = nx.Graph()
    for node in range(rows * columns):
        part = nx.Graph()
        part.add_node(node)
        row, column = divmod(node, columns)
        for y, x in ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)):
            if 0 <= row + y < rows and 0 <= column + x < columns:
                part.add_edge(node, (row + y) * columns + column + x)
        graph = nx.compose(graph, part)
    return graph


class Peer(nn.Module):
    """The public code's model, by its description; one NetworkX graph an image."""

    def __init__(self, num_classes):
        super().__init__()
        self.cnn = nn.Module()
        self.cnn.extractor = efficientnet_v2_s().features[:6]
        self.gcn = nn.Module()
        self.gcn.conv1 = GATConv(2560, 128, heads=4)
        self.gcn.conv2 = GCNConv(512, 64)
        self.positional_embedding = nn.Parameter(torch.randn(1, 1, 64))
        self.extra_embedding = nn.Parameter(torch.randn(1, 64))
        self.transformer_encoder = nn.Module()
        layer = nn.TransformerEncoderLayer(64, 4, 64)
        self.transformer_encoder.transformer_encoder = nn.TransformerEncoder(
            layer, 2, enable_nested_tensor=False
        )
        self.mlp = nn.Module()
        self.mlp.mlp = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, num_classes))

    def forward(self, x):
        graphs = []
        for features in self.cnn.extractor(x):
            rows, columns = features.size(1) // 4, features.size(2) // 4
            patches = [
                features[:, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4].flatten()
                for r in range(rows)
                for c in range(columns)
            ]
            graph = from_networkx(king_graph(rows, columns))
            graphs.append(Data(torch.stack(patches), graph.edge_index))
        batch = Batch.from_data_list(graphs)
        nodes = self.gcn.conv2(self.gcn.conv1(batch.x, batch.edge_index).relu(), batch.edge_index)
        mean = global_mean_pool(nodes, batch.batch).unsqueeze(0) + self.positional_embedding
        extra = self.extra_embedding.unsqueeze(0).expand(1, len(x), -1)
        tokens = self.transformer_encoder.transformer_encoder(torch.cat([mean, extra]))
        return self.mlp.mlp(tokens.mean(0))


@pytest.fixture(scope="module")
def peer():
    torch.manual_seed(0)
    model = Peer(7)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # Statistics other than the first ones.
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def test_parameters_of_the_public_code():
    model = SAGViT(num_classes=10, variant="public")
    parts = (
        model.backbone,
        model.patch_graph.conv1,
        model.patch_graph.conv2,
        model.encoder,
        model.head,
    )
    counts = [sum(p.numel() for p in part.parameters()) for part in (*parts, model.tokens, model)]
    assert counts == [5_285_416, 1_312_256, 32_832, 50_432, 4_810, 128, 6_685_874]


@given(st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_insertion_order_is_that_of_networkx(rows, columns):
    nodes = list(king_graph(rows, columns))
    assert [nodes.index(node) for node in range(len(nodes))] == insertion_order(
        rows, columns
    ).tolist()


def test_twelve_of_forty_edges_join_strangers():
    args = {"in_channels": 1, "out_channels": 4, "patch_size": 1, "stride": 16, "conv": "gat"}
    args |= {"conv_channels": 2, "conv_heads": 1, "pad": False, "similarity": False}
    true, permuted = (
        {
            tuple(edge)
            for edge in PatchGraph(**args, permuted=p)
            .edges(3, 3, 1, torch.device("cpu"))[1]
            .T.tolist()
        }
        for p in (False, True)
    )
    assert len(true) == len(permuted) == 40
    assert len(permuted - true) == 12


@pytest.mark.parametrize("size", [(64, 64), (144, 112)])
def test_the_public_variant_is_the_public_code(peer, tmp_path, size):
    torch.save(peer.state_dict(), tmp_path / "model.pth")
    model = load_public_checkpoint(tmp_path / "model.pth")
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(model(x), peer(x), atol=1e-5, rtol=1e-4)


def test_other_names_and_formats_of_public_weights(peer, tmp_path):
    weights = peer.state_dict()
    old = dict(weights)
    old["gcn.conv1.lin_src.weight"] = old.pop("gcn.conv1.lin.weight")
    old["gcn.conv1.lin_dst.weight"] = old["gcn.conv1.lin_src.weight"]
    torch.save(old, tmp_path / "old.pth")
    short = {
        name.replace("mlp.mlp", "mlp").replace("transformer_encoder.transf", "transf"): tensor
        for name, tensor in weights.items()
    }
    save_file(short, tmp_path / "short.safetensors")
    parallel = {
        f"module.{name}": tensor for name, tensor in weights.items() if "num_batches" not in name
    }
    torch.save({"epoch": 3, "model_state_dict": parallel}, tmp_path / "wrapped.pth")
    x = torch.randn(1, 3, 80, 80)
    with torch.no_grad():
        for name in ("old.pth", "short.safetensors", "wrapped.pth"):
            torch.testing.assert_close(
                load_public_checkpoint(tmp_path / name)(x), peer(x), atol=1e-5, rtol=1e-4
            )


def test_public_weights_that_do_not_fit(peer, tmp_path):
    weights = peer.state_dict()
    path = tmp_path / "model.pth"
    cases = [
        ({**weights, "cnn.extractor.6.0.weight": torch.ones(1)}, r"twice: 1, .*extractor\.6"),
        ({**weights, "gcn.conv3.bias": torch.ones(1)}, r"twice: 1, such as gcn\.conv3\.bias"),
        (
            {k: v for k, v in weights.items() if k != "extra_embedding"},
            r"twice: none; missing, by our names: 1, such as tokens\.cls_token",
        ),
        ({}, "missing, by our names: .*, such as backbone"),
        (
            {**weights, "mlp.0.weight": torch.zeros(64, 64)},
            r"foreign or twice: 1, such as mlp\.0\.weight",
        ),
        (
            {**weights, "gcn.conv2.lin.weight": weights["gcn.conv2.lin.weight"].T},
            r"conv2\.lin\.weight of shape \(64, 512\) .* .got \(512, 64\)",
        ),
        ({**weights, "mlp.mlp.2.bias": torch.tensor(1.0)}, r"classifier\.\w+ of shape"),
        ({**weights, "gcn.conv2.bias": torch.ones(64).long()}, "kind of torch.float32 .*int64"),
        ({**weights, "gcn.conv2.bias": torch.ones(3)}, r"conv2\.bias of shape \(64,\) .*got \(3,"),
        ({"weights": weights}, "expected a state dict, tensors by name"),
        ({1: torch.ones(1)}, "expected a state dict, tensors by name"),
    ]
    for content, message in cases:
        torch.save(content, path)
        with pytest.raises(InputError, match=message):
            load_public_checkpoint(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="expected a state dict"):
        load_public_checkpoint(path)
    with pytest.raises(InputError, match="expected a state dict"):
        load_public_checkpoint(tmp_path / "none.safetensors")


@pytest.mark.parametrize("conv", ["gat", "cross_attention"])
@pytest.mark.parametrize("variant", ["paper", "public"])
def test_images_of_a_batch_do_not_meet(variant, conv):
    model = make(variant=variant, conv=conv)
    x = torch.randn(3, 3, 128, 160)
    with torch.no_grad():
        alone = torch.cat([model(image.unsqueeze(0)) for image in x])
        torch.testing.assert_close(model(x), alone, atol=1e-5, rtol=1e-4)


def test_graphs_of_images():
    model = make()
    images = torch.randn(2, 3, 96, 64)
    batch = Batch.from_data_list([ImageToGraph(16, edges=False)(image) for image in images])
    with torch.no_grad():
        assert torch.equal(model(batch), model(images))


def test_features_are_padded_or_dropped():
    for remainder, tokens in (("pad", 4), ("drop", 1)):
        graph = make(remainder=remainder).patch_graph
        features = torch.randn(1, graph.conv1.in_channels // 16, 6, 6)
        border = features.clone()
        border[..., 5] += 1
        nodes = graph(features)
        assert nodes[0, 0].numel() == tokens
        assert torch.equal(graph(border), nodes) == (remainder == "drop")


def test_edges_carry_the_cosine_of_their_patches():
    graph = make(patch_size=2).patch_graph
    seen = {}
    graph.conv1.register_forward_pre_hook(lambda module, args: seen.update(args=args))
    graph(torch.randn(2, graph.conv1.in_channels // 4, 6, 8))
    x, edge_index, cosine = seen["args"]
    source, target = x[edge_index]
    torch.testing.assert_close(cosine, F.cosine_similarity(source, target).view(-1, 1))
    loops = edge_index[0] == edge_index[1]
    assert (cosine[loops] == 1).all()
    assert edge_index[0, loops].tolist() == list(range(2 * 3 * 4))
    assert (~loops).sum() == 2 * 2 * (2 * 4 + 3 * 3 + 2 * 2 * 3)  # Of 3 x 4 patches.


def test_the_graph_and_the_codes_of_few_sizes_are_kept():
    cpu = torch.device("cpu")
    for make_one in (
        lambda rows: edges_of_grid(rows, 2, False, cpu),
        lambda rows: codes_of_grid(8, rows, 2, cpu, torch.float32),
    ):
        first = weakref.ref(make_one(2))
        assert make_one(2) is first()
        for rows in range(3, 20):
            make_one(rows)
        gc.collect()
        assert first() is None


@given(st.integers(1, 6), st.integers(1, 6))
def test_edges_are_those_of_a_neighbourhood(rows, columns):
    edges = edges_of_grid(rows, columns, False, torch.device("cpu"))
    grid = Data(lattice_size=(rows, columns), num_nodes=rows * columns)
    assert torch.equal(edges, make_graph("neighborhood", kernel=3).graph(grid))


def test_the_backbone_is_built_once(monkeypatch):
    built = []
    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: built.append(a) or real(*a, **k))
    make()
    assert built == [("mobilenetv3_small_050",)]


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("the network was asked for weights")

    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", refuse)
    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_url", refuse)


def test_weights_of_the_whole_model_at_hand(offline, tmp_path):
    model = timm.create_model("sag_vit", **SMALL).eval()
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    x = torch.randn(2, 3, 64, 64)
    overlay = {"file": str(path), "num_classes": 5}
    for args in (
        {"pretrained": True, "pretrained_cfg_overlay": overlay},
        {
            "pretrained": True,
            "pretrained_cfg_overlay": overlay,
            "backbone_args": {"pretrained": True},
        },
        {
            "pretrained": True,
            "pretrained_cfg_overlay": {"state_dict": model.state_dict(), "num_classes": 5},
        },
        {"checkpoint_path": path},
    ):
        other = timm.create_model("sag_vit", **{**SMALL, **args}).eval()
        assert torch.equal(other(x), model(x))
    with pytest.raises(ConnectionError, match="the network"):
        timm.create_model("sag_vit", **SMALL, pretrained=True)


def test_weights_of_the_backbone_at_hand(offline, tmp_path):
    name = SMALL["backbone"]
    backbone = timm.create_model(name)
    path = tmp_path / "backbone.safetensors"
    save_file(backbone.state_dict(), path)
    for args in (
        {"checkpoint_path": path},
        {"checkpoint_path": path, "pretrained": True},
        {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}},
    ):
        model = timm.create_model("sag_vit", **SMALL, backbone_args=args)
        weights = backbone.state_dict()
        for key, value in model.backbone.model.state_dict().items():
            assert torch.equal(value, weights[key])
    model = timm.create_model(
        "sag_vit", **SMALL, pretrained=True, backbone_args={"checkpoint_path": path}
    )
    assert torch.equal(model.backbone.model.conv_stem.weight, backbone.conv_stem.weight)


def test_a_backbone_of_few_levels():
    model = timm.create_model("sag_vit", backbone="resnet10t", stride=4, features_only=True)
    assert model.feature_info.reduction() == [2, 4]
    features = model.eval()(torch.randn(1, 3, 64, 64))
    assert [f.size(2) for f in features] == [32, 16]


def test_a_backbone_of_one_image_size():
    def vit(**args):
        args = {"depth": 2, "embed_dim": 24, **args}
        return SAGViT(num_classes=3, backbone="vit_tiny_patch16_224", backbone_args=args).eval()

    assert vit()(torch.randn(1, 3, 224, 224)).shape == (1, 3)
    with pytest.raises(InputError, match=r"the backbone takes .got \(1, 3, 96, 96\): .* img_size"):
        vit()(torch.randn(1, 3, 96, 96))
    assert vit(img_size=96)(torch.randn(1, 3, 96, 96)).shape == (1, 3)
    assert vit(dynamic_img_size=True)(torch.randn(1, 3, 96, 128)).shape == (1, 3)


def test_a_backbone_without_checkpointing():
    model = SAGViT(backbone="vgg11", num_classes=3, device="meta")
    model.set_grad_checkpointing(False)
    with pytest.raises(InputError, match="with gradient checkpointing .got VGG"):
        model.set_grad_checkpointing()


def test_numpys_integers_are_integers():
    n = np.int64
    model = make(
        in_chans=n(1), num_classes=n(5), stride=n(16), patch_size=n(2), conv_channels=n(8),
        conv_heads=n(2), embed_dim=n(16), depth=n(1), num_heads=n(2),
    )  # fmt: skip
    assert model(torch.randn(1, 1, 64, 64)).shape == (1, 5)


@pytest.mark.slow
@pytest.mark.parametrize("conv", ["gat", "cross_attention"])
@pytest.mark.parametrize("variant", ["paper", "public"])
def test_compiles_in_one_graph_a_size(variant, conv):
    model = make(variant=variant, conv=conv)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    with torch.no_grad():
        for side in (96, 128, 160, 96, 128, 160):
            x = torch.randn(2, 3, side, side)
            torch.testing.assert_close(compiled(x), model(x), atol=1e-5, rtol=1e-4)
    assert counter.frame_count <= 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "conv"), [("paper", "gat"), ("paper", "cross_attention"), ("public", "gat")]
)
def test_exports_to_onnx(variant, conv, tmp_path):
    import onnxruntime

    model = make(variant=variant, conv=conv)
    program = torch.onnx.export(
        model,
        (torch.randn(2, 3, 80, 96),),
        dynamo=True,
        opset_version=18,
        verbose=False,
        dynamic_shapes=({0: "batch"},),
    )
    program.save(str(tmp_path / "model.onnx"))
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for batch in (2, 3):
        x = torch.randn(batch, 3, 80, 96)
        (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), model(x), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["paper", "public"])
def test_exported_programs_take_any_batch(variant):
    model = make(variant=variant, conv="cross_attention")
    batch = ({0: torch.export.Dim("batch", min=1)},)
    with torch.no_grad():
        program = torch.export.export(model, (torch.randn(2, 3, 80, 96),), dynamic_shapes=batch)
        for number in (1, 2, 5):
            x = torch.randn(number, 3, 80, 96)
            torch.testing.assert_close(program.module()(x), model(x), atol=1e-5, rtol=1e-4)


def test_a_tag_does_not_change_the_arithmetic():
    plain, tagged = (
        SAGViT(variant="public", backbone=f"tf_efficientnetv2_s{tag}", num_classes=3, device="meta")
        for tag in ("", ".in1k")
    )
    assert str(plain) == str(tagged)


def test_training_after_inference_mode():
    x = torch.randn(2, 3, 80, 112)  # A grid that no other test has left behind.
    grads = []
    for before in (True, False):
        model = make(patch_size=1, encoder_drop_rate=0.0)
        if before:
            with torch.inference_mode():
                model(x)
        model.train()(x).sum().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(grad.any() for grad in grads[1])
    assert all(map(torch.equal, *grads))


def test_any_backbone():
    for name, stride in (("resnet10t", 16), ("resnet10t", 8), ("ghostnet_050", 16)):
        model = SAGViT(backbone=name, stride=stride, num_classes=3).eval()
        assert model.feature_info[-1]["reduction"] == stride
        with torch.no_grad():
            assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"variant": "own"}, "variant must be one of 'paper', 'public' .got 'own'"),
        ({"backbone": "nothing"}, "backbone must be a model that timm knows .got 'nothing'"),
        ({"stride": 12}, "feature map of stride 12 .got mobilenetv3_small_050, with strides 2, 4,"),
        ({"backbone_args": {"in_chans": 4}}, "backbone_args as a dict without feature_cls, .*in_c"),
        ({"patch_size": 0}, "patch_size must be a positive int .got 0"),
        ({"depth": 0}, "depth must be a positive int"),
        ({"num_heads": 5}, "num_heads must divide embed_dim .got 5 and 64"),
        ({"num_classes": -1}, "num_classes must be an int, not negative"),
        (
            {"backbone_args": {"wheels": 4}},
            "arguments that it takes .got mobilenetv3_small_050 with wheels, in_chans: .*'wheels'",
        ),
        ({"backbone": "no_features"}, "a backbone that gives features .got no_features"),
        ({"conv": "gcn"}, "conv must be one of 'gat', 'cross_attention' .got 'gcn'"),
        ({"remainder": "keep"}, "remainder must be one of 'pad', 'drop'"),
        ({"global_pool": "max"}, "global_pool must be one of 'token', 'avg', ''"),
        ({"embed_dim": 6, "num_heads": 2}, "embed_dim must be a multiple of 4 .got 6"),
    ],
)
def test_arguments_that_are_not_there(args, message, monkeypatch):
    models = timm.models._registry._model_entrypoints
    monkeypatch.setitem(models, "no_features", lambda **kwargs: nn.Identity())
    with pytest.raises(InputError, match=message):
        make(**args)


def test_images_that_are_too_small():
    public = SAGViT(variant="public", num_classes=3).eval()
    with torch.no_grad():
        assert public(torch.randn(1, 3, 49, 49)).shape == (1, 3)
        with pytest.raises(InputError, match="images of about 49 or more pixels .* .got 3 x 4"):
            public(torch.randn(1, 3, 48, 49))
        assert make()(torch.randn(1, 3, 17, 17)).shape == (1, 5)
    with pytest.raises(InputError, match=r"expected images of shape \(B, 3, H, W\)"):
        make()(torch.randn(3, 64, 64))


def test_the_layer_of_the_other_paper():
    model = timm.create_model("sag_vit", conv="cross_attention", num_classes=3)
    assert "patch_graph.conv1.log_beta" in model.no_weight_decay()
