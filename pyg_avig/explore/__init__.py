"""One page to explore what a model attends to, on images and any other graph."""

from pyg_avig.explore.page import explore

__all__ = ["explore"]
