"""Data sets, and Lightning data modules that yield batches."""

from pyg_avig.data.datasets.block_models import Cluster, Pattern
from pyg_avig.data.datasets.cells import PBMC68k
from pyg_avig.data.datasets.coco import CocoInstances
from pyg_avig.data.datasets.connectomes import MouseConnectomes
from pyg_avig.data.datasets.dictionary_lookup import DictionaryLookup
from pyg_avig.data.datasets.digit_scenes import DigitInstances, DigitPixels
from pyg_avig.data.datasets.digits import Digits
from pyg_avig.data.datasets.fashion_mnist import FashionMNIST
from pyg_avig.data.datasets.furniture import Furniture
from pyg_avig.data.datasets.minesweeper import Minesweeper
from pyg_avig.data.datasets.molecules import FreeSolvMolecules, molecule_graph
from pyg_avig.data.datasets.ogb_nodes import ogb_nodes
from pyg_avig.data.datasets.playback import PlaybackSpeed
from pyg_avig.data.datasets.segmentation_folder import SegmentationFolder
from pyg_avig.data.loading.graph_data import GraphData
from pyg_avig.data.loading.image_files import ImageFiles, read_image
from pyg_avig.data.loading.image_graphs import ImageGraphDataModule, ImageGraphs
from pyg_avig.data.loading.images import Images
from pyg_avig.data.loading.own_graphs import OwnGraphs
from pyg_avig.data.loading.own_images import OwnImages

__all__ = [
    "Cluster",
    "CocoInstances",
    "DictionaryLookup",
    "DigitInstances",
    "DigitPixels",
    "Digits",
    "FashionMNIST",
    "FreeSolvMolecules",
    "Furniture",
    "GraphData",
    "ImageFiles",
    "ImageGraphDataModule",
    "ImageGraphs",
    "Images",
    "Minesweeper",
    "MouseConnectomes",
    "OwnGraphs",
    "OwnImages",
    "PBMC68k",
    "Pattern",
    "PlaybackSpeed",
    "SegmentationFolder",
    "molecule_graph",
    "ogb_nodes",
    "read_image",
]
