import json
import subprocess
import sys

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import resolve_model_data_config

from pyg_avig import InputError
from pyg_avig.train import ImageClassifier, export_timm, load_classifier
from pyg_avig.train.cli import main
from pyg_avig.train.export_timm import write_timm_folder

DATA = {"input_size": [3, 64, 64], "mean": [0.3] * 3, "std": [0.2] * 3, "crop_pct": 0.9}
DATA["interpolation"] = "bilinear"


@pytest.fixture(scope="module")
def folder(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "nano"
    assert main(["export", checkpoint, f"{path}/"]) == 0
    return path


def test_timm_makes_the_checkpoints_model(folder, checkpoint, capsys):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    classifier = load_classifier(checkpoint)
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(model(images), classifier(images))
    found = resolve_model_data_config(model)
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in found.items()} == {
        **classifier.hparams["data_config"],
        "crop_mode": "center",
    }
    assert list(model.pretrained_cfg["label_names"]) == classifier.hparams["classes"]
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "README.md",
        "model.safetensors",
    }
    assert main(["export", checkpoint, str(folder)]) == 0  # Over an older one.
    out = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in out] == [
        f"{folder}/{name}" for name in ("config.json", "README.md", "model.safetensors")
    ]


def test_a_folder_is_an_export_as_any_other(folder, checkpoint, tmp_path, capsys):
    Image.linear_gradient("L").save(tmp_path / "a.png")
    lines = []
    for model in (checkpoint, str(folder), f"{folder}/", f"{folder}/model.safetensors"):
        assert main(["predict", model, str(tmp_path / "a.png")]) == 0
        lines.append(capsys.readouterr().out)
    assert len(set(lines)) == 1
    again = tmp_path / "again.safetensors"
    assert main(["export", str(folder), str(again)]) == 0
    assert again.read_bytes() == (folder / "model.safetensors").read_bytes()
    description = {k: load_classifier(folder).hparams[k] for k in ("classes", "data_config")}
    args = load_classifier(folder).hparams["model_args"]
    model = ImageClassifier(**description, model_args=args, initial_weights=str(folder)).model
    assert torch.equal(model.stem[0][0].weight, load_classifier(again).model.stem[0][0].weight)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("sag_vit", {"variant": "public", "backbone": "resnet18", "conv_channels": 8}),
        ("resnet18", {}),
    ],
)
def test_other_models(name, args, tmp_path):
    classifier = ImageClassifier(["a", "b"], DATA, name=name, model_args=args).eval()
    write_timm_folder(tmp_path / "out", classifier, {})
    model = timm.create_model(f"local-dir:{tmp_path}/out", pretrained=True).eval()
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(model(images), classifier(images))
    found = load_classifier(tmp_path / "out")
    assert torch.equal(found(images), classifier(images))


def test_what_others_wrote_stays(checkpoint, tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    assert main(["export", checkpoint, str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "expected a new folder" in error
    assert "README.md of something else" in error
    (tmp_path / "other").mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "other" / "model.safetensors")
    (tmp_path / "other" / "config.json").write_text("{}")
    assert main(["export", checkpoint, f"{tmp_path}/other/"]) == 2
    for model in ("other", "none/", "."):
        (tmp_path / "none").mkdir(exist_ok=True)
        assert main(["predict", f"{tmp_path}/{model}", "a.png"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert "`pyg-avig export` wrote" in errors[-3]
    assert all("with model.safetensors .there is none" in e.replace("(", ".") for e in errors[-2:])
    assert (tmp_path / "README.md").read_text() == "mine"
    assert list((tmp_path / "none").iterdir()) == []


def test_a_folder_that_cannot_be_right_is_not_written(tmp_path, monkeypatch):
    def write(classifier):
        with pytest.raises(InputError) as error:
            write_timm_folder(tmp_path / "out", classifier, {})
        assert not (tmp_path / "out").exists()
        return str(error.value)

    small = {"channels": [8, 8, 8, 8]}
    classifier = ImageClassifier(["a", "b"], DATA, model_args=small).eval()
    with monkeypatch.context() as patch:
        create = timm.create_model

        def other(*args, **kwargs):
            model = create(*args, **kwargs)
            torch.nn.init.ones_(model.head.classifier.bias)
            return model

        patch.setattr(export_timm.timm, "create_model", other)
        assert "from timm, to 0.0001" in write(classifier)
    classifier.hparams["model_args"] = {"channels": {8}}
    assert "config.json can hold" in write(classifier)
    classifier.hparams["model_args"] = {**small, "head_hidden_size": 16}
    assert "that timm makes anew" in write(classifier)
    classifier.hparams["swap_attention"] = {}
    assert "swapped attention" in write(classifier)
    classifier.hparams["swap_attention"] = None
    classifier.hparams["model_args"] = small
    torch.nn.init.constant_(classifier.model.head.classifier.bias, torch.nan)
    assert "finite weights" in write(classifier)


def test_the_card_s_program_runs(folder, tmp_path):
    Image.linear_gradient("L").save(tmp_path / "photo.jpg")
    program = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program.replace("FOLDER", str(folder))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() in "0123456789", run.stderr
    assert run.stdout.strip()
    assert json.loads((folder / "config.json").read_text())["architecture"] == "attentionvig_nano"
