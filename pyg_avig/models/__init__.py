"""Models; importing this package registers them in timm."""

from pyg_avig.models.attention_vig import AttentionViG

__all__ = ["AttentionViG"]
