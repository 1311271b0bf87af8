import pytest
from train.runs import options
from train.scene_runs import scene_options

from pyg_avig.train.cli import CLI


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run of `pyg-avig fit`, as the command line object that made it."""
    return CLI(["fit", *options(tmp_path_factory.mktemp("trained"))])


@pytest.fixture(scope="session")
def checkpoint(trained):
    return f"{trained.trainer.log_dir}/checkpoints/best.ckpt"


@pytest.fixture(scope="session")
def trained_detector(tmp_path_factory):
    """A finished run of Mask R-CNN, as the command line object that made it."""
    return CLI(["fit", *scene_options("mask_rcnn", tmp_path_factory.mktemp("detector"))])


@pytest.fixture(scope="session")
def trained_segmenter(tmp_path_factory):
    """The same of Semantic FPN."""
    return CLI(["fit", *scene_options("semantic_fpn", tmp_path_factory.mktemp("segmenter"))])


@pytest.fixture(scope="session")
def detector_checkpoint(trained_detector):
    return f"{trained_detector.trainer.log_dir}/checkpoints/last.ckpt"


@pytest.fixture(scope="session")
def segmenter_checkpoint(trained_segmenter):
    return f"{trained_segmenter.trainer.log_dir}/checkpoints/last.ckpt"
