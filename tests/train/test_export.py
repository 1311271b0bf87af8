import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from train.runs import last_checkpoint, options

from pyg_avig import InputError
from pyg_avig.train.checkpoint import load_classifier
from pyg_avig.train.cli import CLI, main
from pyg_avig.train.export import check_alike, read_export, round_weights


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "model.safetensors"
    assert main(["export", checkpoint, str(path)]) == 0
    return path


def test_an_exported_model_is_the_checkpoints(exported, checkpoint):
    a, b = load_classifier(exported), load_classifier(checkpoint)
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(a(images), b(images))
    for key in ("classes", "data_config", "name", "model_args"):
        assert a.hparams[key] == b.hparams[key]
    assert [path.name for path in exported.parent.iterdir()] == ["model.safetensors"]


def test_exporting_says_what_it_wrote_and_others_may_read_it(checkpoint, tmp_path, capsys):
    path = tmp_path / "model.safetensors"
    assert main(["export", checkpoint, str(path)]) == 0
    assert capsys.readouterr().out == f"{path} ({path.stat().st_size / 1000:,.0f} kB)\n"
    (tmp_path / "new").touch()
    assert path.stat().st_mode == (tmp_path / "new").stat().st_mode


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.onnx", "--precision=bf16"], "expected out as *.pt2, *.safetensors or a folder"),
        (["a.pt2", "--precision=fp16"], "precision must be bf16 (got 'fp16')"),
        (["a.onnx", "--quantize=int4"], "quantize must be int8 (got 'int4')"),
        (["a.pt2", "--quantize=int8"], "expected out as *.onnx, for --quantize (got a .pt2)"),
        (["a.onnx", "--quantize=int8", "--dynamic_size"], "expected either"),
        (["a.onnx", "--calibration=config.yaml"], "expected --quantize int8, for --calibration"),
        (["a.pt2", "--dynamic_size"], "expected out as *.onnx, for --dynamic_size (got a .pt2"),
    ],
)
def test_options_of_other_forms_are_refused(words, message, capsys):
    assert main(["export", "none.ckpt", *words]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error


def test_weights_in_bfloat16(checkpoint, tmp_path):
    path, folder = tmp_path / "model.safetensors", tmp_path / "nano"
    for out in (path, folder):
        assert main(["export", checkpoint, str(out), "--precision=bf16"]) == 0
    tensors, _ = read_export(path)
    assert {x.dtype for x in tensors.values() if x.is_floating_point()} == {torch.bfloat16}
    images = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        rounded, whole = (load_classifier(p)(images) for p in (path, checkpoint))
        assert torch.equal(load_classifier(folder)(images), rounded)
    assert not torch.equal(rounded, whole)
    torch.testing.assert_close(rounded, whole, atol=0.1, rtol=0.1)


def test_what_rounding_changes_too_much_is_refused():
    layer = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(layer.weight, 257.0)  # Halfway between two numbers of bfloat16.
    torch.nn.init.constant_(layer.bias, -256.0)
    with pytest.raises(InputError, match="from weights in bfloat16, to 0.1 .got .* differ by 1"):
        round_weights(layer, torch.ones(1, 1))


def test_a_checkpoint_is_read_once(checkpoint, tmp_path, monkeypatch):
    reads, load = [], torch.load
    monkeypatch.setattr(
        torch, "load", lambda *args, **kwargs: reads.append(1) or load(*args, **kwargs)
    )
    assert main(["export", checkpoint, f"{tmp_path}/model.safetensors"]) == 0
    Image.linear_gradient("L").save(tmp_path / "a.png")
    assert main(["predict", checkpoint, f"{tmp_path}/a.png"]) == 0
    assert len(reads) == 2


def test_exporting_needs_a_suffix_and_a_checkpoint(checkpoint, tmp_path, capsys):
    assert main(["export", checkpoint, str(tmp_path / "model.bin")]) == 2
    assert "*.safetensors" in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none.ckpt"), str(tmp_path / "a.safetensors")]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (torch.ones(2, 3) + 2e-4, "differ by 0.0002.*nothing was written"),
        (torch.full((2, 3), torch.nan), "differ by nan"),
        (torch.ones(2, 4), r"of shape \(2, 3\) from timm.*got \(2, 4\)"),
    ],
)
def test_an_export_gives_what_its_model_gives(found, message):
    expected = torch.ones(2, 3)
    check_alike(expected + 5e-5, expected, "timm")
    check_alike(1e4 * expected + 0.5, 1e4 * expected, "timm")
    with pytest.raises(InputError, match=message):
        check_alike(found, expected, "timm")
    with pytest.raises(InputError, match="outputs are NaN"):
        check_alike(expected, expected * torch.inf, "timm")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(InputError, match="no such file"):
        read_export(path)
    path.write_bytes(b"broken")
    with pytest.raises(InputError, match="expected an exported model"):
        read_export(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="`pyg-avig export` wrote"):
        read_export(path)


def fine_tuned(folder, exported, *more):
    first = [f"--model.initial_weights={exported}", "--trainer.max_epochs=1", *more]
    return CLI(["fit", *options(folder, *first)]).model


def test_fine_tuning_starts_from_the_export_and_leaves_beta(exported, tmp_path):
    tensors, _ = read_export(exported)
    model = fine_tuned(
        tmp_path, exported, "--model.lr=1e-12", "--model.warmup_lr=0", "--model.min_lr=0"
    )
    state = model.model.state_dict()
    weights = [name for name in tensors if name.endswith("weight") and "norm" not in name]
    for name in weights:
        torch.testing.assert_close(state[name], tensors[name], rtol=0, atol=1e-9)
    model = fine_tuned(tmp_path, exported, "--model.lr=0.1")
    for name, value in model.model.state_dict().items():
        if name.endswith("log_beta"):
            assert torch.equal(value, tensors[name])
    assert not torch.equal(model.model.head.classifier.weight, tensors["head.classifier.weight"])
    free = fine_tuned(tmp_path, exported, "--model.lr=0.1", "--model.freeze_beta=false")
    betas = [n for n in tensors if n.endswith("log_beta")]
    assert any(not torch.equal(free.model.state_dict()[n], tensors[n]) for n in betas)
    assert load_classifier(last_checkpoint(tmp_path)) is not None


def test_other_classes_get_new_classifiers(exported):
    from pyg_avig.train import ImageClassifier

    tensors, description = read_export(exported)
    description["classes"] = ["a", "b", "c"]
    model = ImageClassifier(**description, initial_weights=str(exported)).model
    assert model.head.classifier.out_features == 3
    assert torch.equal(model.stem[0][0].weight, tensors["stem.0.0.weight"])
    description["classes"] = list("abcdefghij")  # As many as before, but others.
    model = ImageClassifier(**description, initial_weights=str(exported)).model
    assert not torch.equal(model.head.classifier.weight, tensors["head.classifier.weight"])


def test_weights_of_another_model_are_refused(exported):
    from pyg_avig.train import ImageClassifier

    _, description = read_export(exported)
    description["model_args"] = None
    with pytest.raises(InputError, match="weights that fit the model .got those of attentionvig_n"):
        ImageClassifier(**description, initial_weights=str(exported))


def test_layers_in_front_learn_more_slowly(exported, tmp_path):
    more = [f"--trainer.logger.init_args.save_dir={tmp_path}", "--model.layer_decay=0.5"]
    cli = CLI(["fit", *options(tmp_path, "--trainer.max_epochs=1", *more)])
    (optimizer,) = cli.trainer.optimizers
    scales = {id(p): g["lr_scale"] for g in optimizer.param_groups for p in g["params"]}
    model = cli.model.model
    stem, block, head = (
        scales[id(p)]
        for p in (
            model.stem[0][0].weight,
            model.stages[3].blocks[0].scale.gamma,
            model.head.classifier.weight,
        )
    )
    assert stem < block < head == 1
