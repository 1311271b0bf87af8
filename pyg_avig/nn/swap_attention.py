"""Cosine attention with any affinity in the place of a transformer's own."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyg_avig.errors import InputError
from pyg_avig.nn.cross_attn_conv import MAX_BETA
from pyg_avig.ops.affinity import get_affinity
from pyg_avig.ops.reference import full_precision, unit

EXCLUDED = -100.0  # What Swin's masks add to the logit of a token of another region.


class CosineAttention(nn.Module):
    r"""Dense self-attention by cosine similarity, with the parameters of timm's ``Attention``.

    .. math::
        \mathbf{y}_i = \mathbf{W} \sum_{j \in \mathcal{N}(i)} f(\beta, s_{ij}) \mathbf{v}_j, \qquad
        s_{ij} = \cos(\mathbf{q}_i, \mathbf{k}_j) + b_{ij} / \beta

    with an affinity :math:`f` of :mod:`pyg_avig.ops.affinity`. :math:`\mathcal{N}(i)` are the
    tokens that the mask leaves. A bias :math:`b_{ij}`, such as that of relative positions, is
    divided by :math:`\beta` so that it adds to the logit: the exponential becomes
    :math:`\exp(-\beta(1 - \cos) + b_{ij})`, softmax that of :math:`\beta \cos + b_{ij}`. The
    weights are those of `"AttentionViG" <https://arxiv.org/abs/2509.25570>`_ (section 3.1), which
    has them on graphs alone.

    Args:
        attention: The layer whose parameters and settings it takes.
        affinity: A name of :func:`pyg_avig.ops.affinity_names`.
        beta: Initial inverse temperature of every head, in (0, 100].
        normalize: Divide the sum by the number of tokens in it.

    Shapes:
        - **input:** tokens (B, N, C); a mask that broadcasts to (B, heads, N, N): true for
          tokens that take part, or what is added to the logits, where -100 and less leave a
          token out
        - **output:** (B, N, C)
    """

    qkv: Any
    q_norm: Any
    k_norm: Any
    attn_drop: Any
    norm: Any
    gate: Any
    proj: Any
    proj_drop: Any

    def __init__(
        self,
        attention: Any,
        affinity: str = "exponential",
        beta: float = 1.0,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        get_affinity(affinity)
        if isinstance(beta, bool) or not 0 < beta <= MAX_BETA:
            raise InputError(f"beta must lie in (0, {MAX_BETA:g}] (got {beta})")
        self.affinity = affinity
        self.normalize = normalize
        self.num_heads = attention.num_heads
        for name in _PARTS:
            setattr(self, name, getattr(attention, name, None))
        self.log_beta = nn.Parameter(self.qkv.weight.new_full((self.num_heads,), math.log(beta)))
        self.train(attention.training)

    @property
    def beta(self) -> Tensor:
        """The inverse temperature of each head, (heads,)."""
        return self.log_beta.clamp(max=math.log(MAX_BETA)).exp()

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Run the layer; a causal one leaves later tokens out, whatever the mask."""
        if is_causal:
            attn_mask = torch.ones(x.size(1), x.size(1), dtype=torch.bool, device=x.device).tril()
        mask, bias = _of_mask(attn_mask)
        return self._attend(x, mask, bias)

    def _attend(self, x: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        if self.q_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        weight = F.dropout(self._weights(query, key, mask, bias), self.attn_drop.p, self.training)
        out = (weight.to(value.dtype) @ value).transpose(1, 2).flatten(2)
        if self.norm is not None:
            out = self.norm(out)
        if self.gate is not None:
            out = out * self.gate(x).sigmoid()
        return self.proj_drop(self.proj(out))

    def _weights(
        self, query: Tensor, key: Tensor, mask: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        """The weight of each token in each sum, (B, heads, N, N), in at least fp32."""
        with full_precision(query.device):
            similarity = unit(query) @ unit(key).transpose(-2, -1)
            beta = self.beta.to(similarity.dtype).view(-1, 1, 1)
            if bias is not None:
                similarity = similarity + bias.to(similarity.dtype) / beta
            mask = torch.ones_like(similarity, dtype=torch.bool) if mask is None else mask
            tokens = _Tokens(mask.expand_as(similarity))
            weight = get_affinity(self.affinity).function(similarity, beta, tokens)
            if self.normalize:
                weight = weight / tokens.count(weight)
            return weight.masked_fill(~mask, 0)

    def extra_repr(self) -> str:
        """What the parts do not say."""
        return f"affinity={self.affinity!r}, normalize={self.normalize}"


class CosineWindowAttention(CosineAttention):
    """:class:`CosineAttention` within windows, with the parameters of timm's Swin.

    The bias of relative positions adds to the logits. A mask of shifted windows leaves tokens of
    another region out.

    Args:
        attention: The layer whose parameters and settings it takes.
        affinity: A name of :func:`pyg_avig.ops.affinity_names`.
        beta: Initial inverse temperature of every head, in (0, 100].
        normalize: Divide the sum by the number of tokens in it.

    Shapes:
        - **input:** tokens (B * windows, N, C); a mask (windows, N, N), added to the logits
        - **output:** (B * windows, N, C)
    """

    relative_position_index: Tensor

    def __init__(
        self,
        attention: Any,
        affinity: str = "exponential",
        beta: float = 1.0,
        normalize: bool = False,
    ) -> None:
        super().__init__(attention, affinity, beta, normalize)
        self.window_size = attention.window_size
        self.relative_position_bias_table = attention.relative_position_bias_table
        self.register_buffer(
            "relative_position_index", attention.relative_position_index, persistent=False
        )

    def forward(  # type: ignore[override]  # As Swin calls it.
        self, x: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Run the layer."""
        number = x.size(1)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        bias = bias.view(1, number, number, -1).permute(0, 3, 1, 2)
        if mask is not None:  # One after the other for each image.
            mask = mask.unsqueeze(1).repeat(x.size(0) // mask.size(0), 1, 1, 1)
        mask, added = _of_mask(mask)
        return self._attend(x, mask, bias if added is None else bias + added)

    def set_window_size(self, window_size: tuple[int, int]) -> None:
        """Keep the size: the table of relative positions is for no other.

        Raises:
            InputError: If it is another.
        """
        if tuple(window_size) != tuple(self.window_size):
            raise InputError(
                f"expected windows of {tuple(self.window_size)}, as the model had when its "
                f"attention was swapped (got {tuple(window_size)}); change them before"
            )


def swap_attention(
    model: nn.Module,
    affinity: str = "exponential",
    beta: float = 1.0,
    normalize: bool = False,
) -> nn.Module:
    r"""Put cosine attention with any affinity in the place of a transformer's own, in place.

    Takes models of timm that attend by ``timm.layers.Attention`` (ViT, DeiT and their kin) or by
    Swin's ``WindowAttention``. All parameters stay under their names; each layer has one
    more, ``log_beta`` (heads,). Weights that were learned with scaled dot products are a start for
    further training, no more: similarities are cosines now.

    With an affinity whose weights do not compete, a sum over N tokens grows as N: ``normalize``
    takes their mean instead.

    Args:
        model: A model with such layers; make its optimiser after this.
        affinity: A name of :func:`pyg_avig.ops.affinity_names`.
        beta: Initial inverse temperature :math:`\beta` of every head, in (0, 100].
        normalize: Divide each sum by the number of tokens in it.

    Returns:
        The model.

    Raises:
        InputError: If the model has no such layer, or an argument is out of its range.

    Example:
        >>> import timm
        >>> from pyg_avig.nn import swap_attention
        >>> model = swap_attention(timm.create_model("vit_tiny_patch16_224"), affinity="sigmoid")
        >>> type(model.blocks[0].attn).__name__
        'CosineAttention'
    """
    found: list[tuple[nn.Module, str, type[CosineAttention]]] = [
        (parent, name, _REPLACEMENTS[kind])
        for parent in model.modules()
        for name, child in parent.named_children()
        if (kind := f"{type(child).__module__}.{type(child).__qualname__}") in _REPLACEMENTS
    ]
    if not found:
        raise InputError(
            "expected a model with layers timm.layers.Attention or Swin's WindowAttention (got "
            f"{type(model).__name__} with none)"
        )
    for parent, name, replacement in found:
        setattr(parent, name, replacement(getattr(parent, name), affinity, beta, normalize))
    return model


# By name, as nothing here imports timm; the first two are one class, which has moved.
_REPLACEMENTS = {
    "timm.layers.attention.Attention": CosineAttention,
    "timm.models.vision_transformer.Attention": CosineAttention,
    "timm.models.swin_transformer.WindowAttention": CosineWindowAttention,
}
_PARTS = ("qkv", "q_norm", "k_norm", "attn_drop", "norm", "gate", "proj", "proj_drop")


def _of_mask(mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Which tokens take part, and what is added to the logits of those."""
    if mask is None or mask.dtype == torch.bool:
        return mask, None
    inside = mask > EXCLUDED
    return inside, mask.masked_fill(~inside, 0)


class _Tokens:
    """Reductions over the tokens that take part in each sum, for :mod:`pyg_avig.ops.affinity`."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self.none = ~mask.any(-1, keepdim=True)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over the tokens, (..., 1); of none, 1."""
        total = value.masked_fill(~self.mask, 0).sum(-1, keepdim=True)
        return total.masked_fill(self.none, 1)

    def max(self, value: Tensor) -> Tensor:
        """The maximum over the tokens, (..., 1); of none, over all."""
        inside = self.mask | self.none
        return value.detach().masked_fill(~inside, -torch.inf).amax(-1, keepdim=True)

    def count(self, value: Tensor) -> Tensor:
        """The number of tokens, (..., 1); of none, 1."""
        return self.mask.sum(-1, keepdim=True).clamp(min=1).to(value.dtype)
