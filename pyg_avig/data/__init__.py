"""Data sets as Lightning data modules that yield PyG batches."""

from pyg_avig.data.digits import Digits
from pyg_avig.data.fashion_mnist import FashionMNIST
from pyg_avig.data.image_graphs import ImageGraphDataModule, ImageGraphs

__all__ = ["Digits", "FashionMNIST", "ImageGraphDataModule", "ImageGraphs"]
