from pathlib import Path

import pytest
import torch

from pyg_avig.train.cli import CLI

CONFIGS = sorted(Path("configs").rglob("*.yaml"))


def test_there_are_configs():
    assert CONFIGS


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_every_config_builds(config, tmp_path):
    cli = CLI([f"--config={config}", f"--trainer.logger.init_args.save_dir={tmp_path}"], run=False)
    side = cli.datamodule.data_config["input_size"]
    assert cli.model(torch.zeros(2, *side)).shape[0] == 2
