import logging

import pytest
import pytorch_lightning as pl
import torch

from pyg_avig.train.processor import say_if_slow


@pytest.mark.parametrize(
    ("precision", "able", "said"),
    [("bf16-mixed", (), True), ("bf16-mixed", ("avx512_bf16",), False), ("32-true", (), False)],
)
def test_emulated_bfloat16_is_said_to_be_slow(precision, able, said, monkeypatch, caplog):
    asked = {name: name in able for name in ("avx512_bf16", "amx_bf16")}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: asked, raising=False)
    trainer = pl.Trainer(accelerator="cpu", devices=1, precision=precision, logger=False)
    with caplog.at_level(logging.WARNING, logger="pyg_avig"):
        say_if_slow(trainer)
    ours = [record.getMessage() for record in caplog.records if "pyg_avig" in record.name]
    assert [message.split(":")[0] for message in ours] == [f"precision {precision}"] * said
