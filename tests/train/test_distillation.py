import pytest
import timm
import torch
import torch.nn.functional as F
from train.runs import last_checkpoint, options

from pyg_avig import InputError
from pyg_avig.train.checkpoint import load_classifier
from pyg_avig.train.cli import main
from pyg_avig.train.distillation import Teacher
from pyg_avig.train.export import write_export

CLASSES = list("abcdefghij")
DATA = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.25] * 3}


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv3_small_050", num_classes=10)
    torch.save(model.state_dict(), tmp_path / "teacher.pth")
    return str(tmp_path / "teacher.pth")


def test_the_second_classifier_learns_the_teachers_decisions(weights):
    teacher = Teacher(DATA, CLASSES, "mobilenetv3_small_050", weights, alpha=0.25)
    images = torch.randn(4, 3, 32, 32)
    decisions = teacher.model(images).argmax(-1)
    assert torch.equal(teacher.decide(images), decisions)
    logits = torch.randn(2, 4, 10)
    loss = teacher.loss((logits[0], logits[1]), torch.tensor(3.0), images)
    torch.testing.assert_close(loss, 0.75 * 3 + 0.25 * F.cross_entropy(logits[1], decisions))


def test_a_teacher_of_timm_gets_images_in_its_own_normalisation(weights, monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, pretrained, **k: create(*a, **k))
    teacher = Teacher(DATA, [str(n) for n in range(1000)], "mobilenetv3_small_050")
    seen = []
    teacher.model.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    pixels = torch.rand(2, 3, 32, 32)
    teacher.decide((pixels - 0.5) / 0.25)
    mean, std = (
        torch.tensor(teacher.model.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std")
    )
    torch.testing.assert_close(seen[0], (pixels - mean) / std)


def test_an_exported_teacher_is_held_to_its_classes_and_normalisation(tmp_path):
    model = timm.create_model("mobilenetv3_small_050", num_classes=10)
    path = str(tmp_path / "teacher.safetensors")
    theirs = {**DATA, "mean": [0.0] * 3}
    described = {"name": "x", "model_args": {}, "classes": CLASSES, "data_config": theirs}
    write_export(path, model.state_dict(), described)
    teacher = Teacher(DATA, CLASSES, "mobilenetv3_small_050", path)
    images = torch.randn(4, 3, 32, 32)
    expected = teacher.model((images * 0.25 + 0.5) / 0.25).argmax(-1)
    assert torch.equal(teacher.decide(images), expected)
    with pytest.raises(InputError, match="student's classes"):
        Teacher(DATA, CLASSES[::-1], "mobilenetv3_small_050", path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "no_such"}, "distillation.name.*'no_such'"),
        ({"checkpoint": "nowhere.pth"}, "cannot be made"),
        ({"alpha": 2}, r"distillation.alpha must lie in \[0, 1\]"),
    ],
)
def test_what_is_no_teacher_is_named(weights, arguments, message):
    given = {"name": "mobilenetv3_small_050", "checkpoint": weights, **arguments}
    with pytest.raises(InputError, match=message):
        Teacher(DATA, CLASSES, **given)


def test_training_with_a_teacher_and_mixing(tmp_path):
    model = timm.create_model("mobilenetv3_small_050", num_classes=10, in_chans=1)
    torch.save(model.state_dict(), tmp_path / "teacher.pth")
    teacher = f"{{name: mobilenetv3_small_050, checkpoint: {tmp_path}/teacher.pth}}"
    more = [
        f"--model.distillation={teacher}",
        "--model.mixup={mixup_alpha: 0.8, cutmix_alpha: 1.0}",
    ]
    assert main(["fit", *options(tmp_path / "runs", "--trainer.max_epochs=1", *more)]) == 0
    saved = last_checkpoint(tmp_path / "runs")
    keys = torch.load(saved, weights_only=True)["state_dict"]
    assert not any("teacher" in key for key in keys)
    (tmp_path / "teacher.pth").unlink()  # Nobody needs it behind training.
    assert load_classifier(saved).teacher is None


def test_a_pretrained_teacher_of_other_classes_is_refused(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, pretrained, **k: create(*a, **k))
    with pytest.raises(InputError, match="teacher of 10 classes .the pretrained .* knows 1000"):
        Teacher(DATA, CLASSES, "mobilenetv3_small_050")
    grey = {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.5]}
    teacher = Teacher(grey, [str(n) for n in range(1000)], "mobilenetv3_small_050")
    assert teacher.decide(torch.randn(2, 1, 32, 32)).shape == (2,)
