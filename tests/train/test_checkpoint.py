import pytest
import torch

from pyg_avig.train.checkpoint import AtomicCheckpointIO


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    io, path = AtomicCheckpointIO(), tmp_path / "folder" / "last.ckpt"
    io.save_checkpoint({"a": 1}, path)

    def half(content, file):
        file.write(b"half")
        there, partial = sorted(p.name for p in path.parent.iterdir())
        assert (there, partial.endswith(".partial")) == ("last.ckpt", True)
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="no space"):
        io.save_checkpoint({"a": 2}, path)
    assert torch.load(path, weights_only=True) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]


def test_runs_write_so(trained):
    assert isinstance(trained.trainer.strategy.checkpoint_io, AtomicCheckpointIO)
