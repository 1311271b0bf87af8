import pytest
import torch
from timm.data import resolve_model_data_config
from train.runs import last_checkpoint, options

from pyg_avig import InputError
from pyg_avig.models.exported import ADDED, NEEDED
from pyg_avig.train import ImageClassifier, load_classifier
from pyg_avig.train.cli import CLI, main
from pyg_avig.train.export import write_export

DATA = {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.5], "crop_pct": 1.0}


def test_weight_decay_spares_biases_norms_layer_scale_and_beta(trained):
    optimizer = trained.trainer.optimizers[0]
    names = {id(p): name for name, p in trained.model.model.named_parameters()}
    spared = {
        names[id(p)]
        for group in optimizer.param_groups
        if not group["weight_decay"]
        for p in group["params"]
    }
    decayed = set(names.values()) - spared
    assert all(dict(trained.model.model.named_parameters())[name].dim() > 1 for name in decayed)
    assert any("log_beta" in name for name in spared)
    assert not any("log_beta" in name or "gamma" in name for name in decayed)


def test_the_schedule_warms_up_and_comes_down(trained):
    # Two updates an epoch, two epochs, the first of them for the warm-up.
    classifier, rates = trained.model, []
    optimizer = classifier.configure_optimizers()
    scheduler = optimizer["lr_scheduler"]["scheduler"]
    for update in range(5):
        scheduler.step_update(update)
        rates.append(optimizer["optimizer"].param_groups[0]["lr"])
    hparams = classifier.hparams
    assert rates[0] == pytest.approx(hparams["warmup_lr"])
    assert rates[0] < rates[1] < rates[2] > rates[3] > rates[4]
    assert rates[4] == pytest.approx(hparams["min_lr"])


def betas(model):
    return torch.cat([p.detach() for name, p in model.named_parameters() if "log_beta" in name])


@pytest.mark.parametrize(
    "more", [(), ("--model.layer_decay=0.5",), ("--model.opt=lookahead_adamw",)]
)
def test_beta_has_a_learning_rate_of_its_own(tmp_path, more):
    cli = CLI(["fit", *options(tmp_path, *more, "--model.beta_lr=0.25")])
    plain = CLI(["fit", *options(tmp_path, *more)])
    rates = []
    for run in (cli, plain):
        names = {id(p): name for name, p in run.model.model.named_parameters()}
        groups = run.trainer.optimizers[0].param_groups
        rates.append({names[id(p)]: group["lr"] for group in groups for p in group["params"]})
    assert rates[0].keys() == rates[1].keys()
    for name, rate in rates[0].items():
        share = 0.25 if name.endswith("log_beta") else 1.0
        assert rate == pytest.approx(share * rates[1][name])


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_beta_is_held_within_its_bounds_also_when_resumed(tmp_path):
    fast = [
        "--model.lr=0.5",
        "--model.opt=sgd",
        "--model.sched=constant",
        "--model.warmup_epochs=0",
    ]
    fast += ["--model.model_args={channels: [8, 8, 8, 8], head_hidden_size: 16, layer_scale: 1.0}"]
    free = CLI(["fit", *options(tmp_path / "free", *fast)])
    assert betas(free.model).abs().max() > 0.01
    bound = [*fast, "--model.beta_bound=1.01"]
    first = CLI(["fit", *options(tmp_path / "a", *bound, "--trainer.max_epochs=1")])
    limit = torch.tensor(1.01).log()
    reached = betas(first.model).abs().max()
    torch.testing.assert_close(reached, limit, atol=1e-6, rtol=0)
    resumed = [*bound, "--ckpt_path", str(last_checkpoint(tmp_path / "a"))]
    second = CLI(["fit", *options(tmp_path / "b", *resumed)])
    # Its bounds are around where the first training began, not around what it reached.
    assert betas(second.model).abs().max() <= limit + 1e-6


def test_a_loaded_checkpoint_gives_the_same_metrics(trained, checkpoint):
    direct = trained.trainer.test(trained.model, trained.datamodule, verbose=False)
    last = checkpoint.replace("best", "last")
    loaded = trained.trainer.test(load_classifier(last), trained.datamodule, verbose=False)
    assert loaded == direct


def test_the_checkpoint_knows_its_classes_and_input(checkpoint):
    classifier = load_classifier(checkpoint)
    assert classifier.hparams["classes"] == [str(d) for d in range(10)]
    assert classifier.hparams["data_config"]["input_size"] == [1, 32, 32]
    assert not classifier.training


@pytest.mark.parametrize("name", ["attentionvig_nano", "resnet18"])
@pytest.mark.parametrize("tested", [False, True])
def test_timm_hears_of_the_training_s_images(name, tested):
    data = {"input_size": [1, 64, 48], "mean": [0.3], "std": [0.2], "crop_pct": 0.9}
    data["interpolation"] = "bilinear"
    model = ImageClassifier(["a", "b"], data, name=name).model
    found = resolve_model_data_config(model, use_test_size=tested)
    found.pop("crop_mode")
    assert found == {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    assert model.pretrained_cfg["label_names"] == ("a", "b")
    # Each has a configuration of its own.
    other = ImageClassifier(["a", "b", "c"], DATA, name=name).model
    assert model.pretrained_cfg["num_classes"] == 2
    assert other.pretrained_cfg["input_size"] == (1, 32, 32)


def test_unknown_model_names_the_known():
    with pytest.raises(InputError, match="attentionvig_nano.*got 'attentionvig_xl'"):
        ImageClassifier(["a"], DATA, name="attentionvig_xl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opt": "foo"}, "opt must be an optimiser of timm .got 'foo'"),
        ({"beta_lr": -1.0}, "beta_lr must be at least 0 .got -1.0"),
        ({"beta_bound": 0.5}, "beta_bound must be at least 1 .got 0.5"),
        ({"lr": -1.0}, "lr must be above 0 and at most 100 .got -1.0"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"layer_decay": -1.0}, "layer_decay must be above 0"),
        ({"warmup_epochs": -1}, "warmup_epochs must be at least 0 .got -1"),
        ({"label_smoothing": 2.0}, "label_smoothing must be at least 0 and at most 1 .got 2.0"),
        ({"opt_args": {"betas": 3}}, "timm cannot make the optimiser adamw with opt_args"),
        ({"mixup": {"foo": 1}}, "mixup as arguments of timm's Mixup .*foo"),
        ({"sched": "foo"}, "sched must be one of cosine.*got 'foo'"),
        ({"model_args": {"foo": 1}}, "model_args as arguments of attentionvig_nano.*foo"),
        ({"name": "resnet18", "distillation": {}}, "two classifiers, .* .got resnet18"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        ImageClassifier(["a", "b"], DATA, **options)


def test_learning_rate_and_device_batch_follow_the_batch_size(tmp_path):
    more = ["--trainer.accumulate_grad_batches=2", "--model.lr_batch_size=16", "--model.lr=0.1"]
    cli = CLI(["fit", *options(tmp_path, "--trainer.max_epochs=1", *more)])
    assert cli.datamodule.device_batch_size == 4
    (optimizer,) = cli.trainer.optimizers
    assert optimizer.param_groups[0]["initial_lr"] == pytest.approx(0.1 * 8 / 16)
    assert cli.trainer.global_step == 16 // 8


def test_a_batch_that_cannot_be_dealt_out_is_refused(tmp_path, capsys):
    more = ["--trainer.accumulate_grad_batches=3"]
    assert main(["fit", *options(tmp_path, *more)]) == 2
    assert "1 devices and 3 accumulated batches divide (got 8)" in capsys.readouterr().err


def test_checkpointing_and_averaged_weights(tmp_path):
    average = (
        "{class_path: pytorch_lightning.callbacks.EMAWeightAveraging, init_args: {decay: 0.5}}"
    )
    more = ["--model.grad_checkpointing=true", f"--trainer.callbacks+={average}"]
    assert main(["fit", *options(tmp_path, "--trainer.max_epochs=1", *more)]) == 0
    content = torch.load(last_checkpoint(tmp_path), weights_only=True)
    now, mean = content["current_model_state"], content["state_dict"]
    assert any(not torch.equal(now[name], mean[name]) for name in mean)


def test_one_class_is_not_worth_a_classifier():
    with pytest.raises(InputError, match="expected two classes or more .got cat"):
        ImageClassifier(["cat"], DATA)


def swapped_vit(**args):
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2}
    return ImageClassifier(["a", "b"], DATA, "vit_tiny_patch16_224", size, args)


def test_the_attention_of_a_vit_is_swapped_and_stays_so_in_a_checkpoint(tmp_path):
    classifier = swapped_vit(affinity="sigmoid", beta=2.0).eval()
    assert classifier.model.blocks[0].attn.affinity == "sigmoid"
    path = tmp_path / "model.safetensors"
    description = {key: classifier.hparams[key] for key in NEEDED}
    write_export(path, classifier.model.state_dict(), description)
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(load_classifier(path)(images), classifier(images))


def test_other_classes_get_a_new_classifier_of_a_vit_too(tmp_path):
    path = tmp_path / "model.safetensors"
    old = swapped_vit(affinity="sigmoid")
    description = {key: old.hparams[key] for key in NEEDED}
    write_export(path, old.model.state_dict(), description)
    for classes in (["a", "b", "c"], ["c", "d"]):
        new = ImageClassifier(**{**description, "classes": classes}, initial_weights=path)
        assert torch.equal(new.model.blocks[0].attn.log_beta, old.model.blocks[0].attn.log_beta)
        assert torch.equal(new.model.cls_token, old.model.cls_token)
        head = new.model.head.weight
        assert head.shape == (len(classes), 12)
        assert not torch.equal(head[:2], old.model.head.weight)


def test_arguments_that_do_not_swap_an_attention_are_refused():
    with pytest.raises(InputError, match="expected swap_attention as its arguments .*'affinty'"):
        swapped_vit(affinty="softmax")
    with pytest.raises(InputError, match="expected a model with layers timm.layers.Attention"):
        ImageClassifier(["a", "b"], DATA, swap_attention={})


def test_exports_of_earlier_versions_have_their_own_attention(tmp_path):
    classifier = ImageClassifier(["a", "b"], DATA).eval()
    path = tmp_path / "model.safetensors"
    description = {key: classifier.hparams[key] for key in NEEDED - ADDED}
    write_export(path, classifier.model.state_dict(), description)
    images = torch.randn(2, 1, 32, 32)
    assert torch.equal(load_classifier(path)(images), classifier(images))
