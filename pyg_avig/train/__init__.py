"""Training with Lightning."""

from pyg_avig.train.checkpoint import load_classifier
from pyg_avig.train.graph_task import GraphTask
from pyg_avig.train.image_classifier import ImageClassifier
from pyg_avig.train.recipe import Recipe

__all__ = ["GraphTask", "ImageClassifier", "Recipe", "load_classifier"]
