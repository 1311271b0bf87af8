"""Models; importing this package registers them in timm."""

from pyg_avig.models.attention_vig import AttentionViG
from pyg_avig.models.exported import load_exported_vig
from pyg_avig.models.public_checkpoint import load_public_checkpoint
from pyg_avig.models.sag_vit import SAGViT
from pyg_avig.models.vig import ViG, vig_base, vig_small, vig_tiny

__all__ = [
    "AttentionViG",
    "SAGViT",
    "ViG",
    "load_exported_vig",
    "load_public_checkpoint",
    "vig_base",
    "vig_small",
    "vig_tiny",
]
