import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from pyg_avig import InputError
from pyg_avig.data.loading.scenes import SemanticDataModule


class Pixels(SemanticDataModule):
    """Images of growing width, whose pixels and labels are their index."""

    def setup(self, stage=None):
        self.splits = {
            split: [
                (
                    tv_tensors.Image(torch.full((3, 8, 8 + n), n, dtype=torch.uint8)),
                    tv_tensors.Mask(torch.full((8, 8 + n), n, dtype=torch.uint8)),
                )
                for n in range(5)
            ]
            for split in ("train", "val", "test")
        }


def module(**args):
    data = Pixels(**args)
    data.setup()
    return data


def test_batches_are_lists_of_any_sizes():
    (images, labels), *_ = module(batch_size=2, eval_batch_size=3).val_dataloader()
    assert [tuple(image.shape) for image in images] == [(3, 8, 8), (3, 8, 9), (3, 8, 10)]
    assert [one.unique().tolist() for one in labels] == [[0], [1], [2]]
    assert all(type(tensor) is torch.Tensor for tensor in (*images, *labels))
    assert images[2].dtype == torch.float32
    assert torch.allclose(images[2], torch.tensor(2 / 255))


def test_evaluation_takes_images_one_by_one_and_no_augmentation():
    data = module(batch_size=2, augmentation=[v2.RandomCrop((4, 4))])
    assert [images[0].shape[2] for images, _ in data.test_dataloader()] == [8, 9, 10, 11, 12]
    shapes = {tuple(image.shape) for images, _ in data.train_dataloader() for image in images}
    assert shapes == {(3, 4, 4)}


@pytest.mark.parametrize("name", ["batch_size", "eval_batch_size"])
def test_batches_have_images(name):
    with pytest.raises(InputError, match=f"{name} must be at least 1 .got 0"):
        module(**{name: 0}).train_dataloader()
