from pathlib import Path

import pytest
import timm
import torch
import yaml
from data.neighbors import sample_in_torch
from data.ogb import install_ogb
from data.online import TREES
from data.packages import PACKAGES, install
from data.scenes import coco_tree, labels_tree
from data.trees import imagenet_tree

from pyg_avig.train.cli import CLI

CONFIGS = sorted(Path("configs").rglob("*.yaml"))


def test_there_are_configs():
    assert CONFIGS


# What a config needs that is not on every machine, and what stands in for it here.
STAND_INS = {
    "images": [
        "--data.init_args.root={root}",
        "--data.init_args.test_split=val",
        "--model.pretrained=false",
    ],
    "own_images": ["--data.init_args.root={root}"],
    "student": ["--model.distillation.checkpoint={root}/resnet18.pth"],
    "imagenet": [
        "--data.init_args.root={root}",
        "--model.distillation={{name: mobilenetv3_small_050, checkpoint: {root}/teacher.pth}}",
        "--trainer.accelerator=cpu",
    ],
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = imagenet_tree(tmp_path_factory.mktemp("imagenet"), train=1, val=1)
    teacher = timm.create_model("mobilenetv3_small_050", num_classes=3)
    torch.save(teacher.state_dict(), root / "teacher.pth")
    teacher = timm.create_model("resnet18", num_classes=10, in_chans=1)
    torch.save(teacher.state_dict(), root / "resnet18.pth")
    return root


OWN_GRAPHS = Path("configs/own_graphs.yaml")  # See tests/train/test_report.py.
GRAPHS = [path for path in CONFIGS if "GraphTask" in path.read_text() and path != OWN_GRAPHS]
# Data sets that are drawn, and how to draw fewer graphs.
DRAWN = {
    "pattern": ["share=0.001"],
    "cluster": ["share=0.001"],
    "dictionary_lookup": ["num_graphs=100"],
}


@pytest.mark.filterwarnings("ignore:Total length of .list. across ranks is zero")  # No validation.
@pytest.mark.parametrize("config", GRAPHS, ids=str)
def test_every_config_of_graphs_trains(config, tmp_path, monkeypatch):
    """One step, on small data of the layout that is downloaded, ships in a package or is drawn."""
    name = config.parts[1]
    if name in PACKAGES:
        install(name, tmp_path, monkeypatch)
    elif name not in DRAWN:
        folder = tmp_path / "data"
        TREES[name](folder / name if name in ("modelnet10", "ppi") else folder)
    if name == "ogbn_arxiv":
        install_ogb(monkeypatch)
        sample_in_torch(monkeypatch)
    Path(tmp_path, "config.yaml").write_text(config.read_text())
    monkeypatch.chdir(tmp_path)
    drawn = [*DRAWN[name], f"root={tmp_path}"] if name in DRAWN else []
    options = [f"--data.init_args.dataset.init_args.{option}" for option in drawn]
    options += ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"]
    cli = CLI(["--config=config.yaml", *options], run=False)
    before = {name: p.detach().clone() for name, p in cli.model.named_parameters()}
    cli.trainer.fit(cli.model, cli.datamodule)
    assert cli.trainer.global_step == 1
    parts = ["train", "val"] if cli.datamodule.val_dataloader() else ["train"]
    assert all(cli.trainer.callback_metrics[f"{part}_loss"].isfinite() for part in parts)
    moved = [not torch.equal(p, before[name]) for name, p in cli.model.named_parameters()]
    assert sum(moved) > len(moved) / 2
    batch = next(iter(cli.datamodule.train_dataloader()))
    assert cli.model(batch).shape[1] == cli.datamodule.facts["out_channels"]


@pytest.mark.data
@pytest.mark.parametrize("config", [path for path in GRAPHS if path.parts[1] in PACKAGES], ids=str)
def test_every_config_builds_on_the_published_data(config, tmp_path):
    args = [f"--config={config}", f"--trainer.logger.init_args.save_dir={tmp_path}"]
    try:
        cli = CLI(args, run=False)
    except ValueError as error:  # The parser's, around ours.
        if "install" not in str(error):
            raise
        pytest.skip(f"no data for {config}")
    batch = next(iter(cli.datamodule.train_dataloader()))
    assert cli.model(batch).shape[1] == cli.datamodule.facts["out_channels"]


SCENES = [path for path in CONFIGS if "Detector" in (t := path.read_text()) or "Segmenter" in t]


@pytest.fixture(scope="module")
def scenes_root(tmp_path_factory):
    """Small data of the layout of each config of scenes, by the config's folder or its name."""
    roots = {name: tmp_path_factory.mktemp(name) for name in ("coco", "ade20k", "masks")}
    coco_tree(roots["coco"], ("train2017", "val2017"))
    (roots["coco"] / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (roots["coco"] / f"{split}.json").rename(
            roots["coco"] / "annotations" / f"instances_{split}.json"
        )
    labels_tree(roots["ade20k"], ("training", "validation"), classes=151, void=0)
    (roots["ade20k"] / "labels").rename(roots["ade20k"] / "annotations")
    coco_tree(roots["masks"])
    labels_tree(roots["masks"])
    return {**roots, "boxes": roots["masks"], "semantic": roots["masks"]}


@pytest.mark.parametrize("config", SCENES, ids=str)
def test_every_config_of_scenes_takes_a_batch(config, tmp_path, scenes_root):
    options = [f"--config={config}", f"--trainer.logger.init_args.save_dir={tmp_path}"]
    root = scenes_root.get(config.parts[1], scenes_root.get(config.stem))
    if root is not None:
        options += [f"--data.init_args.root={root}", "--data.init_args.num_workers=0"]
    options += ["--data.init_args.batch_size=2", "--trainer.precision=32"]
    if config.parts[1] == "coco":  # At its own size a minute.
        small = "--model.init_args.detector_args"
        options += [f"{small}.min_size=96", f"{small}.max_size=128"]
    cli = CLI(options, run=False)
    cli.datamodule.setup("fit")
    batch = next(iter(cli.datamodule.train_dataloader()))
    cli.model.log = cli.model.log_dict = lambda *args, **kwargs: None
    with torch.no_grad():
        assert cli.model.training_step(batch, 0).isfinite()


@pytest.mark.parametrize("name", ["coco/mask_rcnn", "ade20k/semantic_fpn"])
def test_the_sizes_of_dense_models_share_one_recipe(name):
    contents = []
    for size in "sb":
        content = yaml.safe_load(Path(f"configs/{name}_{size}.yaml").read_text())
        assert content["model"]["init_args"].pop("name") == f"attentionvig_{size}"
        assert content["trainer"]["logger"]["init_args"].pop("name").endswith(f"-{size}")
        contents.append(content)
    assert contents[0] == contents[1]


@pytest.mark.parametrize("config", sorted({*CONFIGS} - {*GRAPHS, *SCENES, OWN_GRAPHS}), ids=str)
def test_every_config_of_images_builds(config, tmp_path, root):
    needed = STAND_INS.get(config.stem, STAND_INS.get(config.parts[1], []))
    stand_ins = [option.format(root=root) for option in needed]
    save_dir = f"--trainer.logger.init_args.save_dir={tmp_path}"
    cli = CLI([f"--config={config}", save_dir, *stand_ins], run=False)
    side = cli.datamodule.data_config["input_size"]
    with torch.no_grad():
        assert cli.model.eval()(torch.zeros(2, *side)).shape[0] == 2


def test_the_sizes_of_imagenet_share_one_recipe():
    contents = {
        path.stem: yaml.safe_load(path.read_text()) for path in CONFIGS if "imagenet" in path.parts
    }
    for size, content in contents.items():
        assert content["model"].pop("name") == f"attentionvig_{size}"
        assert content["trainer"]["logger"]["init_args"].pop("name") == f"imagenet-{size}"
    assert contents["s"] == contents["m"] == contents["b"]


def test_the_ways_of_sag_vit_share_one_recipe():
    contents = []
    for name, own in (
        ("paper", {}),
        ("public", {"variant": "public"}),
        ("cross_attention", {"conv": "cross_attention"}),
    ):
        content = yaml.safe_load(Path(f"configs/sag_vit/fashion_mnist_{name}.yaml").read_text())
        content["trainer"]["logger"]["init_args"].pop("name")
        args = content["model"]["model_args"]
        assert {key: args.pop(key) for key in own} == own
        contents.append(content)
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize(
    "config", [path for path in CONFIGS if path.parts[1] == "sag_vit"], ids=str
)
def test_sag_vit_stops_and_keeps_by_the_validation_loss(config):
    content = yaml.safe_load(config.read_text())
    callbacks = {
        (call["class_path"].rpartition(".")[2], call["init_args"].get("filename")): call[
            "init_args"
        ]
        for call in content["trainer"]["callbacks"]
    }
    assert callbacks["EarlyStopping", None] == {"monitor": "val_loss", "patience": 8}
    assert callbacks["ModelCheckpoint", "best"]["monitor"] == "val_loss"
    data = content["data"]["init_args"]
    assert data.get("test_split", "test") != data.get("val_split", "val")
