import pytest

from pyg_avig import InputError
from pyg_avig.train import ImageClassifier, load_classifier

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


def test_unknown_model_names_the_known():
    with pytest.raises(InputError, match="attentionvig_nano.*got 'attentionvig_xl'"):
        ImageClassifier(["a"], DATA, name="attentionvig_xl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opt": "foo"}, "opt must be an optimiser of timm .got 'foo'"),
        ({"sched": "foo"}, "sched must be one of cosine.*got 'foo'"),
        ({"model_args": {"foo": 1}}, "model_args as arguments of attentionvig_nano.*foo"),
        ({"name": "resnet18"}, "takes graphs of images .got 'resnet18'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        ImageClassifier(["a", "b"], DATA, **options)
