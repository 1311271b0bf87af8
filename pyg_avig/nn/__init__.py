"""Layers over node features."""

from pyg_avig.nn.attention_weights import AttentionWeights, attention_weights
from pyg_avig.nn.cross_attn_conv import CrossAttnConv
from pyg_avig.nn.freeze_beta import freeze_beta
from pyg_avig.nn.grapher import GraphDropPath, Grapher

__all__ = [
    "AttentionWeights",
    "CrossAttnConv",
    "GraphDropPath",
    "Grapher",
    "attention_weights",
    "freeze_beta",
]
