from pathlib import Path

import pytest
import timm
import torch
import yaml
from data.online import TREES
from data.packages import PACKAGES, install
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


GRAPHS = [path for path in CONFIGS if "GraphTask" in path.read_text()]


@pytest.mark.filterwarnings("ignore:Total length of .list. across ranks is zero")  # No validation.
@pytest.mark.parametrize("config", GRAPHS, ids=str)
def test_every_config_of_graphs_trains(config, tmp_path, monkeypatch):
    """One step, on small data of the layout that is downloaded or ships in a package."""
    name = config.parts[1]
    if name in PACKAGES:
        install(name, tmp_path, monkeypatch)
    else:
        folder = tmp_path / "data"
        TREES[name](folder / name if name in ("modelnet10", "ppi") else folder)
    Path(tmp_path, "config.yaml").write_text(config.read_text())
    monkeypatch.chdir(tmp_path)
<<<<<<< HEAD
    options = ["--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"]
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
=======
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # Where a board that is drawn is kept.
    Path("config.yaml").write_text(text)
    CLI(["fit", "--config=config.yaml", "--trainer.fast_dev_run=true", "--trainer.accelerator=cpu"])


# Data sets that are drawn, and how to draw fewer graphs.
DRAWN = {
    "pattern": ["share=0.001"],
    "cluster": ["share=0.001"],
    "dictionary_lookup": ["num_graphs=100"],
}


@pytest.mark.parametrize("config", [path for path in GRAPHS if path.parts[1] not in TREES], ids=str)
def test_every_config_of_graphs_builds(config, tmp_path):
>>>>>>> graphs/graphs
    args = [f"--config={config}", f"--trainer.logger.init_args.save_dir={tmp_path}"]
    if config.parts[1] in DRAWN:
        drawn = [*DRAWN[config.parts[1]], f"root={tmp_path}"]
        args += [f"--data.init_args.dataset.init_args.{option}" for option in drawn]
    try:
        cli = CLI(args, run=False)
    except ValueError as error:  # The parser's, around ours.
        if "install" not in str(error):
            raise
        pytest.skip(f"no data for {config}")
    batch = next(iter(cli.datamodule.train_dataloader()))
    assert cli.model(batch).shape[1] == cli.datamodule.facts["out_channels"]


@pytest.mark.parametrize("config", sorted(set(CONFIGS) - set(GRAPHS)), ids=str)
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
