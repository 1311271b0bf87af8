"""Graphs of any PyG data set, split, transformed and batched for training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch_geometric.data import Data, Dataset
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import BaseTransform, Compose

from pyg_avig.data.loading.loaders import check_least, share_loader
from pyg_avig.data.loading.sampling import device_share, seeded
from pyg_avig.errors import InputError

LEVELS = ("graph", "node", "edge")
TASKS = ("multiclass", "multilabel", "regression")
SPLITS = ("train", "val", "test")


class GraphItems(TorchDataset):
    """Some graphs of a data set, transformed.

    Args:
        dataset: The data set.
        indices: Which of its graphs.
        transforms: What is done to a graph, in this order.
    """

    def __init__(
        self, dataset: Dataset, indices: Sequence[int], transforms: Sequence[BaseTransform]
    ) -> None:
        self.dataset = dataset
        self.indices = indices
        self.transform = Compose(list(transforms))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int | tuple[int, int]) -> Data:
        """The graph at a place, by itself or as (place, seed of its augmentation)."""
        # Without a seed the place is one, so that an evaluation draws the same each time.
        place, seed = item if isinstance(item, tuple) else (item, item)
        with seeded(seed):
            return self.transform(self.dataset[self.indices[place]])


class GraphData(pl.LightningDataModule):
    """A data set of PyG, ours or any other, for training.

    Its splits are, in this order of preference: ``val_dataset`` and ``test_dataset``, for data sets
    that are published in parts; the masks that a graph of nodes carries; what the data set's own
    method ``split`` says; a tenth of the graphs each, at random. A tenth of the training graphs
    validates where nothing else does.

    Args:
        dataset: The data set, with all graphs or those for training.
        val_dataset: Graphs for validation.
        test_dataset: Graphs for the test.
        split: Arguments of the data set's ``split``, such as ``seed`` or ``fold``; of a random
            split ``seed`` alone.
        level: What is labelled: ``graph``, ``node`` or ``edge``.
        task: ``multiclass``, ``multilabel`` or ``regression``.
        transform: What is done to each graph.
        augment: What is done before that in training.
        batch_size: Graphs that one update sees, on all devices and in all accumulated batches.
        num_workers: Worker processes a loader.
    """

    facts: dict[str, Any]
    """What a model must know of the data: ``level`` and ``task``; ``in_channels``,
    ``out_channels``, ``edge_dim`` and ``pos_dim``, sizes or ``None``; the names of the ``classes``
    and their ``shares`` in training; ``mean`` and ``std`` of each target of a regression."""

    def __init__(
        self,
        dataset: Dataset,
        val_dataset: Dataset | None = None,
        test_dataset: Dataset | None = None,
        split: dict[str, Any] | None = None,
        level: str = "graph",
        task: str = "multiclass",
        transform: list[BaseTransform] | None = None,
        augment: list[BaseTransform] | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        for name, value, known in (("level", level, LEVELS), ("task", task, TASKS)):
            if value not in known:
                raise InputError(f"{name} must be one of {', '.join(known)} (got {value!r})")
        self.level = level
        self.task = task
        self.transform = transform or []
        self.augment = augment or []
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.parts = self._parts(dataset, val_dataset, test_dataset, split or {})
        self.facts = self._facts()

    def _parts(
        self, dataset: Dataset, val: Dataset | None, test: Dataset | None, split: dict[str, Any]
    ) -> dict[str, tuple[Dataset, list[int]]]:
        """The graphs of each split."""
        if val is None and test is None:
            if self.level == "node" and len(dataset) == 1:
                marked = _Marked(dataset, _masks(dataset, split))
                return dict.fromkeys(SPLITS, (marked, [0]))
            indices = _indices(dataset, len(dataset), split)
            return {name: (dataset, indices[name].tolist()) for name in SPLITS}
        parts: dict[str, tuple[Dataset, list[int]]] = dict.fromkeys(SPLITS, (dataset, []))
        parts["train"] = dataset, list(range(len(dataset)))
        if val is None:
            drawn = _random_split(len(dataset), split)
            parts["val"] = dataset, drawn["val"].tolist()
            parts["train"] = dataset, torch.cat([drawn["train"], drawn["test"]]).sort()[0].tolist()
        for name, part in (("val", val), ("test", test)):
            if part is not None:
                parts[name] = part, list(range(len(part)))
        return parts

    def _facts(self) -> dict[str, Any]:
        """See :attr:`facts`."""
        dataset, indices = self.parts["train"]
        if not indices:
            raise InputError(f"expected graphs to train on (got none in {dataset})")
        sample = self.items("train")[0]
        if sample.x is None or not sample.x.is_floating_point():
            kind = None if sample.x is None else sample.x.dtype
            raise InputError(
                f"expected graphs with node features x of a floating dtype (got {kind}); a "
                "transform can make them, such as OneHotMolecule of a molecule's categories"
            )
        y = self._labels(sample)
        classes = getattr(dataset, "classes", None)
        outputs, shares = y.size(1), None
        if self.task == "multiclass":
            known_classes = [int(part.num_classes) for part, _ in self.parts.values()]
            outputs = len(classes) if classes else max(known_classes)
            if y.size(1) != 1 or (y != y.round()).any() or not 0 <= y.min() <= y.max() < outputs:
                raise InputError(
                    f"expected one class in 0 to {outputs - 1} for each {self.level} (got "
                    f"{y.size(1)} of {y.min():g} to {y.max():g}); see `task`"
                )
            shares = (y.long().flatten().bincount(minlength=outputs) / len(y)).tolist()
        mean, std = [0.0], [1.0]
        if self.task == "regression":
            known = [column[~column.isnan()] for column in y.unbind(1)]
            mean = [float(column.mean()) for column in known]
            std = [float(column.std()) if len(column) > 1 else 0.0 for column in known]
        return {
            "level": self.level,
            "task": self.task,
            "in_channels": sample.x.size(1),
            "out_channels": outputs,
            "edge_dim": None if sample.edge_attr is None else sample.edge_attr.shape[1:].numel(),
            "pos_dim": None if sample.pos is None else sample.pos.size(1),
            "classes": None if classes is None else list(classes),
            "shares": shares,
            "mean": mean,
            "std": [s or 1.0 for s in std],
        }

    def _labels(self, sample: Data) -> Tensor:
        """The targets of training, (number, outputs)."""
        field = "edge_label" if self.level == "edge" else "y"
        if sample.get(field) is None:
            raise InputError(f"expected graphs with the field {field} (got {sample})")
        dataset, indices = self.parts["train"]
        graphs: Any = [dataset[n] for n in indices]
        plain, made = graphs[0].get(field), sample[field]
        if plain is None or (plain.shape, plain.dtype) != (made.shape, made.dtype):
            graphs = self.items("train")  # A transform makes them.
        labels = []
        for graph in graphs:
            label = graph[field]
            if self.level == "node" and graph.get("train_mask") is not None:
                label = label[graph.train_mask]
            labels.append(label.reshape(1 if self.level == "graph" else len(label), -1))
        return torch.cat(labels).float()

    def items(self, split: str, training: bool = False) -> GraphItems:
        """The graphs of a split, augmented if ``training``."""
        return GraphItems(
            *self.parts[split], [*(self.augment if training else []), *self.transform]
        )

    def loader(self, split: str, training: bool = False) -> DataLoader | list:
        """The loader of this process's share of a split; an empty list without graphs."""
        check_least(self, batch_size=1, num_workers=0)
        items, size = self.items(split, training), device_share(self.batch_size, self.trainer)
        if not len(items):
            return []
        rank = self.trainer.global_rank if self.trainer else 0
        world_size = self.trainer.world_size if self.trainer else 1
        if len(items) < world_size:
            raise InputError(f"expected a graph a device (got {len(items)} in {split!r})")
        return share_loader(items, size, self.num_workers, rank, world_size, training)

    def train_dataloader(self) -> Any:
        """Batches of augmented training graphs."""
        return self.loader("train", training=True)

    def val_dataloader(self) -> Any:
        """Batches of validation graphs."""
        return self.loader("val")

    def test_dataloader(self) -> Any:
        """Batches of test graphs."""
        return self.loader("test")


class _Marked:
    """A data set of one graph, whose nodes belong to splits.

    Args:
        dataset: The data set.
        masks: Fields that say so, (N,) each.
    """

    def __init__(self, dataset: Dataset, masks: dict[str, Tensor]) -> None:
        self.data = dataset[0]
        self.data.update(masks)
        self.classes = getattr(dataset, "classes", None)
        self.num_classes = dataset.num_classes

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Data:
        return copy.copy(
            self.data
        )  # As transforms copy: they put new tensors in, and write in none.


def _masks(dataset: Any, split: dict[str, Any]) -> dict[str, Tensor]:
    """The nodes of each split: what the graph says, or else what the data set says."""
    data = dataset[0]
    names = [f"{name}_mask" for name in SPLITS]
    if all(data.get(name) is not None for name in names):
        folds = 1 if data.train_mask.dim() == 1 else data.train_mask.size(1)
        fold = split.get("fold", 0)
        if split.keys() - {"fold"} or not 0 <= fold < folds:
            raise InputError(f"expected split as a fold in 0 to {folds - 1} (got {split})")
        masks = {name: data[name].reshape(data.num_nodes, -1) for name in names}
        return {name: mask[:, min(fold, mask.size(1) - 1)] for name, mask in masks.items()}
    indices = _indices(dataset, data.num_nodes, split)
    masks = {name: torch.zeros(data.num_nodes, dtype=torch.bool) for name in names}
    for name in SPLITS:
        masks[f"{name}_mask"][indices[name]] = True
    return masks


def _indices(dataset: Any, number: int, split: dict[str, Any]) -> dict[str, Tensor]:
    """What the data set's own ``split`` says, or a random split."""
    if not hasattr(dataset, "split"):
        return _random_split(number, split)
    try:
        return dataset.split(**split)
    except TypeError as error:
        name = type(dataset).__name__
        raise InputError(f"expected split as arguments of {name}.split ({error})") from None


def _random_split(number: int, split: dict[str, Any]) -> dict[str, Tensor]:
    """A tenth for validation, a tenth for the test."""
    if split.keys() - {"seed"}:
        raise InputError(
            f"expected seed alone as the argument of a random split (got {', '.join(split)})"
        )
    generator = torch.Generator().manual_seed(split.get("seed", 0))
    order = torch.randperm(number, generator=generator)
    tenth = max(number // 10, 1)
    return {"val": order[:tenth], "test": order[tenth : 2 * tenth], "train": order[2 * tenth :]}
