import shutil
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from pyg_avig.train import ImageClassifier, load_classifier
from pyg_avig.train.model_card import facts_of_run, model_card

DATA = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.9}


def test_a_card_says_classes_data_metrics_and_training(checkpoint):
    run = facts_of_run(checkpoint, torch.load(checkpoint, weights_only=True))
    assert run["metrics"].keys() == {"val_acc", "val_f1", "val_loss", "val_mcc"}
    run["config"]["data"]["init_args"]["root"] = "where/it/lay"
    text = model_card(load_classifier(checkpoint), run)
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in text
    assert "`pyg_avig.data.Digits`:\n" in text
    assert f"| val_acc | {run['metrics']['val_acc']:.4f} |" in text
    assert "behind epoch" in text
    assert "where/it/lay" not in text
    training = yaml.safe_load(text.split("```yaml\n")[-1].split("```")[0])
    assert training["model"]["init_args"]["name"] == "attentionvig_nano"
    data = ModelCard(text).data
    assert data.library_name == "timm"
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found["accuracy"] == pytest.approx(run["metrics"]["val_acc"], abs=1e-4)


@pytest.mark.parametrize("broken", [None, b"a: [", b"\xff", b"3"])
def test_what_lies_beside_a_checkpoint_may_be_gone(checkpoint, tmp_path, broken):
    copy = tmp_path / "run" / "checkpoints" / "best.ckpt"
    copy.parent.mkdir(parents=True)
    shutil.copyfile(checkpoint, copy)
    if broken is not None:
        (tmp_path / "run" / "config.yaml").write_bytes(broken)
    run = facts_of_run(copy, torch.load(checkpoint, weights_only=True))
    assert run["config"] is None
    assert run["metrics"].keys() == {"val_acc"}  # What the checkpoint was kept for.
    assert "It is not known on which" in model_card(load_classifier(copy), run)
    assert Path(copy).exists()


def test_a_card_without_a_training_and_with_many_classes():
    classes = [f"class {n}" for n in range(150)]
    args = {"channels": [8, 8, 8, 8]}
    text = model_card(ImageClassifier(classes, DATA, model_args=args), {})
    assert "class 99, ... (150 in all" in text
    assert "class 100" not in text
    assert "None are known" in text
    assert "## Training" not in text
    assert 'convert("RGB")' in text
