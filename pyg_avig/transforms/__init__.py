"""From tensors to graphs."""

from pyg_avig.transforms.image import GraphToImage, ImageToGraph

__all__ = ["GraphToImage", "ImageToGraph"]
