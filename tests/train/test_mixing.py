import copy

import numpy as np
import pytest
import torch
from timm.data import Mixup
from torch_geometric.data import Batch
from train.runs import options

from pyg_avig import InputError
from pyg_avig.graphs import graph_images
from pyg_avig.train.cli import main
from pyg_avig.train.mixing import mix
from pyg_avig.transforms import ImageToGraph


def graphs(number, patch_size=1):
    transform = ImageToGraph(patch_size, edges=False)
    return Batch.from_data_list([transform((torch.rand(3, 8, 12), n % 3)) for n in range(number)])


@pytest.mark.parametrize("patch_size", [1, 2, 4])
@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_graphs_are_mixed_as_timm_mixes_images(patch_size, alphas):
    batch = graphs(4, patch_size)
    images, classes = graph_images(copy.copy(batch)).clone(), batch.y
    mixup = Mixup(*alphas, num_classes=3)
    np.random.seed(3)  # noqa: NPY002 (timm draws from it)
    expected, targets = mixup(images.contiguous(), classes)
    np.random.seed(3)  # noqa: NPY002
    mixed = mix(batch, mixup)
    assert torch.allclose(graph_images(mixed), expected)
    assert torch.equal(mixed.y, targets)
    assert mixed.num_graphs == 4


def test_an_odd_number_of_images_is_refused():
    with pytest.raises(InputError, match="even number of images .got 3"):
        mix(graphs(3), Mixup(num_classes=3))


def test_training_refuses_odd_batches_before_it_begins(tmp_path, capsys):
    more = ["--model.mixup={mixup_alpha: 0.8}", "--data.init_args.batch_size=7"]
    assert main(["fit", *options(tmp_path / "runs", *more)]) == 2
    assert "expected an even batch on each device" in capsys.readouterr().err
    assert not list((tmp_path / "runs").rglob("version_*"))
