"""Training with Lightning."""

from pyg_avig.train.checkpoint import load_classifier
from pyg_avig.train.image_classifier import ImageClassifier

__all__ = ["ImageClassifier", "load_classifier"]
