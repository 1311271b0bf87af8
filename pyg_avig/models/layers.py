"""The layers of AttentionViG's backbone, on images (B, C, H, W), and what may enter any model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from numbers import Integral
from typing import Any

import torch
from timm.layers import DropPath, LayerScale2d, SelectAdaptivePool2d, register_notrace_module
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_avig.errors import InputError
from pyg_avig.graphs import GraphConstructor, graph_images, grid_to_nodes, nodes_to_grid
from pyg_avig.nn import Grapher
from pyg_avig.nn.folding import fold_norm, is_plain
from pyg_avig.nn.norm_gelu import in_sequence, norm_act
from pyg_avig.ops.products import in_transform

torch.fx.wrap("checked_for_norm")  # Where it is called.


class ConvNorm(nn.Sequential):
    """A convolution without bias and BatchNorm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride,
                padding=kernel_size // 2,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        return self[1](self._convolved(x))

    def activated(self, x: Tensor, act: nn.Module) -> Tensor:
        """``act(self(x))``."""
        if not is_plain(self, ConvNorm):
            return act(self(x))
        return norm_act(self[1], act, self._convolved(x))

    def _convolved(self, x: Tensor) -> Tensor:
        convolution, norm = self
        # A SyncBatchNorm has the values of other processes too.
        alone = norm.training and isinstance(norm, nn.BatchNorm2d)
        return checked_for_norm(convolution(x), alone)

    def fuse(self) -> nn.Module:
        """One convolution that gives the same in evaluation mode, if there is one."""
        if self.training:
            raise InputError("expected a model in evaluation mode, to fuse it (call eval())")
        if not is_plain(self, ConvNorm):
            return self
        folded = fold_norm(*self)
        return self if folded is None else folded


class InvertedResidual(nn.Module):
    """Expand by 4, 3 x 3 depth-wise, project; residual with layer scale.

    `MobileNetV2 <https://arxiv.org/abs/1801.04381>`_, as MobileViG uses it.
    """

    def __init__(self, channels: int, drop_path: float, layer_scale: float) -> None:
        super().__init__()
        hidden = 4 * channels
        self.block = nn.Sequential(
            ConvNorm(channels, hidden, kernel_size=1),
            nn.GELU(),
            ConvNorm(hidden, hidden, groups=hidden),
            nn.GELU(),
            ConvNorm(hidden, channels, kernel_size=1),
        )
        self.scale = LayerScale2d(channels, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return x + self.drop_path(self.scale(in_sequence(self.block, x)))


@register_notrace_module  # Its graph follows the image's size, which FX does not trace.
class ImageGrapher(nn.Module):
    """A :class:`~pyg_avig.Grapher` on the lattice of an image.

    Node features are channels-last storage: image and nodes are views of the same data.

    Args:
        channels: Width of the node features.
        graph: Joins the nodes, at each call.
        **kwargs: Arguments of :class:`~pyg_avig.Grapher`.
    """

    def __init__(self, channels: int, graph: GraphConstructor, **kwargs) -> None:
        super().__init__()
        self.graph = graph
        self.grapher = Grapher(channels, **kwargs)

    @property
    def strides(self) -> tuple[int, ...]:
        """What a lattice's sides are best multiples of, for all axes or one each."""
        stride: Any = getattr(self.graph, "stride", 1)
        return tuple(stride) if isinstance(stride, Sequence) else (stride,)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        nodes, size = grid_to_nodes(x), x.shape[2:]
        graph = self.graph.on_lattice(nodes, size)
        return nodes_to_grid(self.grapher(nodes, graph, size=size), size)


class Head(nn.Module):
    """Pooling, a hidden layer, one or two classifiers."""

    like: Tensor

    def __init__(
        self,
        channels: int,
        hidden_size: int,
        num_classes: int,
        global_pool: str,
        drop_rate: float,
        distilled: bool,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.distilled = distilled
        self.distilled_training = False
        self.hidden: nn.Module = nn.Sequential(
            ConvNorm(channels, hidden_size, kernel_size=1), nn.GELU()
        )
        self.drop = nn.Dropout(drop_rate)
        # Where and of which type the head is, whatever is pruned.
        self.register_buffer("like", torch.empty(0), persistent=False)
        self.reset(num_classes, global_pool)

    def reset(self, num_classes: int, global_pool: str) -> None:
        """Other classes, with classifiers drawn anew, and other pooling."""
        if global_pool not in ("avg", ""):
            raise InputError(f"global_pool must be 'avg' or '' (got {global_pool!r})")
        self.num_classes = num_classes = counted("num_classes", num_classes)
        self.pool = SelectAdaptivePool2d(pool_type=global_pool)
        self.classifier, self.classifier_dist = (
            nn.Linear(self.hidden_size, num_classes, device=self.like.device, dtype=self.like.dtype)
            if num_classes and wanted
            else None
            for wanted in (True, self.distilled)
        )

    def prune(self, channels: int) -> None:
        """Leave nothing behind the features, which have so many channels."""
        self.hidden = nn.Identity()
        self.hidden_size = channels
        self.reset(0, "")

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """(B, C, H, W) to logits (B, num_classes)."""
        x = self.drop(in_sequence(self.hidden, self.pool(x)))
        if self.pool.pool_type:
            x = x.flatten(1)
        if pre_logits or self.classifier is None:
            return x
        if not self.pool.pool_type:
            x = x.movedim(1, -1)  # Every place is classified.
        logits = self.classifier(x)
        if self.classifier_dist is None:
            return logits
        if self.training and self.distilled_training:
            return logits, self.classifier_dist(x)
        return (logits + self.classifier_dist(x)) / 2

    @torch.no_grad()
    def fuse(self) -> Head:
        """Join the two classifiers, of whose logits evaluation takes the mean, in place."""
        if self.training:
            raise InputError("expected a model in evaluation mode, to fuse it (call eval())")
        first, second = self.classifier, self.classifier_dist
        if first is None or second is None:
            return self
        if is_plain(first, nn.Linear) and is_plain(second, nn.Linear):
            self.classifier = copy.deepcopy(first)  # It may be used elsewhere.
            for mine, other in zip(self.classifier.parameters(), second.parameters(), strict=True):
                mine.copy_((mine + other) / 2)
            self.distilled, self.classifier_dist = False, None
        return self


def counted(name: str, value: int) -> int:
    """An int that is not negative, NumPy's too; raises an InputError for any other value."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        raise InputError(f"{name} must be an int, not negative (got {value!r})")
    return int(value)


def checked_for_norm(x: Tensor, learns: bool) -> Tensor:
    """What a BatchNorm can learn from, if it is to: more than one value a channel, or none."""
    if learns and x.numel() == x.size(1):
        raise InputError(
            "expected more than one value a channel in training, as BatchNorm needs (got features "
            f"of shape {tuple(x.shape)}); train on two images or more at a time"
        )
    return x


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype of a model's weights, or of its buffers: a replica on a GPU has no parameters."""
    tensors = chain(model.parameters(), model.buffers())
    return next(tensor.dtype for tensor in tensors if tensor.is_floating_point())


def checked_images(
    x: Tensor | Data, in_chans: int, dtype: torch.dtype, min_side: int = 1
) -> Tensor:
    """Images (B, C, H, W), given as such or as graphs of them, if a model can take them.

    A traced model keeps the call (``torch.fx.wrap``), and with it the checks.

    Raises:
        InputError: If their shape or dtype is another, or, on the CPU and outside of transforms,
            pixels are not finite.
    """
    if torch.jit.is_tracing():
        raise InputError(
            "expected torch.compile, torch.export or the ONNX exporter with dynamo=True (got "
            "torch.jit.trace, which would hold on to the size of this batch's graph)"
        )
    if isinstance(x, Data):
        x = graph_images(x)
    if x.dim() != 4 or x.size(1) != in_chans or min(x.shape[2:]) < min_side:
        raise InputError(
            f"expected images of shape (B, {in_chans}, H, W), H and W at least {min_side}, or "
            f"graphs of them (got {tuple(x.shape)})"
        )
    if x.dtype != dtype and not torch.is_autocast_enabled(x.device.type):
        raise InputError(f"expected images of the model's dtype {dtype} (got {x.dtype})")
    # Looking at the values would break a compiled graph or a transform, and stall an accelerator.
    seen = x.device.type == "cpu" and not (torch.compiler.is_compiling() or in_transform())
    if seen and not x.isfinite().all():
        bad = int((~x.isfinite()).sum())
        raise InputError(f"expected finite pixels (got NaN or infinity in {bad} of them)")
    return x
