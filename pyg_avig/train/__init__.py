"""Training with Lightning."""

from importlib import import_module
from typing import Any

from pyg_avig.errors import InputError
from pyg_avig.train.checkpoint import load_classifier, load_graph_task
from pyg_avig.train.graph_task import GraphTask
from pyg_avig.train.image_classifier import ImageClassifier
from pyg_avig.train.recipe import Recipe

__all__ = ["GraphTask", "ImageClassifier", "Recipe", "load_classifier", "load_graph_task"]

# Imported where they are asked for, as they need the extra `dense`.
_DENSE = {"Detector": "detector", "Segmenter": "segmenter"}


def __getattr__(name: str) -> Any:
    if name not in _DENSE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_DENSE[name]}"), name)
    except ModuleNotFoundError as error:
        raise InputError(f"{name} needs {error.name}: pip install 'pyg_avig[dense]'") from None
