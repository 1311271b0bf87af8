"""Two processes train one model whose parameters are dealt out among them; run under torchrun.

Usage: torchrun --nproc_per_node 2 tests/train/sharded.py OUT
"""

import sys

import timm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import pyg_avig.models  # noqa: F401 (registers them)


def make():
    """A small model in evaluation mode, as BatchNorm sees one process's share only."""
    torch.manual_seed(0)
    small = {"channels": [8] * 4, "head_hidden_size": 16}
    return timm.create_model("attentionvig_nano", num_classes=4, in_chans=1, **small).eval()


def train(model, share):
    """Two updates on a share of eight images."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.manual_seed(1)
    images, labels = torch.randn(8, 1, 32, 32), torch.arange(8) % 4
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(model(images[share]), labels[share]).backward()
        optimizer.step()
    return model.state_dict()


if __name__ == "__main__":
    dist.init_process_group("gloo")
    model, mesh = make(), init_device_mesh("cpu", (2,))
    for stage in model.stages:
        fully_shard(stage, mesh=mesh)
    fully_shard(model, mesh=mesh)
    state = train(model, slice(dist.get_rank(), None, 2))
    whole = {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in state.items()}
    if dist.get_rank() == 0:
        torch.save(whole, sys.argv[1])
    dist.destroy_process_group()
