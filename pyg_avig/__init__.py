"""AttentionViG for PyTorch Geometric.

One message-passing layer, :class:`CrossAttnConv`, on images, video, point clouds and any
other graph. Importing this package needs torch and torch-geometric alone;
``pyg_avig.models`` needs the extra ``vision``, ``pyg_avig.train`` the extra ``train``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyg_avig.errors import InputError

if TYPE_CHECKING:
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

# Imported when first asked for, so that the command line answers before PyTorch is loaded.
_MODULES = ("graphs", "nn", "ops")
_HOME = {
    "AxialGraph": "graphs",
    "CrossAttnConv": "nn",
    "Grapher": "nn",
    "attention_weights": "nn",
    "freeze_beta": "nn",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"pyg_avig.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'pyg_avig' has no attribute {name!r}")
    value = getattr(import_module(f"pyg_avig.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
