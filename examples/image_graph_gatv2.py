"""Any PyG layer on an image graph: GATv2Conv, then CrossAttnConv in its place.

python examples/image_graph_gatv2.py
"""

import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch_geometric.nn import GATv2Conv, Sequential, global_mean_pool

from pyg_avig import CrossAttnConv
from pyg_avig.transforms import ImageToGraph


def main() -> dict[str, torch.Tensor]:
    """Embed a photo with either layer."""
    photo = Image.fromarray(load_sample_images().images[0])
    photo = photo.crop((0, 0, 640, 416))  # A whole number of patches.
    graph = ImageToGraph(patch_size=16, stride=4)((photo, 0))
    print(graph)

    out = {}
    for layer in (GATv2Conv, CrossAttnConv):
        model = Sequential(
            "x, edge_index, batch",
            [
                (layer(graph.num_features, 32, heads=2), "x, edge_index -> x"),
                (layer(64, 32), "x, edge_index -> x"),
                (global_mean_pool, "x, batch -> x"),
            ],
        )
        out[layer.__name__] = model(graph.x, graph.edge_index, None)
        print(f"{layer.__name__}: {tuple(out[layer.__name__].shape)}")
    return out


if __name__ == "__main__":
    main()
