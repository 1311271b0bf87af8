"""From tensors to graphs."""

from pyg_avig.transforms.image import GraphToImage, ImageToGraph
from pyg_avig.transforms.molecule import OneHotMolecule
from pyg_avig.transforms.points import PointPatches, PointsToGraph, RandomMirror
from pyg_avig.transforms.video import RandomClipCrop, RandomClipFlip, VideoToGraph

__all__ = [
    "GraphToImage",
    "ImageToGraph",
    "OneHotMolecule",
    "PointPatches",
    "PointsToGraph",
    "RandomClipCrop",
    "RandomClipFlip",
    "RandomMirror",
    "VideoToGraph",
]
