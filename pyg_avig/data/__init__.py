"""Data sets as Lightning data modules that yield PyG batches."""

from pyg_avig.data.digits import Digits
from pyg_avig.data.fashion_mnist import FashionMNIST
from pyg_avig.data.image_files import ImageFiles, read_image
from pyg_avig.data.image_graphs import ImageGraphDataModule, ImageGraphs
from pyg_avig.data.images import Images

__all__ = [
    "Digits",
    "FashionMNIST",
    "ImageFiles",
    "ImageGraphDataModule",
    "ImageGraphs",
    "Images",
    "read_image",
]
