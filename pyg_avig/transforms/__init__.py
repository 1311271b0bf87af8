"""From tensors to graphs."""

from pyg_avig.transforms.image import GraphToImage, ImageToGraph
from pyg_avig.transforms.molecule import OneHotMolecule
from pyg_avig.transforms.points import (
    PatchMoments,
    PointPatches,
    PointsToGraph,
    RandomMirror,
    RandomStretch,
)
from pyg_avig.transforms.video import RandomClipCrop, RandomClipFlip, VideoToGraph

__all__ = [
    "GraphToImage",
    "ImageToGraph",
    "OneHotMolecule",
    "PatchMoments",
    "PointPatches",
    "PointsToGraph",
    "RandomClipCrop",
    "RandomClipFlip",
    "RandomMirror",
    "RandomStretch",
    "VideoToGraph",
]
