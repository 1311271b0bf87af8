"""Data sets, and Lightning data modules that yield PyG batches."""

from pyg_avig.data.cells import PBMC68k
from pyg_avig.data.connectomes import MouseConnectomes
from pyg_avig.data.digits import Digits
from pyg_avig.data.fashion_mnist import FashionMNIST
from pyg_avig.data.furniture import Furniture
from pyg_avig.data.graph_data import GraphData
from pyg_avig.data.image_files import ImageFiles, read_image
from pyg_avig.data.image_graphs import ImageGraphDataModule, ImageGraphs
from pyg_avig.data.images import Images
from pyg_avig.data.molecules import FreeSolvMolecules, molecule_graph
from pyg_avig.data.playback import PlaybackSpeed

__all__ = [
    "Digits",
    "FashionMNIST",
    "FreeSolvMolecules",
    "Furniture",
    "GraphData",
    "ImageFiles",
    "ImageGraphDataModule",
    "ImageGraphs",
    "Images",
    "MouseConnectomes",
    "PBMC68k",
    "PlaybackSpeed",
    "molecule_graph",
    "read_image",
]
