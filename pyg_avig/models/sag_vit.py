"""SAG-ViT: features of a convolutional backbone, a graph of their patches, a Transformer.

`SAG-ViT: A Scale-Aware, High-Fidelity Patching Approach with Graph Attention for Vision
Transformers`, <https://arxiv.org/abs/2411.09420>. Its public code and the paper differ; both are
here, as variants of one model.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import timm
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    resolve_pretrained_cfg,
)
from timm.models._features import FeatureGetterNet, feature_take_indices
from torch import Tensor, nn
from torch_geometric.data import Data

from pyg_avig.errors import InputError
from pyg_avig.graphs.constructors import positive
from pyg_avig.models.layers import checked_images, dtype_of
from pyg_avig.models.sag_vit_layers import GridTokens, MeanToken, PatchGraph, TokenHead, one_of

__all__ = ["SAGViT"]

torch.fx.wrap("checked_images")  # Where it is called, not where it is defined.

BACKBONE = "tf_efficientnetv2_s"


class Variant(NamedTuple):
    """What tells the variants apart; the first two hold where the user leaves them open."""

    global_pool: str
    remainder: str
    similarity: bool
    permuted: bool
    tokens: type[nn.Module]
    backbone_args: dict[str, Any]  # Of the default backbone.


VARIANTS = {
    "paper": Variant("token", "pad", True, False, GridTokens, {}),
    # Padded symmetrically, as torchvision's EfficientNetV2-S is.
    "public": Variant("avg", "drop", False, True, MeanToken, {"pad_type": ""}),
}


class SAGViT(nn.Module):
    r"""A backbone's feature map, cut into patches that are the nodes of a graph; graph attention
    between neighbours, then a Transformer between all.

    Takes images, or the graphs that :class:`~pyg_avig.transforms.ImageToGraph` makes of them; the
    results are equal.

    The variant ``paper`` joins each patch with the 8 around it, gives the edges the cosine of the
    two patches as a feature, and lets the Transformer read all nodes and a class token, whose
    output is classified. The variant ``public`` is the arithmetic of the paper's public code (of
    its versions the one with ``GATConv`` of 4 heads before ``GCNConv``), which differs:

    - edges have no features;
    - edges are numbered by NetworkX's order of insertion, features row by row, so that some edges
      join patches that do not touch (12 of the 40 of a 3 x 3 grid);
    - the nodes are averaged to one vector, to which a learned offset is added; the Transformer
      reads that vector and a learned token, and the mean of both is classified;
    - features that fill no whole patch are dropped.

    Inferred, as the paper leaves it open: positions enter the Transformer as fixed sines and
    cosines of row and column; the self-loops that ``GATConv`` adds have cosine 1.

    Args:
        in_chans: Channels of the image.
        num_classes: Number of classes; 0 for no classifier.
        global_pool: What is classified: 'token' (the class token), 'avg' (the mean of all
            tokens), or '' for every token; ``None`` leaves it to the variant.
        variant: 'paper' or 'public'.
        backbone: Name of a model of timm that gives features.
        backbone_args: Further arguments of ``timm.create_model`` for it, such as ``pretrained``, or
            ``checkpoint_path`` for weights at hand.
        stride: The pixels between two features of the map that is taken.
        patch_size: Side of a patch, in features.
        remainder: What becomes of features that fill no whole patch: 'pad' with zeros, or 'drop';
            ``None`` leaves it to the variant.
        conv: The first graph layer: 'gat' (PyG's ``GATConv``), or 'cross_attention'
            (:class:`~pyg_avig.CrossAttnConv`).
        conv_channels: Width of each of its heads.
        conv_heads: Its heads.
        embed_dim: Width of the tokens.
        depth: Layers of the Transformer.
        num_heads: Its heads.
        encoder_drop_rate: Dropout within it.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Stochastic depth of the backbone.
        device: Where the parameters live.
        dtype: Their dtype.

    Shapes:
        - **input:** images :math:`(B, C, H, W)`, or a PyG ``Data`` or ``Batch`` of one lattice
          size
        - **output:** logits :math:`(B, \text{num\_classes})`

    Raises:
        InputError: If an argument is none of these, the backbone has no map of this stride, or the
            images have another shape or dtype, give less than a patch of features, or are of a size
            that the backbone does not take.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str | None = None,
        variant: str = "paper",
        backbone: str = BACKBONE,
        backbone_args: dict[str, Any] | None = None,
        stride: int = 16,
        patch_size: int = 4,
        remainder: str | None = None,
        conv: str = "gat",
        conv_channels: int = 128,
        conv_heads: int = 4,
        embed_dim: int = 64,
        depth: int = 2,
        num_heads: int = 4,
        encoder_drop_rate: float = 0.1,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        chosen = VARIANTS[one_of("variant", variant, *VARIANTS)]
        self.in_chans = positive("in_chans", in_chans)
        self.num_features = embed_dim = positive("embed_dim", embed_dim)
        num_heads = positive("num_heads", num_heads)
        if embed_dim % num_heads:
            raise InputError(f"num_heads must divide embed_dim (got {num_heads} and {embed_dim})")
        args = _checked_args(backbone_args or {})
        if str(backbone).split(".")[0] == BACKBONE:
            args = {**chosen.backbone_args, **args}
        if drop_path_rate:  # Not every backbone has any.
            args["drop_path_rate"] = drop_path_rate
        self.backbone: Any = _features(backbone, stride, {**args, "in_chans": self.in_chans})
        self.feature_info = [
            {**level, "module": f"backbone.model.{level['module']}"}
            for level in self.backbone.feature_info.get_dicts()
        ]
        remainder = chosen.remainder if remainder is None else remainder
        self.patch_graph: nn.Module = PatchGraph(
            self.feature_info[-1]["num_chs"],
            embed_dim,
            patch_size=positive("patch_size", patch_size),
            stride=stride,
            conv=conv,
            conv_channels=positive("conv_channels", conv_channels),
            conv_heads=positive("conv_heads", conv_heads),
            pad=one_of("remainder", remainder, "pad", "drop") == "pad",
            similarity=chosen.similarity,
            permuted=chosen.permuted,
        )
        self.tokens: nn.Module = chosen.tokens(embed_dim)
        # Not F.relu: with it inference takes one fused operator, a few hundredths faster, which
        # torch.compile of PyTorch 2.12 cannot follow.
        layer = nn.TransformerEncoderLayer(
            embed_dim, num_heads, embed_dim, encoder_drop_rate, torch.relu, batch_first=True
        )
        self.encoder: nn.Module = nn.TransformerEncoder(
            layer, positive("depth", depth), enable_nested_tensor=False
        )
        pool = chosen.global_pool if global_pool is None else global_pool
        self.head = TokenHead(embed_dim, num_classes, pool, drop_rate)
        self.to(device=device, dtype=dtype)

    num_classes = property(lambda self: self.head.num_classes)
    head_hidden_size = property(lambda self: self.head.hidden_size)
    global_pool = property(lambda self: self.head.global_pool)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Hold no activations within the backbone's blocks, and compute them again.

        Raises:
            InputError: If the backbone cannot.
        """
        backbone = self.backbone.model
        try:
            backbone.set_grad_checkpointing(enable)
        except (AssertionError, AttributeError):  # As timm's models say that they cannot.
            if enable:
                raise InputError(
                    "expected a backbone with gradient checkpointing (got "
                    f"{type(backbone).__name__}, without)"
                ) from None

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that no weight decay applies to."""
        last = ("cls_token", "offset", "log_beta")
        return {name for name, _ in self.named_parameters() if name.rpartition(".")[2] in last}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict:
        """Groups of parameters by depth, for layer-wise decay of the learning rate."""
        return {
            "stem": r"^backbone",
            "blocks": [(r"^(?:patch_graph|tokens)", (0,)), (r"^encoder\.layers\.(\d+)", None)],
        }

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The classifier."""
        return self.head.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Draw a new classifier for other classes.

        Args:
            num_classes: Number of classes; 0 for no classifier.
            global_pool: As in the constructor; ``None`` leaves it as it is.
        """
        self.head.reset(num_classes, self.global_pool if global_pool is None else global_pool)

    def forward_intermediates(
        self,
        x: Tensor | Data,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The feature maps of the backbone.

        Args:
            x: Images, or graphs of images.
            indices: The last n maps, all if there are fewer, or these; all if ``None``.
            norm: For timm's interface; there is no norm behind the maps.
            stop_early: For timm's interface; the backbone runs to its end.
            output_fmt: 'NCHW'.
            intermediates_only: Leave out the tokens.

        Returns:
            The tokens (B, T, ``num_features``) and a list of the maps asked for, (B, C, H', W').
        """
        if output_fmt != "NCHW":
            raise InputError(f"output_fmt must be 'NCHW' (got {output_fmt!r})")
        wanted, _ = self._taken(indices)
        maps = self._maps(x)
        found = [maps[i] for i in wanted]
        return found if intermediates_only else (self._tokens(maps[-1]), found)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Remove what the maps asked for do not need; their indices.

        Args:
            indices: As in :meth:`forward_intermediates`.
            prune_norm: For timm's interface; there is no norm behind the maps.
            prune_head: Remove graph, Transformer and head even if all maps stay.
        """
        wanted, last = self._taken(indices)
        if prune_head or last < len(self.feature_info) - 1:
            self.feature_info = self.feature_info[: last + 1]
            self.backbone.out_indices = list(range(last + 1))
            self.backbone.model.prune_intermediate_layers(self.backbone.out_indices)
            self.patch_graph = self.tokens = self.encoder = nn.Identity()
            self.num_features = self.feature_info[last]["num_chs"]
            self.head.prune(self.num_features)
        return wanted

    def forward_features(self, x: Tensor | Data) -> Tensor:
        """The Transformer's tokens, the class token first, (B, T, ``num_features``)."""
        return self._tokens(self._maps(x)[-1])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool and classify the tokens of :meth:`forward_features`."""
        return self.head(x, pre_logits)

    def forward(self, x: Tensor | Data) -> Tensor:
        """Classify images, or graphs of images."""
        return self.forward_head(self.forward_features(x))

    def _maps(self, x: Tensor | Data) -> list[Tensor]:
        images = checked_images(x, self.in_chans, dtype_of(self))
        try:
            return self.backbone(images)
        except (AssertionError, RuntimeError) as error:
            cfg = self.backbone.model.pretrained_cfg
            fixed = cfg.get("fixed_input_size") and images.shape[2:] != cfg["input_size"][1:]
            if isinstance(error, RuntimeError) and not fixed:  # It has another cause.
                raise
            raise InputError(
                f"expected images that the backbone takes (got {tuple(images.shape)}: {error}); "
                "img_size in backbone_args sets the size of a backbone that takes one alone"
            ) from None

    def _taken(self, indices: int | list[int] | None) -> tuple[list[int], int]:
        """Which maps are asked for, and the last of them."""
        number = len(self.feature_info)
        return feature_take_indices(
            number, min(indices, number) if isinstance(indices, int) else indices
        )

    def _tokens(self, features: Tensor) -> Tensor:
        return self.encoder(self.tokens(self.patch_graph(features)))


def _features(name: str, stride: int, args: dict[str, Any]) -> Any:
    """A model of timm that gives its feature maps, the last of them of this stride."""
    if not isinstance(name, str) or not timm.is_model(name):
        raise InputError(f"backbone must be a model that timm knows (got {name!r})")
    if args.get("checkpoint_path"):  # It would be loaded over the weights that timm downloads.
        args = {**args, "pretrained": False}
    try:
        model: Any = timm.create_model(name, **args)
    except (AssertionError, AttributeError, RuntimeError, TypeError) as error:
        raise InputError(
            f"expected a backbone and arguments that it takes (got {name} with "
            f"{', '.join(args)}: {error or type(error).__name__})"
        ) from None
    if not (hasattr(model, "feature_info") and hasattr(model, "forward_intermediates")):
        raise InputError(f"expected a backbone that gives features (got {name}, which does not)")
    levels = getattr(model.feature_info, "info", model.feature_info)
    strides = [level["reduction"] for level in levels]
    if stride not in strides:
        raise InputError(
            f"expected a backbone with a feature map of stride {stride} (got {name}, with strides "
            f"{', '.join(map(str, sorted(set(strides))))})"
        )
    last = max(i for i, s in enumerate(strides) if s == stride)
    # Which leaves out what lies behind the last map.
    return FeatureGetterNet(model, out_indices=tuple(range(last + 1)))


def _checked_args(args: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a backbone, none of them ours to give."""
    ours = {"features_only", "feature_cls", "out_indices", "in_chans"}
    if not isinstance(args, dict) or ours & args.keys():
        raise InputError(
            f"expected backbone_args as a dict without {', '.join(sorted(ours))} (got {args!r})"
        )
    return dict(args)


def _cfg(**kwargs) -> dict:
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (4, 4),  # Nodes.
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "backbone.model.conv_stem",
        "classifier": "head.classifier",
        "license": "mit",
        "paper_ids": "arXiv:2411.09420",
        "paper_name": "SAG-ViT: A Scale-Aware, High-Fidelity Patching Approach with Graph "
        "Attention for Vision Transformers",
        **kwargs,
    }


default_cfgs = generate_default_cfgs({"sag_vit.untrained": _cfg()})


@register_model
def sag_vit(
    pretrained: bool = False,
    variant: str = "paper",
    backbone_args: dict[str, Any] | None = None,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    **kwargs,
) -> SAGViT:
    """SAG-ViT on EfficientNetV2-S.

    ``pretrained`` loads the weights that ``pretrained_cfg`` or its overlay name; without them the
    backbone's, all there are.
    """
    source = resolve_pretrained_cfg("sag_vit", pretrained_cfg, pretrained_cfg_overlay)
    whole = pretrained and bool(source.has_weights or source.state_dict)
    if pretrained:
        backbone_args = {"pretrained": True, **(backbone_args or {})}
        if whole:
            backbone_args["pretrained"] = False
    return build_model_with_cfg(
        # timm calls the model's name `variant` too.
        partial(SAGViT, variant=variant, backbone_args=backbone_args),
        "sag_vit",
        pretrained=whole,
        pretrained_cfg=pretrained_cfg,
        pretrained_cfg_overlay=pretrained_cfg_overlay,
        feature_cfg={"out_indices": 3, "feature_cls": "getter"},  # The last three.
        **kwargs,
    )
