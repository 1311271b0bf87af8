import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from explore.pages import (
    NodeModel,
    cloud,
    cloud_model,
    content,
    images,
    nano,
    numbers,
    page_of,
    ring,
)
from torch_geometric.data import Batch, Data

from pyg_avig import CrossAttnConv, InputError, attention_weights
from pyg_avig.data.datasets.molecules import molecule_graph
from pyg_avig.models import ViG
from pyg_avig.transforms import ImageToGraph


def test_a_page_holds_every_weight_of_every_stage_block_and_head(tmp_path):
    model, image = nano(heads=(1, 2, 2, 4)), images(1)
    page = content(page_of(model, image, tmp_path / "a.html"))
    expected = attention_weights(model, image)
    (item,) = page["items"]
    layers = {layer["name"]: layer for stage in item["stages"] for layer in stage["layers"]}
    assert list(layers) == list(expected)
    for name, (edge_index, alpha) in expected.items():
        layer = layers[name]
        edges = page["edges"][layer["edges"]]
        source, start = numbers(edges["source"], "<u4"), numbers(edges["start"], "<u4")
        target = np.repeat(np.arange(edges["numNodes"]), np.diff(start))
        order = edge_index[1].argsort(stable=True)
        np.testing.assert_array_equal(np.stack([source, target]), edge_index[:, order])
        low, high = (np.array(layer[key])[:, None] for key in ("low", "high"))
        weights = numbers(layer["weights"], np.uint8).reshape(alpha.size(1), -1)
        read = low + (high - low) * weights / 255
        assert np.abs(read - alpha[order].T.numpy()).max() <= (high - low).max() / 255 / 2 + 1e-6
    assert [stage["size"] for stage in item["stages"]] == [[16, 16], [8, 8], [4, 4], [2, 2]]
    assert [stage["side"] for stage in item["stages"]] == [2, 4, 8, 16]


def test_the_prediction_is_the_models(tmp_path):
    model, image = nano(), images(1)
    classes = [f"class {i}" for i in range(10)]
    (item,) = content(page_of(model, image, tmp_path / "a.html", classes=classes))["items"]
    best = model(image)[0].softmax(-1).topk(5)
    assert [name for name, _ in item["top"]] == [classes[i] for i in best.indices]
    assert [p for _, p in item["top"]] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_images_of_a_size_share_their_edges(tmp_path):
    one = content(page_of(nano(), images(1), tmp_path / "a.html"))
    three = content(page_of(nano(), images(3), tmp_path / "a.html", names=["a", "b", "c"]))
    assert len(three["edges"]) == len(one["edges"]) == 4
    assert [item["name"] for item in three["items"]] == ["a", "b", "c"]


@pytest.mark.slow
def test_three_images_at_224_stay_under_5_mb(tmp_path):
    model = timm.create_model("attentionvig_s", num_classes=10, heads=(1, 2, 4, 4))
    noise = torch.randn(3, 3, 224, 224)  # What JPEG compresses least.
    assert page_of(model, noise, tmp_path / "a.html").stat().st_size < 5e6


def test_a_page_asks_for_nothing_and_no_name_can_end_its_data(tmp_path):
    path = tmp_path / "folder" / "a.html"
    page_of(nano(), images(1), path, names=["</script><b>"], title="a < b")
    text = path.read_text(encoding="utf-8")
    assert content(path)["items"][0]["name"] == "</script><b>"
    d3 = Path("pyg_avig/explore/page/d3.min.js").read_text(encoding="utf-8")
    assert d3 in text
    assert Path("pyg_avig/explore/page/d3.LICENSE").read_text() in text
    ours = text.replace(d3, "")
    assert not re.search(r"https?://(?!arxiv)|(src|href)=.?//|@import|url\(|fetch\(|<link", ours)
    assert [p.name for p in path.parent.iterdir()] == ["a.html"]


@pytest.mark.parametrize("size", [(33, 65), (40, 32)])
def test_lattices_of_any_size_are_found(size, tmp_path):
    (item,) = content(page_of(nano(), torch.randn(1, *size), tmp_path / "a.html"))["items"]
    for stage, side in zip(item["stages"], (2, 4, 8, 16), strict=True):
        assert stage["size"] == [-(-length // side) for length in size]


def test_graphs_of_images_are_images(tmp_path):
    model = ViG(64, 3, channels=16, num_blocks=2, graph="knn", graph_args={"k": 4, "of": "x"})
    graph = ImageToGraph(patch_size=8, edges=False)(torch.rand(1, 32, 48))
    page = content(page_of(model, graph, tmp_path / "a.html"))
    (item,) = page["items"]
    (stage,) = item["stages"]
    assert (stage["size"], stage["side"], len(stage["layers"])) == ([4, 6], 8, 2)
    assert (item["height"], item["width"]) == (32, 48)
    assert item["nodes"] is None


def test_a_molecule_lies_as_rdkit_draws_it(tmp_path):
    molecule = molecule_graph("CC(=O)O")
    model = ViG(molecule.num_features, 1, channels=8, num_blocks=1)
    (item,) = content(page_of(model, molecule, tmp_path / "a.html"))["items"]
    assert item["nodes"]["symbols"] == ["C", "C", "O", "O"]
    positions = np.array(item["nodes"]["positions"])
    bonds = molecule.edge_index
    lengths = np.linalg.norm(positions[bonds[0]] - positions[bonds[1]], axis=1)
    assert lengths == pytest.approx(1.5, abs=0.01)  # Of RDKit's own units.
    assert item["values"] == pytest.approx(model.eval()(molecule)[0].tolist(), abs=1e-5)
    assert item["top"] is None


def test_a_cloud_has_its_positions(tmp_path):
    data = cloud()
    items = content(page_of(cloud_model(), Batch.from_data_list([data] * 2), tmp_path / "a.html"))
    assert len(items["items"]) == 2
    nodes = items["items"][0]["nodes"]
    assert np.array(nodes["positions"]) == pytest.approx(data.pos.numpy(), abs=1e-3)
    assert nodes["colourings"][0]["name"] == "height"


def test_nodes_have_predictions_of_their_own(tmp_path):
    model, data = NodeModel(), ring()
    (item,) = content(page_of(model, data, tmp_path / "a.html", classes=["a", "b", "c"]))["items"]
    predicted = model(data.x, data.edge_index).argmax(1).tolist()
    by_name = {c["name"]: c for c in item["nodes"]["colourings"]}
    assert by_name["predicted class"]["values"] == predicted
    assert by_name["label"]["values"] == data.y.tolist()
    assert [top[0][0] for top in item["nodes"]["top"]] == ["abc"[i] for i in predicted]


@pytest.mark.parametrize("hops", [1, 3])
def test_a_neighbourhood_is_drawn_with_the_weights_of_the_whole_graph(hops, tmp_path):
    model, data = NodeModel(), ring(1000)
    path = tmp_path / "a.html"
    page = content(page_of(model, data, path, node=7, hops=hops))
    (item,) = page["items"]
    expected = list(range(7 - hops, 7 + hops + 1))
    assert item["nodes"]["labels"] == [f"node {i}" for i in expected]
    assert expected[item["nodes"]["centre"]] == 7
    layer = item["stages"][0]["layers"][0]
    source = numbers(page["edges"][layer["edges"]]["source"], "<u4")
    assert len(source) == 2 * (len(expected) - 1)
    alpha = attention_weights(model, data.x, data.edge_index)["conv1"].alpha
    inner = np.isin(data.edge_index, expected).all(0)
    assert layer["high"] == pytest.approx([alpha[inner].max().item()])


def test_models_stay_in_their_mode(tmp_path):
    model = nano().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    page_of(model, images(1), tmp_path / "a.html")
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class _Bipartite(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = CrossAttnConv(4, 4)

    def forward(self, x, edge_index):
        return self.conv((x, x[:1]), edge_index[:, :0])


BAD = {
    "a model without attention": (
        timm.create_model("mobilenetv3_small_050"),
        torch.rand(3, 32, 32),
        {},
        "CrossAttnConv layers .got MobileNetV3 without",
    ),
    "other channels": (nano(), torch.rand(3, 32, 32), {}, r"\(B, 1, H, W\)"),
    "too small": (nano(), torch.rand(1, 16, 16), {}, "at least 32"),
    "no image": (nano(), torch.rand(32, 32), {}, r"\(got \(32, 32\)\)"),
    "nothing": (nano(), [], {}, "got none"),
    "a word": (nano(), "a.png", {}, "got str"),
    "too few names": (nano(), images(2), {"names": ["a"]}, "got 1 for 2"),
    "too few classes": (nano(), images(1), {"classes": ["a"]}, "each of the 10"),
    "too few classes of nodes": (NodeModel(), ring(), {"classes": ["a"]}, "each of the 3"),
    "features of NaN": (
        NodeModel(),
        ring().update({"x": torch.full((30, 4), torch.nan)}),
        {},
        "NaN",
    ),
    "a place of NaN": (
        NodeModel(),
        ring().update({"pos": torch.full((30, 3), torch.nan)}),
        {},
        "finite positions",
    ),
    "no field": (NodeModel(), Data(x=torch.rand(3, 4)), {}, "the model takes"),
    "two sets of nodes": (_Bipartite(), ring(), {}, "from 30 to 1"),
    "a million nodes": (NodeModel(), ring(1_000_000, 1), {}, "name one, as node="),
    "many points": (cloud_model(), Data(pos=torch.rand(3000, 3)), {}, "FixedPoints"),
    "a node that is not there": (NodeModel(), ring(), {"node": 30}, "from 0 to 29"),
    "too many hops": (NodeModel(), ring(1000), {"node": 0, "hops": 300}, "take fewer hops"),
    "another molecule": (NodeModel(), ring().update({"smiles": "CC"}), {}, "of 30 atoms"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_shown_is_refused_and_nothing_written(name, tmp_path):
    model, inputs, options, message = BAD[name]
    with pytest.raises(InputError, match=message):
        page_of(model, inputs, tmp_path / "a.html", **options)
    assert list(tmp_path.iterdir()) == []


def test_weights_of_nan_are_refused(tmp_path):
    model = nano()
    with torch.no_grad():
        model.stages[2].blocks[-1].grapher.conv.log_beta.fill_(torch.nan)
    with pytest.raises(InputError, match=r"NaN or infinity in stages\.2"):
        page_of(model, images(1), tmp_path / "a.html")


def test_a_path_that_cannot_be_written_is_named_and_the_old_page_stays(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError) as error:
        page_of(nano(), images(1), tmp_path / "a" / "b.html")
    assert error.value.filename == str(tmp_path / "a" / "b.html")
    assert (tmp_path / "a").read_text() == "old"
