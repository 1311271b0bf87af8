from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from pyg_avig import InputError
from pyg_avig.data import Digits
from pyg_avig.data.loading.image_graphs import ArrayImages, ImageGraphs, eval_transform
from pyg_avig.graphs import graph_images

CONFIG = {
    "input_size": [1, 32, 32],
    "mean": [0.5],
    "std": [0.25],
    "interpolation": "bilinear",
    "crop_pct": 1.0,
}


def test_images_become_normalised_graphs_of_pixels():
    pixels = np.full((2, 8, 8), 255, dtype=np.uint8)
    graphs = ImageGraphs(ArrayImages(pixels, [3, 4]), eval_transform(CONFIG))
    assert len(graphs) == 2
    data = graphs[1]
    assert (data.y.item(), data.lattice_size, data.x.shape) == (4, (32, 32), (1024, 1))
    assert torch.allclose(graph_images(data), torch.full((1, 1, 32, 32), 2.0))


def test_an_image_that_becomes_nan_is_named():
    images = ArrayImages(np.zeros((3, 8, 8), dtype=np.uint8), [0, 0, 0])
    graphs = ImageGraphs(images, lambda image: torch.full((1, 8, 8), torch.nan))
    with pytest.raises(InputError, match="image 2: expected finite pixels"):
        graphs[2]


POLICIES = ["rand-m10-mstd0-n12-inc1", "original", "augmix-m10-mstd0-w1-d2"]


@pytest.mark.parametrize("policy", POLICIES)
def test_no_augmentation_keeps_no_bit_of_a_pixel(policy):
    """Which Pillow refuses from version 13 on."""
    data = Digits(augmentation={"auto_augment": policy})
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8))
    posterized = 0
    for step in data._transform(training=True).transforms:
        for op in chain(getattr(step, "ops", ()), *getattr(step, "policy", ())):
            if "Posterize" in op.name:
                op.prob, op.magnitude = 1, 10
                assert np.unique(op(image)).size > 1
                posterized += 1
    assert posterized
