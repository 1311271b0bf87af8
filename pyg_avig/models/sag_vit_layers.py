"""The layers of SAG-ViT: from a feature map to nodes, to tokens, to logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import build_sincos2d_pos_embed, register_notrace_module
from torch import Tensor, nn
from torch_geometric.nn import GATConv, GCNConv

from pyg_avig.errors import InputError
from pyg_avig.graphs import image_nodes, nodes_to_grid
from pyg_avig.graphs.cache import cache_by_size
from pyg_avig.models.layers import counted
from pyg_avig.nn import CrossAttnConv

# The neighbours of a node in the order of the public code.
STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1))


@register_notrace_module
class PatchGraph(nn.Module):
    """Patches of a feature map as the nodes of a graph, and two layers on it.

    Args:
        in_channels: Channels of the map.
        out_channels: Size of a node behind the two layers.
        patch_size: Side of a patch, in features.
        stride: Pixels between two features, for the error message.
        conv: 'gat' or 'cross_attention'.
        conv_channels: Width of each head of the first layer.
        conv_heads: Its heads.
        pad: Pad the map to whole patches, rather than cutting it.
        similarity: Give each edge the cosine of its two patches.
        permuted: Number the edges as the public code does.

    Shapes:
        - **input:** (B, C, H, W)
        - **output:** (B, ``out_channels``, rows, columns), the nodes
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        patch_size: int,
        stride: int,
        conv: str,
        conv_channels: int,
        conv_heads: int,
        pad: bool,
        similarity: bool,
        permuted: bool,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.stride = stride
        self.pad = pad
        self.similarity = similarity
        self.permuted = permuted
        in_width, width = in_channels * patch_size**2, conv_channels * conv_heads
        edge_dim = 1 if similarity else None
        self.loops = one_of("conv", conv, "gat", "cross_attention") == "gat"
        # Self-loops are given with the edges, as to look for them would break a compiled graph.
        self.conv1: nn.Module = (
            GATConv(in_width, conv_channels, conv_heads, add_self_loops=False, edge_dim=edge_dim)
            if self.loops
            else CrossAttnConv(in_width, conv_channels, conv_heads, edge_dim=edge_dim)
        )
        self.conv2 = GCNConv(width, out_channels, add_self_loops=False)

    def forward(self, features: Tensor) -> Tensor:
        """The nodes of each map."""
        rows, columns = self.grid(*features.shape[2:])
        if rows * columns == 0:
            least = (self.patch_size - 1) * self.stride + 1
            raise InputError(
                f"expected at least {self.patch_size} x {self.patch_size} features, as images of "
                f"about {least} or more pixels a side give them (got {features.size(2)} x "
                f"{features.size(3)})"
            )
        height, width = rows * self.patch_size, columns * self.patch_size
        features = F.pad(features, (0, width - features.size(3), 0, height - features.size(2)))
        nodes = image_nodes(features, (self.patch_size, self.patch_size))
        edges, edge_index = self.edges(rows, columns, features.size(0), nodes.device)
        loops = torch.arange(nodes.size(0), device=nodes.device).expand(2, -1)
        looped = torch.cat([edge_index, loops], 1)
        edge_attr = None
        if self.similarity:
            unit = F.normalize(nodes, dim=1).unflatten(0, (features.size(0), rows * columns))
            source, target = edges
            edge_attr = (unit @ unit.mT)[:, source, target].view(-1, 1)
            if self.loops:
                edge_attr = torch.cat([edge_attr, edge_attr.new_ones(nodes.size(0), 1)])
        nodes = self.conv1(nodes, looped if self.loops else edge_index, edge_attr).relu()
        return nodes_to_grid(self.conv2(nodes, looped), (rows, columns))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches."""
        extra = self.patch_size - 1 if self.pad else 0
        return (height + extra) // self.patch_size, (width + extra) // self.patch_size

    def edges(
        self, rows: int, columns: int, batch: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """The edges of one map, and those of a batch of maps, without self-loops."""
        edges = edges_of_grid(rows, columns, self.permuted, device)
        first = torch.arange(batch, device=device) * (rows * columns)
        return edges, (edges.unsqueeze(1) + first.view(1, -1, 1)).flatten(1)


@cache_by_size
def edges_of_grid(rows: int, columns: int, permuted: bool, device: torch.device) -> Tensor:
    """The edges between the touching nodes of a grid, (2, E), ordered by target.

    Those of :class:`~pyg_avig.graphs.NeighborhoodEdges` of kernel 3, in operations that take the
    symbolic sizes of a compiled program.

    Args:
        rows: Rows of nodes.
        columns: Columns of nodes.
        permuted: Name nodes by :func:`insertion_order`.
        device: Where they live.
    """
    if rows * columns == 1:  # The ONNX exporter does not join parts that are all empty.
        return torch.empty(2, 0, dtype=torch.long, device=device)
    nodes = torch.arange(rows * columns, device=device).view(rows, columns)
    sources, targets, places = [], [], []
    for n, (y, x) in enumerate(sorted(STEPS)):
        source = nodes[max(y, 0) : rows + min(y, 0), max(x, 0) : columns + min(x, 0)].flatten()
        target = nodes[max(-y, 0) : rows - max(y, 0), max(-x, 0) : columns - max(x, 0)].flatten()
        sources.append(source)
        targets.append(target)
        places.append(target * len(STEPS) + n)  # Unlike targets unique: ONNX has no stable sort.
    edges = torch.stack([torch.cat(sources), torch.cat(targets)])
    edges = edges[:, torch.cat(places).argsort()]
    return insertion_order(rows, columns, device)[edges] if permuted else edges


@register_notrace_module
class GridTokens(nn.Module):
    """A class token, and the nodes with codes of their row and column.

    Args:
        embed_dim: Width of a token.

    Shapes:
        - **input:** nodes (B, ``embed_dim``, rows, columns)
        - **output:** (B, 1 + rows * columns, ``embed_dim``)
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        if embed_dim % 4:
            raise InputError(f"embed_dim must be a multiple of 4 (got {embed_dim})")
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim).normal_(std=0.02))

    def forward(self, nodes: Tensor) -> Tensor:
        """The tokens, the class token first."""
        codes = codes_of_grid(*nodes.shape[1:], nodes.device, nodes.dtype)
        x = nodes.flatten(2).mT + codes
        return torch.cat([self.cls_token.expand(x.size(0), -1, -1), x], 1)


@cache_by_size
def codes_of_grid(
    width: int, rows: int, columns: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Sines and cosines of row and column, (N, ``width``)."""
    return build_sincos2d_pos_embed([rows, columns], dim=width, device=device, dtype=dtype)


class MeanToken(nn.Module):
    """The public code's two tokens: a learned one, and the mean of the nodes plus an offset.

    Args:
        embed_dim: Width of a token.

    Shapes:
        - **input:** nodes (B, ``embed_dim``, rows, columns)
        - **output:** (B, 2, ``embed_dim``)
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.randn(1, 1, embed_dim))
        self.cls_token = nn.Parameter(torch.randn(1, 1, embed_dim))

    def forward(self, nodes: Tensor) -> Tensor:
        """The tokens, the learned one first."""
        x = nodes.mean((2, 3)).unsqueeze(1) + self.offset
        return torch.cat([self.cls_token.expand(x.size(0), -1, -1), x], 1)


class TokenHead(nn.Module):
    """Pool tokens, a hidden layer with ReLU, a classifier.

    Args:
        in_features: Width of a token, and of the hidden layer.
        num_classes: Number of classes; 0 for no classifier.
        global_pool: 'token', 'avg' or ''.
        drop_rate: Dropout before the classifier.
    """

    like: Tensor

    def __init__(
        self, in_features: int, num_classes: int, global_pool: str, drop_rate: float
    ) -> None:
        super().__init__()
        # Where and of which type the head is, whatever is pruned.
        self.register_buffer("like", torch.empty(0), persistent=False)
        self.hidden: nn.Module = nn.Linear(in_features, in_features)
        self.act: nn.Module = nn.ReLU()
        self.drop = nn.Dropout(drop_rate)
        self.hidden_size = in_features
        self.of_maps = False
        self.reset(num_classes, global_pool)

    def reset(self, num_classes: int, global_pool: str) -> None:
        """Draw a new classifier."""
        self.global_pool = one_of("global_pool", global_pool, "token", "avg", "")
        self.num_classes = num_classes = counted("num_classes", num_classes)
        self.classifier: nn.Module = nn.Identity()
        if num_classes > 0:
            self.classifier = nn.Linear(
                self.hidden_size, num_classes, device=self.like.device, dtype=self.like.dtype
            )

    def prune(self, in_features: int) -> None:
        """Remove the hidden layer and the classifier; feature maps pass as they are."""
        self.of_maps = True
        self.hidden, self.act = nn.Identity(), nn.Identity()
        self.hidden_size = in_features
        self.reset(0, "")

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens (B, T, C) to logits (B, ``num_classes``)."""
        if self.global_pool and self.of_maps:
            x = x.mean((2, 3))
        elif self.global_pool == "token":
            x = x[:, 0]
        elif self.global_pool == "avg":
            x = x.mean(1)
        x = self.act(self.hidden(x))
        return x if pre_logits else self.classifier(self.drop(x))


def insertion_order(rows: int, columns: int, device: torch.device | str | None = None) -> Tensor:
    """The number that the public code's edges give to each node of a grid, (N,).

    Its graph is composed node by node, each with its neighbours, and nodes are numbered in the
    order in which they first come up, while their features stay in the order of rows.
    """
    row, column = torch.meshgrid(
        torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
    )
    # A node first comes up beside the one above and left of it, or beside what there is of that.
    down, right = row.clamp(max=1), column.clamp(max=1)
    host = (row - down) * columns + column - right
    place = torch.tensor([[0, 4], [2, 8]], device=device)[down, right]  # In STEPS, from 1 on.
    return (host * 9 + place).flatten().argsort().argsort()


def one_of(name: str, value: str, *choices: str) -> str:
    """The value, if it is one of the choices; raises an InputError if not."""
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(map(repr, choices))} (got {value!r})")
    return value
