"""AttentionViG for PyTorch Geometric.

One message-passing layer, :class:`CrossAttnConv`, on images, video, point clouds and any
other graph. Importing this package needs torch and torch-geometric alone;
``pyg_avig.models`` needs the extra ``vision``, ``pyg_avig.train`` the extra ``train``.
"""

from pyg_avig.errors import InputError
from pyg_avig.graphs import AxialGraph
from pyg_avig.nn import CrossAttnConv, Grapher, attention_weights, freeze_beta

__version__ = "0.1.0"

__all__ = [
    "AxialGraph",
    "CrossAttnConv",
    "Grapher",
    "InputError",
    "__version__",
    "attention_weights",
    "freeze_beta",
]
