"""The models of this library, with what they cost."""

from __future__ import annotations


def list_models() -> None:
    """Print name, parameters, multiply-accumulates and input of each model."""
    import timm
    import torch

    from pyg_avig.models import vig
    from pyg_avig.models.sizes import size_of

    row = "{:20}{:>12}{:>8}  {}"
    print(row.format("name", "parameters", "GMACs", "input"))
    for name in timm.list_models("attentionvig_*") + ["sag_vit"]:
        parameters, macs, (channels, height, width) = size_of(name)
        image = f"images {channels} x {height} x {width}"
        print(row.format(name, f"{parameters / 1e6:.1f} M", f"{macs / 1e9:.2f}", image))
    for name in ("vig_tiny", "vig_small", "vig_base"):
        with torch.device("meta"):
            model = getattr(vig, name)(768, 1000)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(row.format(name, f"{parameters / 1e6:.1f} M", "", "graphs, 768 features a node"))
    print(
        "\nOf 1000 classes. Those of images: --model.name NAME, or timm.create_model(NAME) behind "
        "`import pyg_avig.models`.\nThose of graphs: pyg_avig.models, and ViG of any size by "
        "--model.model_args."
    )
