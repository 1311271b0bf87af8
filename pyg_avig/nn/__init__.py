"""Layers over node features."""

from pyg_avig.nn.aggregations import (
    aggregation_names,
    make_aggregation,
    register_aggregation,
)
from pyg_avig.nn.attention_weights import AttentionWeights, attention_weights
from pyg_avig.nn.cross_attn_conv import CrossAttnConv
from pyg_avig.nn.freeze_beta import BetaBounds, freeze_beta
from pyg_avig.nn.grapher import GraphDropPath, Grapher
from pyg_avig.nn.max_relative_conv import MaxRelativeConv
from pyg_avig.nn.swap_attention import CosineAttention, CosineWindowAttention, swap_attention

__all__ = [
    "AttentionWeights",
    "BetaBounds",
    "CosineAttention",
    "CosineWindowAttention",
    "CrossAttnConv",
    "GraphDropPath",
    "Grapher",
    "MaxRelativeConv",
    "aggregation_names",
    "attention_weights",
    "freeze_beta",
    "make_aggregation",
    "register_aggregation",
    "swap_attention",
]
