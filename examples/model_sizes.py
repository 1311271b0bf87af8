"""Parameters and multiply-accumulates of the AttentionViG family at 224 x 224.

python examples/model_sizes.py
"""

import timm

import pyg_avig.models  # noqa: F401  (registers the models in timm)
from pyg_avig.models.sizes import size_of


def main() -> dict[str, tuple[float, float]]:
    """Print the table; millions of parameters and GMACs by name."""
    sizes = {}
    for name in timm.list_models("attentionvig_*"):
        parameters, macs, _ = size_of(name, side=224)
        sizes[name] = parameters / 1e6, macs / 1e9
        print(f"{name:20}{sizes[name][0]:7.1f} M{sizes[name][1]:7.2f} GMACs")
    return sizes


if __name__ == "__main__":
    main()
