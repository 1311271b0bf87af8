"""AttentionViG, the whole family.

`AttentionViG: Cross-Attention-Based Dynamic Neighbor Aggregation in Vision GNNs`,
<https://arxiv.org/abs/2509.25570>. No code or weights were published with the paper.
What it gives: the aggregation, SVGA as the graph, the order of blocks, the GMACs of the
three sizes. What is inferred, and from where, is said beside each value below.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import (
    build_model_with_cfg,
    checkpoint_seq,
    generate_default_cfgs,
    register_model,
)
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_avig.errors import InputError
from pyg_avig.graphs.constructors import GraphConstructor, make_graph, positive
from pyg_avig.models.layers import (
    ConvNorm,
    Head,
    ImageGrapher,
    InvertedResidual,
    checked_images,
    counted,
    dtype_of,
)
from pyg_avig.nn import Grapher
from pyg_avig.nn.folding import activated_in_place
from pyg_avig.nn.norm_gelu import in_sequence

__all__ = ["AttentionViG"]

torch.fx.wrap("checked_images")  # Where it is called, not where it is defined.
MIN_SIDE = 32


class AttentionViG(nn.Module):
    r"""A pyramid of inverted residual blocks and Graphers.

    Takes images, or the graphs that :class:`~pyg_avig.transforms.ImageToGraph` makes of
    them; the results are equal. The graph of each stage follows the image's size.

    Inferred: widths and depths (see the factories); heads (1); the parametrisation of
    :math:`\beta` (:class:`~pyg_avig.CrossAttnConv`); that the two classifiers share the
    768 features before them.

    Args:
        in_chans: Channels of the image.
        num_classes: Number of classes; 0 for no classifier.
        global_pool: 'avg', or '' for none.
        channels: Width of each stage.
        irb_depths: Inverted residual blocks in each stage.
        grapher_depths: Graphers in each stage, behind the others.
        graph_strides: The distance between neighbours in each stage, in nodes: the K of ``axial``
            and ``dynamic_axial``, the hop of ``mobile_graph``.
        stem_strides: Strides of the stem's two convolutions.
        heads: Heads of the attention in each stage.
        affinity: See :class:`~pyg_avig.CrossAttnConv`.
        beta: See :class:`~pyg_avig.CrossAttnConv`.
        normalize: See :class:`~pyg_avig.CrossAttnConv`.
        head_hidden_size: Width between pooling and classifier.
        distilled: Whether there is a second classifier, for distillation; both are
            averaged unless :meth:`set_distilled_training` asks for them apart.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the last block, growing linearly up to it.
        layer_scale: Initial value of layer scale.
        device: Where the parameters live.
        dtype: Their dtype.
        graph: What joins the nodes: the name of a graph constructor
            (:func:`pyg_avig.graphs.graph_names`), or one a stage. ``axial`` is the paper's SVGA,
            ``dynamic_axial`` its relative of GreedyViG, both without edges; ``knn`` compares the
            directions of features, as Vision GNN does, unless ``graph_args`` says otherwise.
        graph_args: Further arguments of the constructors, or one mapping (or ``None``) a stage.

    Shapes:
        - **input:** images :math:`(B, C, H, W)` with :math:`H, W \ge 32`, or a PyG
          ``Data`` or ``Batch`` of one lattice size
        - **output:** logits :math:`(B, \text{num\_classes})`

    Raises:
        InputError: If the images have another shape or dtype, the graphs of a batch differ in
            size, or, on the CPU, if pixels are NaN or infinite.

    Example:
        >>> import timm, torch
        >>> import pyg_avig.models  # registers attentionvig_{nano,s,m,b} in timm
        >>> model = timm.create_model("attentionvig_nano", num_classes=10)
        >>> model(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        channels: Sequence[int] = (48, 96, 192, 384),
        irb_depths: Sequence[int] = (2, 2, 6, 2),
        grapher_depths: Sequence[int] = (2, 2, 2, 2),
        graph_strides: Sequence[int] = (8, 4, 2, 1),
        stem_strides: Sequence[int] = (2, 2),
        heads: Sequence[int] = (1, 1, 1, 1),
        affinity: str = "exponential",
        beta: float = 1.0,
        normalize: bool = False,
        head_hidden_size: int = 768,
        distilled: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        graph: str | Sequence[str] = "axial",
        graph_args: dict[str, Any] | Sequence[dict[str, Any] | None] | None = None,
    ) -> None:
        super().__init__()
        per_stage = (channels, irb_depths, grapher_depths, graph_strides, heads)
        if len({len(values) for values in per_stage}) != 1:
            raise InputError(
                "channels, irb_depths, grapher_depths, graph_strides and heads must have one "
                f"value a stage each (got {', '.join(map(str, per_stage))})"
            )
        self.in_chans = positive("in_chans", in_chans)
        head_hidden_size = positive("head_hidden_size", head_hidden_size)
        channels = [positive("channels", width) for width in channels]
        heads = [positive("heads", number) for number in heads]
        irb_depths = [counted("irb_depths", number) for number in irb_depths]
        grapher_depths = [counted("grapher_depths", number) for number in grapher_depths]
        stem_strides = [positive("stem_strides", stride) for stride in stem_strides]
        graphs = _graphs_of_stages(graph, graph_args, graph_strides)
        self.num_features = channels[-1]
        self.feature_info: list[dict] = []

        self.stem = nn.Sequential(
            ConvNorm(self.in_chans, channels[0] // 2, stride=stem_strides[0]),
            nn.GELU(),
            ConvNorm(channels[0] // 2, channels[0], stride=stem_strides[1]),
            nn.GELU(),
        )
        reduction = stem_strides[0] * stem_strides[1]
        depths = [i + g for i, g in zip(irb_depths, grapher_depths, strict=True)]
        drop_paths = _drop_path_rates(drop_path_rate, depths)
        self.stages = nn.Sequential()
        for i, width in enumerate(channels):
            if i > 0:
                reduction *= 2
            self.stages.append(
                Stage(
                    channels[i - 1] if i > 0 else None,
                    width,
                    irb_depths[i],
                    graphs[i],
                    drop_paths[i],
                    heads=heads[i],
                    affinity=affinity,
                    beta=beta,
                    normalize=normalize,
                    layer_scale=layer_scale,
                )
            )
            self.feature_info.append(
                {"num_chs": width, "reduction": reduction, "module": f"stages.{i}"}
            )
        self.head = Head(
            self.num_features,
            head_hidden_size,
            num_classes,
            global_pool,
            drop_rate,
            distilled,
        )
        self.to(device=device, dtype=dtype)

    num_classes = property(lambda self: self.head.num_classes)
    head_hidden_size = property(lambda self: self.head.hidden_size)
    global_pool = property(lambda self: self.head.pool.pool_type)

    def set_distilled_training(self, enable: bool = True) -> None:
        """In training, return both classifiers' logits as a pair."""
        self.head.distilled_training = enable

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Hold no activations within blocks, and compute them again for the gradient."""
        for stage in self.stages.children():
            assert isinstance(stage, Stage)
            stage.grad_checkpointing = enable

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that no weight decay applies to."""
        return {
            name
            for name, _ in self.named_parameters()
            if name.rpartition(".")[2] in ("log_beta", "gamma", "gamma1", "gamma2")
        }

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict:
        """Groups of parameters by depth, for layer-wise decay of the learning rate."""
        if coarse:
            return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}
        return {
            "stem": r"^stem",
            "blocks": [
                (r"^stages\.(\d+)\.downsample", (0,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            ],
        }

    @torch.jit.ignore
    def get_classifier(self) -> Any:
        """The classifier; both of them, if there are two."""
        if self.head.classifier_dist is None:
            return self.head.classifier
        return self.head.classifier, self.head.classifier_dist

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Draw new classifiers for other classes.

        Args:
            num_classes: Number of classes; 0 for no classifier.
            global_pool: 'avg', or '' for none; ``None`` leaves it as it is.
        """
        self.head.reset(num_classes, self.global_pool if global_pool is None else global_pool)

    def fuse(self) -> AttentionViG:
        """Merge BatchNorms and the two classifiers, in place, for inference only.

        Activations then write over what the maps before them give. What cannot be merged without
        changing an output stays as it is.

        Raises:
            InputError: If the model is in training mode.
        """
        if any(module.training for module in self.modules()):
            raise InputError("expected a model in evaluation mode, to fuse it (call eval())")
        # Not timm's reparameterize_model: PyG's layers have another `fuse`, a flag.
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, (ConvNorm, Grapher, Head)):
                    setattr(module, name, child.fuse())
        for module in list(self.modules()):
            for name, child in module.named_children():
                setattr(module, name, activated_in_place(child))
        return self

    def forward_intermediates(
        self,
        x: Tensor | Data,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The features of stages.

        Args:
            x: Images, or graphs of images.
            indices: The last n stages, or these; all if ``None``.
            norm: For timm's interface; there is no norm behind the stages.
            stop_early: Run no stage behind the last one asked for.
            output_fmt: 'NCHW'.
            intermediates_only: Leave out the last features.

        Returns:
            The last features (B, C, H', W') and a list of those asked for.
        """
        if output_fmt != "NCHW":
            raise InputError(f"output_fmt must be 'NCHW' (got {output_fmt!r})")
        wanted, last = feature_take_indices(len(self.stages), indices)
        x = in_sequence(self.stem, self._images(x))
        found = []
        for i, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            if i in wanted:
                found.append(x)
        return found if intermediates_only else (x, found)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Remove what the stages asked for do not need; the indices of those stages.

        Args:
            indices: As in :meth:`forward_intermediates`.
            prune_norm: For timm's interface; there is no norm behind the stages.
            prune_head: Remove the head even if all stages stay.
        """
        wanted, last = feature_take_indices(len(self.stages), indices)
        pruned = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        self.feature_info = self.feature_info[: last + 1]
        self.num_features = self.feature_info[last]["num_chs"]
        if prune_head or pruned:
            self.head.prune(self.num_features)
        return wanted

    def forward_features(self, x: Tensor | Data) -> Tensor:
        """The last stage's features, (B, C, H', W')."""
        return self.stages(in_sequence(self.stem, self._images(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool and classify the features of :meth:`forward_features`."""
        return self.head(x, pre_logits)

    def _images(self, x: Tensor | Data) -> Tensor:
        return checked_images(x, self.in_chans, dtype_of(self), MIN_SIDE)

    def forward(self, x: Tensor | Data) -> Tensor:
        """Classify images, or graphs of images."""
        return self.forward_head(self.forward_features(x))


class Stage(nn.Module):
    """Down-sampling, inverted residual blocks, Graphers."""

    def __init__(
        self,
        in_channels: int | None,
        channels: int,
        num_irbs: int,
        graph: GraphConstructor,
        drop_paths: Sequence[float],
        layer_scale: float,
        **grapher_args,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = (
            nn.Identity() if in_channels is None else ConvNorm(in_channels, channels, stride=2)
        )
        self.blocks = nn.Sequential(
            *(InvertedResidual(channels, p, layer_scale) for p in drop_paths[:num_irbs]),
            *(
                ImageGrapher(channels, graph, drop_path=p, layer_scale=layer_scale, **grapher_args)
                for p in drop_paths[num_irbs:]
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C, H', W')."""
        x = self.downsample(x)
        if self.grad_checkpointing:
            return checkpoint_seq(self.blocks, x)
        return self.blocks(x)


def _graphs_of_stages(
    names: str | Sequence[str],
    args: dict[str, Any] | Sequence[dict[str, Any] | None] | None,
    strides: Sequence[int],
) -> list[GraphConstructor]:
    """The graph constructor of each stage."""
    names = _one_a_stage("graph", names, (str,), len(strides))
    all_args = _one_a_stage("graph_args", args, (dict, type(None)), len(strides))
    return [
        make_graph(name, **{**_stage_args(name, stride), **(own or {})})
        for name, own, stride in zip(names, all_args, strides, strict=True)
    ]


def _one_a_stage(name: str, value: Any, kinds: tuple[type, ...], stages: int) -> list[Any]:
    """A value of these kinds for all stages, or one for each."""
    values = [value] * stages if isinstance(value, kinds) else value
    several = isinstance(values, (list, tuple)) and len(values) == stages
    if not several or not all(isinstance(one, kinds) for one in values):
        known = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(
            f"{name} must be {known}, or {stages} of them, one a stage (got {value!r})"
        )
    return list(values)


def _stage_args(name: str, stride: int) -> dict[str, Any]:
    """What a constructor is told in a stage, if nothing else is said."""
    if name in ("axial", "dynamic_axial"):
        return {"stride": stride}
    if name == "mobile_graph":
        return {"hop": stride}
    return {"of": "x", "cosine": True} if name == "knn" else {}


def _drop_path_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Rates of each block, by stage, growing linearly from 0 to ``last``."""
    step = last / max(sum(depths) - 1, 1)
    rates = [step * i for i in range(sum(depths))]
    return [[rates.pop(0) for _ in range(depth)] for depth in depths]


def _cfg(**kwargs) -> dict:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.0.0",
        "classifier": ("head.classifier", "head.classifier_dist"),
        "license": "mit",
        "paper_ids": "arXiv:2509.25570",
        "paper_name": "AttentionViG: Cross-Attention-Based Dynamic Neighbor Aggregation "
        "in Vision GNNs",
        **kwargs,
    }


default_cfgs = generate_default_cfgs(
    {
        "attentionvig_nano.untrained": _cfg(input_size=(3, 32, 32), pool_size=(2, 2), crop_pct=1.0),
        "attentionvig_s.untrained": _cfg(),
        "attentionvig_m.untrained": _cfg(),
        "attentionvig_b.untrained": _cfg(),
    }
)


def _create_attentionvig(variant: str, pretrained: bool, **kwargs) -> AttentionViG:
    return build_model_with_cfg(
        AttentionViG,
        variant,
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **kwargs,
    )


@register_model
def attentionvig_nano(pretrained: bool = False, **kwargs) -> AttentionViG:
    """Our own size, for 32 x 32 images: the stem halves them once only."""
    args = {
        "channels": (24, 48, 96, 160),
        "irb_depths": (1, 1, 2, 1),
        "grapher_depths": (1, 1, 1, 1),
        "graph_strides": (4, 2, 1, 1),
        "stem_strides": (2, 1),
        **kwargs,
    }
    return _create_attentionvig("attentionvig_nano", pretrained, **args)


@register_model
def attentionvig_s(pretrained: bool = False, **kwargs) -> AttentionViG:
    """AttentionViG-S. Widths and depths inferred from GreedyViG-S, by the same group."""
    args = {
        "channels": (48, 96, 192, 384),
        "irb_depths": (2, 2, 6, 2),
        "grapher_depths": (2, 2, 2, 2),
        **kwargs,
    }
    return _create_attentionvig("attentionvig_s", pretrained, **args)


@register_model
def attentionvig_m(pretrained: bool = False, **kwargs) -> AttentionViG:
    """AttentionViG-M. Widths and depths inferred from GreedyViG-M."""
    args = {
        "channels": (56, 112, 224, 448),
        "irb_depths": (3, 3, 9, 3),
        "grapher_depths": (3, 3, 3, 3),
        **kwargs,
    }
    return _create_attentionvig("attentionvig_m", pretrained, **args)


@register_model
def attentionvig_b(pretrained: bool = False, **kwargs) -> AttentionViG:
    """AttentionViG-B. Widths inferred from GreedyViG-B, depths from the paper's GMACs."""
    args = {
        "channels": (64, 128, 256, 512),
        "irb_depths": (4, 4, 12, 3),
        "grapher_depths": (3, 3, 3, 3),
        **kwargs,
    }
    return _create_attentionvig("attentionvig_b", pretrained, **args)
