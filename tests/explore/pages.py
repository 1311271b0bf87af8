"""Pages to look at, and what is in them."""

import base64
import json
import re

import numpy as np
import timm
import torch
from torch_geometric.data import Data

from pyg_avig import CrossAttnConv
from pyg_avig.graphs import KNNEdges
from pyg_avig.models import ViG
from pyg_avig.viz import explore


def nano(**kwargs):
    torch.manual_seed(0)
    return timm.create_model("attentionvig_nano", num_classes=10, in_chans=1, **kwargs).eval()


def images(number=3):
    return torch.randn(number, 1, 32, 32, generator=torch.Generator().manual_seed(0)).cumsum(-1)


def cloud(points=60):
    pos = torch.rand(points, 3, generator=torch.Generator().manual_seed(0))
    return KNNEdges(k=5)(Data(x=pos, pos=pos))


def cloud_model():
    torch.manual_seed(0)
    return ViG(3, 4, channels=16, num_blocks=2, heads=2, pos="relative", pos_dim=3)


class NodeModel(torch.nn.Module):
    """As PyG's examples have them: called with the fields of a graph."""

    def __init__(self, features=4, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = CrossAttnConv(features, 8)
        self.conv2 = CrossAttnConv(8, classes)

    def forward(self, x, edge_index):
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)


def ring(nodes=30, features=4):
    """Each node hears the two beside it."""
    i = torch.arange(nodes)
    edges = torch.cat([torch.stack([i, (i + 1) % nodes]), torch.stack([(i + 1) % nodes, i])], 1)
    x = torch.randn(nodes, features, generator=torch.Generator().manual_seed(0))
    return Data(x=x, edge_index=edges, y=i % 3)


def page_of(model, inputs, path, **options):
    explore(model, inputs, path, **options)
    return path


def content(path):
    """The data in a page."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    (data,) = found
    return json.loads(data)


def numbers(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)
