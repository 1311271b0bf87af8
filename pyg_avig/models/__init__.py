"""Models; importing this package registers them in timm."""

from pyg_avig.models.attention_vig import AttentionViG
from pyg_avig.models.vig import ViG, vig_base, vig_small, vig_tiny

__all__ = ["AttentionViG", "ViG", "vig_base", "vig_small", "vig_tiny"]
