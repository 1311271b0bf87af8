"""From tensors to graphs."""

from pyg_avig.transforms.image import GraphToImage, ImageToGraph
from pyg_avig.transforms.points import PointsToGraph
from pyg_avig.transforms.video import VideoToGraph

__all__ = ["GraphToImage", "ImageToGraph", "PointsToGraph", "VideoToGraph"]
