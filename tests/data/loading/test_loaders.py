"""The loader that every training is fed by."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest
import torch
from torch.utils.data import Dataset
from torch_geometric.data import Data

from pyg_avig.data.loading.loaders import share_loader


class Numbers(Dataset):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Data:
        return Data(x=torch.tensor([[index]]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_leave_a_first_signal_to_the_training(number):
    others = multiprocessing.active_children()
    loader = share_loader(Numbers(), batch_size=2, num_workers=2)
    epoch = iter(loader)
    seen = [next(epoch).x, next(epoch).x]  # One of each worker: both have begun.
    workers = [worker for worker in multiprocessing.active_children() if worker not in others]
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, number)
    seen += [batch.x for batch in epoch]
    assert torch.cat(seen).view(-1).tolist() == list(range(24))
