"""Replicas of a model, as DataParallel runs them, without a GPU."""

from importlib import import_module

import torch

# The package has a function of the same name.
parallel = import_module("torch.nn.parallel.replicate")


def replica(model, monkeypatch):
    """What DataParallel runs on one of its devices, by its own code, on the CPU."""

    def copies(tensors, devices, detach=False):
        return [[tensor.detach().clone() for tensor in tensors] for _ in devices]

    monkeypatch.setattr(parallel, "_broadcast_coalesced_reshape", copies)
    (made,) = parallel.replicate(model, [torch.device("cuda", 0)])
    assert not list(made.parameters())
    return made
