"""Any model of timm with features as the backbone of a detector or segmenter."""

from __future__ import annotations

import math
from typing import Any

import timm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pyg_avig.errors import InputError
from pyg_avig.models.attention_vig import AttentionViG
from pyg_avig.models.layers import ImageGrapher

STRIDES = (4, 8, 16, 32)


class DenseBackbone(nn.Module):
    r"""The features of a model of timm at strides 4, 8, 16 and 32.

    Images must be padded to multiples of :attr:`size_divisible`. It is the least common multiple of
    32, so that each lattice of features has exactly half the side of the one before it, and, for
    :class:`AttentionViG`, of each stage's reduction times its graph's stride: then every stride
    divides its lattice, and the aggregation runs on the residue classes of each axis rather than on
    a full circulant. With the published strides 8, 4, 2, 1 at reductions 4, 8, 16, 32 every such
    product is 32.

    Args:
        name: Name of the model in timm's registry.
        pretrained: Start from timm's weights.
        weights: Start from this state dict of the whole model; classifiers in it are left out.
        freeze_norm: Whether BatchNorms use their running statistics in training too, and leave
            them as they are; their scales and shifts are trained.
        **model_args: Further arguments of ``timm.create_model``. ``attentionvig_nano`` needs
            ``stem_strides=(2, 2)``, as its own features are at strides 2 to 16.

    Shapes:
        - **input:** images :math:`(B, 3, H, W)`, :math:`H, W` multiples of :attr:`size_divisible`
        - **output:** a list of :math:`(B, C_k, H / 2^k, W / 2^k)` for :math:`k = 2 \ldots 5`

    Raises:
        InputError: If timm knows no such model, it takes no such arguments, it has no features at
            these strides, or the weights are another model's.
    """

    def __init__(
        self,
        name: str,
        pretrained: bool = False,
        weights: dict[str, Tensor] | None = None,
        freeze_norm: bool = False,
        **model_args: Any,
    ) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise InputError(f"name must be a model that timm knows (got {name!r})")
        args = dict(model_args)
        if weights is not None:
            args["pretrained_cfg_overlay"] = {"state_dict": _fitting(name, weights, model_args)}
        args["pretrained"] = pretrained or weights is not None
        self.body = _features(name, args)
        found = self.body.feature_info.reduction()
        if not set(STRIDES) <= set(found):
            hint = "; stem_strides [2, 2] would give them" if name == "attentionvig_nano" else ""
            raise InputError(
                f"expected a backbone with features at strides 4, 8, 16 and 32 (got {name} with "
                f"{', '.join(map(str, found))}{hint})"
            )
        # Swin and its like take one size alone, unless told otherwise.
        if any(getattr(module, "strict_img_size", False) for module in self.body.modules()):
            self.body = _features(name, {**args, "strict_img_size": False})
        info: Any = self.body.feature_info
        # Of several features at a stride the last.
        self.indices = [len(found) - 1 - found[::-1].index(stride) for stride in STRIDES]
        self.channels = [info.channels()[i] for i in self.indices]
        self.channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        self.size_divisible = size_divisible(self.body)
        self.freeze_norm = freeze_norm

    def train(self, mode: bool = True) -> DenseBackbone:
        """Set the mode; frozen BatchNorms stay in evaluation mode."""
        super().train(mode)
        if self.freeze_norm:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Hold no activations within blocks, and compute them again for the gradient.

        Raises:
            InputError: If the model cannot.
        """
        able = [m for m in self.body.modules() if hasattr(m, "set_grad_checkpointing")]
        if not able:
            raise InputError("expected a backbone with gradient checkpointing (got one without)")
        able[0].set_grad_checkpointing(enable)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The four features of a batch of images."""
        found = self.body(images)
        features = [found[i] for i in self.indices]
        return [x.movedim(-1, 1) for x in features] if self.channels_last else features


def _features(name: str, args: dict[str, Any]) -> Any:
    """The features of a model of timm."""
    try:
        return timm.create_model(name, features_only=True, **args)
    # Models without features fail in their own ways, as does a download.
    except (TypeError, RuntimeError, AttributeError, AssertionError, OSError) as error:
        raise InputError(f"{name} cannot be made as a backbone ({error})") from None


def size_divisible(body: nn.Module) -> int:
    """What the sides of an image must be multiples of."""
    divisor = STRIDES[-1]
    for model in body.modules():
        if not isinstance(model, AttentionViG):
            continue
        for info, stage in zip(model.feature_info, model.stages, strict=True):
            for grapher in stage.modules():
                if isinstance(grapher, ImageGrapher):
                    strides = [info["reduction"] * stride for stride in grapher.strides]
                    divisor = math.lcm(divisor, *strides)
    return divisor


def _fitting(
    name: str, weights: dict[str, Tensor], model_args: dict[str, Any]
) -> dict[str, Tensor]:
    """The weights without those of classifiers; an InputError if they are another model's."""
    try:
        own: Any = timm.create_model(name, num_classes=0, **model_args)
    except TypeError as error:
        raise InputError(f"expected model_args as arguments of {name} ({error})") from None
    classifiers: Any = own.pretrained_cfg.get("classifier") or ()
    classifiers = (classifiers,) if isinstance(classifiers, str) else classifiers
    rest = {
        key: value
        for key, value in weights.items()
        if not key.startswith(tuple(f"{classifier}." for classifier in classifiers))
    }
    needed = own.state_dict()
    wrong = [
        key
        for key in needed.keys() | rest.keys()
        if key not in needed or key not in rest or needed[key].shape != rest[key].shape
    ]
    if wrong:
        raise InputError(
            f"expected weights that fit {name} ({len(wrong)} do not, such as {min(wrong)})"
        )
    return rest
