import pytest
from train.runs import options

from pyg_avig.train.cli import CLI


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run of `pyg-avig fit`, as the command line object that made it."""
    return CLI(["fit", *options(tmp_path_factory.mktemp("trained"))])


@pytest.fixture(scope="session")
def checkpoint(trained):
    return f"{trained.trainer.log_dir}/checkpoints/best.ckpt"
