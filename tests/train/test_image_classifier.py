import pytest
import torch

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
    group = trained.trainer.optimizers[0].param_groups[0]
    # At the end of the run the rate stands at, or one cosine step above, its minimum.
    assert trained.model.hparams["min_lr"] <= group["lr"] < trained.model.hparams["lr"]


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


def test_any_timm_model_takes_image_batches():
    classifier = ImageClassifier(["a", "b"], DATA, name="attentionvig_nano")
    assert classifier.eval()(torch.zeros(2, 1, 32, 32)).shape == (2, 2)
