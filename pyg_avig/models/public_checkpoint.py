"""Weights of SAG-ViT's public code, in our model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pyg_avig.errors import InputError
from pyg_avig.models.sag_vit import SAGViT

# torchvision's names within a block of each of the five stages, and timm's.
_FUSED = {"0.0": "conv", "0.1": "bn1"}
_EXPANDED = {"0.0": "conv_exp", "0.1": "bn1", "1.0": "conv_pwl", "1.1": "bn2"}
_SEPARABLE = {
    "0.0": "conv_pw",
    "0.1": "bn1",
    "1.0": "conv_dw",
    "1.1": "bn2",
    "2.fc1": "se.conv_reduce",
    "2.fc2": "se.conv_expand",
    "3.0": "conv_pwl",
    "3.1": "bn3",
}
_STAGES = (_FUSED, _EXPANDED, _EXPANDED, _SEPARABLE, _SEPARABLE)
_STEM = {"0.0": "conv_stem", "0.1": "bn1"}
_REST = {
    # PyG before 2.5 holds this layer under two names.
    r"gcn\.conv1\.lin_(src|dst)\.": "patch_graph.conv1.lin.",
    r"gcn\.": "patch_graph.",
    r"(transformer_encoder\.){1,2}": "encoder.",
    r"(mlp\.){1,2}0\.": "head.hidden.",
    r"(mlp\.){1,2}2\.": "head.classifier.",
    r"positional_embedding$": "tokens.offset",
    r"extra_embedding$": "tokens.cls_token",
}


def load_public_checkpoint(path: str | Path) -> SAGViT:
    """A model with weights that the public code of SAG-ViT saved.

    Its names (``cnn.extractor.*`` of torchvision's EfficientNetV2-S, ``gcn.*``,
    ``transformer_encoder.*``, ``mlp.*``, ``positional_embedding``, ``extra_embedding``) become
    ours, its shapes say the number of classes. Images want ImageNet's mean and deviation.

    Args:
        path: A state dict, ``.safetensors`` or written by ``torch.save``, by itself or in the
            checkpoint of a trainer.

    Returns:
        The variant ``public``, in evaluation mode.

    Raises:
        InputError: If the file is no state dict, or weights are missing, foreign or of other
            shapes.
    """
    weights: dict[str, Tensor] = {}
    names: dict[str, str] = {}  # Theirs by ours.
    foreign = []
    for name, value in _read(Path(path)).items():
        own = _our_name(name)
        if own is None or (own in weights and not torch.equal(weights[own], value)):
            foreign.append(name)
        else:
            weights[own] = value.unsqueeze(0) if name == "extra_embedding" else value
            names[own] = name
    model = SAGViT(
        variant="public",
        in_chans=_size(weights.get("backbone.model.conv_stem.weight"), 4, 1, 3),
        num_classes=_size(weights.get("head.classifier.bias"), 1, 0, 10),
    )
    own_state = model.state_dict()
    for name, value in own_state.items():
        if name.endswith("num_batches_tracked"):  # Inference does without, and so do some files.
            weights.setdefault(name, value)
    foreign += [names[own] for own in weights.keys() - own_state.keys()]
    missing = sorted(own_state.keys() - weights.keys())
    if foreign or missing:
        raise InputError(
            f"{path}: expected a state dict of the public SAGViTClassifier with "
            f"GATConv and GCNConv (foreign or twice: {_some(foreign)}; missing, by our names: "
            f"{_some(missing)})"
        )
    for name, value in own_state.items():
        given = weights[name]
        if given.shape != value.shape or given.is_floating_point() != value.is_floating_point():
            raise InputError(
                f"{path}: expected {name} of shape {tuple(value.shape)} and of the kind of "
                f"{value.dtype} (got {tuple(given.shape)}, {given.dtype})"
            )
    model.load_state_dict(weights)
    return model.eval()


def _size(weight: Tensor | None, dim: int, axis: int, otherwise: int) -> int:
    """The size of an axis, should the weight be there and have so many."""
    return weight.size(axis) if weight is not None and weight.dim() == dim else otherwise


def _our_name(name: str) -> str | None:
    """Our name of a weight of the public code; ``None`` for a foreign one."""
    if match := re.fullmatch(r"cnn\.extractor\.0\.([01])\.(\w+)", name):
        return f"backbone.model.{_STEM[f'0.{match[1]}']}.{match[2]}"
    if match := re.fullmatch(r"cnn\.extractor\.([1-5])\.(\d+)\.block\.(\d\.\w+)\.(\w+)", name):
        stage = int(match[1]) - 1
        layer = _STAGES[stage].get(match[3])
        return layer and f"backbone.model.blocks.{stage}.{match[2]}.{layer}.{match[4]}"
    for pattern, own in _REST.items():
        if match := re.match(pattern, name):
            return own + name[match.end() :]
    return None


def _read(path: Path) -> dict[str, Tensor]:
    try:
        content: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # Whatever a broken file provokes in the readers.
        raise InputError(f"{path}: expected a state dict ({error})") from None
    for key in ("state_dict", "model_state_dict", "model"):  # As trainers wrap it.
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise InputError(f"{path}: expected a state dict, tensors by name (got other content)")
    return {name.removeprefix("module."): value for name, value in content.items()}


def _some(names: list[str]) -> str:
    return f"{len(names)}, such as {min(names)}" if names else "none"
