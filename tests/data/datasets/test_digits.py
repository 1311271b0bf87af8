import torch

from pyg_avig.data import Digits


def test_splits_are_disjoint_stratified_and_complete():
    digits = Digits()
    digits.setup()
    sizes = {name: len(images) for name, images in digits.splits.items()}
    assert sizes == {"train": 1293, "val": 144, "test": 360}
    again = Digits()
    again.setup()
    assert (again.splits["test"].labels == digits.splits["test"].labels).all()
    counts = torch.tensor(digits.splits["test"].labels).bincount()
    assert counts.min() >= 34
    # Hardly any two of the scans are equal, so shared pictures would betray an overlap.
    pictures = {name: {p.tobytes() for p in s.pixels} for name, s in digits.splits.items()}
    assert len(pictures["test"] & pictures["train"]) == 0
    assert len(pictures["test"] & pictures["val"]) == 0


def test_batches_are_graphs():
    digits = Digits(batch_size=16, limit=20)
    digits.setup()
    batch = next(iter(digits.train_dataloader()))
    assert batch.num_graphs == 16
    assert batch.x.shape == (16 * 32 * 32, 1)
    assert "edge_index" not in batch
    assert [len(loader) for loader in (digits.val_dataloader(), digits.test_dataloader())] == [2, 2]


def test_evaluation_is_deterministic_and_training_is_not():
    digits = Digits(limit=4)
    digits.setup()
    assert torch.equal(*(next(iter(digits.test_dataloader())).x for _ in range(2)))
    loader = digits.train_dataloader()
    first, again = (next(iter(loader)).x for _ in range(2))
    assert torch.equal(first, again)  # Of the same epoch.
    loader.sampler.set_epoch(1)
    assert not torch.equal(first, next(iter(loader)).x)
