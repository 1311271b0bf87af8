"""Layers over node features."""

from pyg_avig.nn.attention_weights import AttentionWeights, attention_weights
from pyg_avig.nn.cross_attn_conv import CrossAttnConv, freeze_beta
from pyg_avig.nn.grapher import GraphDropPath, Grapher

__all__ = [
    "AttentionWeights",
    "CrossAttnConv",
    "GraphDropPath",
    "Grapher",
    "attention_weights",
    "freeze_beta",
]
