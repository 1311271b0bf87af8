"""Parameters and multiply-accumulates of the AttentionViG family at 224 x 224.

python examples/model_sizes.py
"""

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import pyg_avig.models  # noqa: F401  (registers the models in timm)


def main() -> dict[str, tuple[float, float]]:
    """Print the table; millions of parameters and GMACs by name."""
    sizes = {}
    for name in timm.list_models("attentionvig_*"):
        model = timm.create_model(name, device="meta").eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 224, 224, device="meta"))
        parameters = sum(p.numel() for p in model.parameters())
        sizes[name] = parameters / 1e6, counter.get_total_flops() / 2e9
        print(f"{name:20}{sizes[name][0]:7.1f} M{sizes[name][1]:7.2f} GMACs")
    return sizes


if __name__ == "__main__":
    main()
