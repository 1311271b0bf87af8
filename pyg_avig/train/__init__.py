"""Training with Lightning."""

from pyg_avig.train.checkpoint import load_classifier, load_graph_task
from pyg_avig.train.detector import Detector
from pyg_avig.train.graph_task import GraphTask
from pyg_avig.train.image_classifier import ImageClassifier
from pyg_avig.train.recipe import Recipe
from pyg_avig.train.segmenter import Segmenter

__all__ = [
    "Detector",
    "GraphTask",
    "ImageClassifier",
    "Recipe",
    "Segmenter",
    "load_classifier",
    "load_graph_task",
]
