"""Graphs of any PyG data set, split, transformed and batched for training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch_geometric.data import Data, Dataset, InMemoryDataset
from torch_geometric.loader import DataLoader
from torch_geometric.sampler import NeighborSampler
from torch_geometric.transforms import BaseTransform, Compose, RandomLinkSplit

from pyg_avig.data.loading.loaders import check_least, share_loader
from pyg_avig.data.loading.neighbors import Neighborhoods, Seeds, check_num_neighbors
from pyg_avig.data.loading.sampling import device_share, seeded
from pyg_avig.data.loading.splits import (
    SPLITS,
    check_seed_alone,
    graph_indices,
    node_masks,
    number_of,
    whole,
)
from pyg_avig.errors import InputError
from pyg_avig.graphs.adjacency import check_range, to_edge_list

LEVELS = ("graph", "node", "edge")
TASKS = ("multiclass", "multilabel", "regression")
MASKS = tuple(f"{name}_mask" for name in SPLITS)


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
            graph = self.transform(self.dataset[self.indices[place]])
        for name in MASKS:
            if isinstance(graph, Data) and isinstance(graph.get(name), Tensor):
                graph[name] = graph[name].bool()  # Ints would pick nodes 0 and 1.
        return graph


class GraphData(pl.LightningDataModule):
    """A data set of PyG, ours or any other, for training.

    Its splits are, in this order of preference: ``val_dataset`` and ``test_dataset``, for data sets
    that are published in parts; the masks that graphs of nodes carry; the three graphs of edges
    that ``RandomLinkSplit`` makes as a transform, drawn once; what the data set says by a
    method ``split``, by ``get_idx_split`` as OGB's do, or by ``split_idx``; random ones. What is
    published is kept, and if all but validation or test is, a tenth of the training part is drawn
    for it. (Of data sets in parts, there is no test without ``test_dataset``.) See ``splits.py``.

    With ``num_neighbors``, nodes of one graph that is too large for one update come in batches,
    each with neighbours that PyG's ``NeighborLoader`` samples; evaluation takes all neighbours of
    as many hops, so that its outputs are those of the whole graph if there is a hop for each layer.
    Each device gets its share of the nodes. Then ``transform`` is applied to the graph once, and
    ``augment`` to each batch.

    Args:
        dataset: The data set, with all graphs or those for training.
        val_dataset: Graphs for validation.
        test_dataset: Graphs for the test.
        split: Arguments of the data set's ``split``, such as ``seed`` or ``fold``; ``fold`` of
            masks of several; ``seed`` of what is drawn.
        level: What is labelled: ``graph``, ``node`` or ``edge``.
        task: ``multiclass``, ``multilabel`` or ``regression``.
        transform: What is done to each graph.
        augment: What is done before that in training.
        batch_size: Graphs, or with ``num_neighbors`` nodes, that one update sees, on all devices
            and in all accumulated batches.
        num_workers: Worker processes a loader.
        num_neighbors: How many neighbours of a node are sampled in each hop, -1 for all; needs
            pyg-lib or torch-sparse.

    Raises:
        InputError: If the data, their splits or an argument are not such; without graphs or nodes
            to train on.
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
        num_neighbors: list[int] | None = None,
    ) -> None:
        super().__init__()
        for name, value, known in (("level", level, LEVELS), ("task", task, TASKS)):
            if value not in known:
                raise InputError(f"{name} must be one of {', '.join(known)} (got {value!r})")
        self.level = level
        self.task = task
        self.transform = transform or []
        self.augment = augment or []
        self.batch_size = int(batch_size)  # NumPy's too, which PyTorch's loaders refuse.
        self.num_workers = int(num_workers)
        check_least(self, batch_size=1, num_workers=0)
        self.num_neighbors = None if num_neighbors is None else check_num_neighbors(num_neighbors)
        if self.num_neighbors is not None and level != "node":
            raise InputError(f"expected level node for num_neighbors (got {level})")
        self.parts = self._parts(dataset, val_dataset, test_dataset, split or {})
        self.facts = self._facts()
        self._large: dict[tuple[int, int], tuple[Data, NeighborSampler]] = {}

    def _parts(
        self, dataset: Dataset, val: Dataset | None, test: Dataset | None, split: dict[str, Any]
    ) -> dict[str, tuple[Dataset, list[int]]]:
        """The graphs of each split."""
        if len(dataset) and isinstance(dataset[0], (tuple, list)) and self.level != "edge":
            raise InputError(
                f"expected level edge for the graphs that RandomLinkSplit makes (got {self.level})"
            )
        if val is None and test is None:
            if self.level == "node" and (masks := node_masks(dataset, split)) is not None:
                marked: Any = _Marked(dataset, masks)
                return {
                    name: (
                        marked,
                        [n for n, mask in enumerate(masks) if mask[f"{name}_mask"].any()],
                    )
                    for name in SPLITS
                }
            if self.level == "edge":
                places = [n for n, t in enumerate(self.transform) if isinstance(t, RandomLinkSplit)]
                if places or isinstance(dataset[0], (tuple, list)):
                    last = places[-1] + 1 if places else 0
                    once, self.transform = self.transform[:last], self.transform[last:]
                    return _link_parts(dataset, once, split)
            indices = graph_indices(dataset, split)
            return {name: (dataset, indices[name].tolist()) for name in SPLITS}
        parts: dict[str, tuple[Dataset, list[int]]] = dict.fromkeys(SPLITS, (dataset, []))
        parts["train"] = dataset, list(range(len(dataset)))
        if val is None:
            check_seed_alone(split)
            drawn = whole({"test": torch.empty(0)}, len(dataset), split)
            parts["val"] = dataset, drawn["val"].tolist()
            parts["train"] = dataset, drawn["train"].sort()[0].tolist()
        for name, part in (("val", val), ("test", test)):
            if part is not None:
                parts[name] = part, list(range(len(part)))
        return parts

    def _facts(self) -> dict[str, Any]:
        """See :attr:`facts`."""
        dataset, indices = self.parts["train"]
        if not indices:
            whose = dataset.dataset if isinstance(dataset, _Marked) else dataset
            hint = "; RandomLinkSplit as a transform makes edges of one" * (self.level == "edge")
            raise InputError(f"expected graphs or nodes to train on (got none in {whose}){hint}")
        for name in SPLITS if self.num_neighbors else ():
            if len(self.parts[name][1]) > 1:
                raise InputError(
                    f"expected one graph for num_neighbors (got {len(self.parts[name][1])} in "
                    f"{name!r}); several come in batches of whole graphs without it"
                )
        sample = self._sample()
        y = self._labels("train", sample)
        classes = getattr(dataset, "classes", None)
        outputs, shares = y.size(1), None
        if self.task == "multiclass":
            if y.isnan().any():
                raise InputError(f"expected a class for each {self.level} (got NaN); see `task`")
            outputs = len(classes) if classes else self._num_classes(sample)
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

    def _sample(self) -> Data:
        """A training graph, held to what a model takes."""
        dataset, indices = self.parts["train"]
        sample = self.items("train")[0]
        for graph in (sample, self.items("train", training=True)[0]):
            if not isinstance(graph, Data):
                raise InputError(
                    "expected transforms that give one graph of one kind of nodes (got "
                    f"{type(graph).__name__}); RandomLinkSplit is a transform for level edge"
                )
            other = _other_mask(dataset[indices[0]], graph)
            if other:
                raise InputError(
                    f"expected transforms that leave the split alone (got another {other} from "
                    "them); RandomNodeSplit is a transform of the data set"
                )
        if sample.x is None or not sample.x.is_floating_point():
            kind = None if sample.x is None else sample.x.dtype
            raise InputError(
                f"expected graphs with node features x of a floating dtype (got {kind}); a "
                "transform can make them, such as OneHotMolecule of a molecule's categories, or "
                "x.float() of numbers before they are saved"
            )
        if sample.x.dim() != 2:
            raise InputError(
                f"expected node features x of shape (N, C) (got {tuple(sample.x.shape)})"
            )
        return sample

    def _num_classes(self, sample: Data) -> int:
        """The number of classes of all splits, where the data set does not name them."""
        if self.level == "edge":  # PyG counts those of the nodes or graphs.
            known = [self._labels(name, sample) for name in SPLITS if self.parts[name][1]]
            return int(torch.cat(known).max()) + 1
        parts = {id(part): part for part, _ in self.parts.values()}
        return max(int(_untransformed(part, "y").num_classes) for part in parts.values())

    def _labels(self, split: str, sample: Data) -> Tensor:
        """The targets of a split, (number, outputs)."""
        field = "edge_label" if self.level == "edge" else "y"
        if sample.get(field) is None:
            raise InputError(f"expected graphs with the field {field} (got {sample})")
        if self.level == "node" and sample.y.shape[:1] != (sample.num_nodes,):
            raise InputError(
                f"expected labels y of {sample.num_nodes} nodes (got {tuple(sample.y.shape)})"
            )
        dataset, indices = self.parts[split]
        graphs: Any = (dataset[n] for n in indices)
        plain, made = dataset[indices[0]].get(field), sample[field]
        if plain is None or (plain.shape, plain.dtype) != (made.shape, made.dtype):
            graphs = self.items(split)  # A transform makes them.
        elif self.level != "node" or dataset[indices[0]].get(f"{split}_mask") is None:
            bare = _untransformed(dataset, field)
            stored = _stored_labels(bare, indices, field, graphs=self.level == "graph")
            if stored is not None:
                return stored.float()
        labels = []
        for graph in graphs:
            label = graph[field]
            if self.level == "node" and graph.get(f"{split}_mask") is not None:
                label = label[graph[f"{split}_mask"].bool()]
            labels.append(label.reshape(1 if self.level == "graph" else len(label), -1))
        return torch.cat(labels).float()

    def items(self, split: str, training: bool = False) -> GraphItems:
        """The graphs of a split, augmented if ``training``."""
        return GraphItems(
            *self.parts[split], [*(self.augment if training else []), *self.transform]
        )

    def loader(self, split: str, training: bool = False) -> DataLoader | list:
        """The loader of this process's share of a split; an empty list without graphs."""
        size = device_share(self.batch_size, self.trainer)
        if not self.parts[split][1]:
            return []
        items: Any = self.items(split, training)
        collate, kind = None, "graph"
        if self.num_neighbors is not None:
            collate = self._neighborhoods(split, training, self.num_neighbors)
            items, kind = Seeds(len(collate.loader.dataset)), "node"
        rank = self.trainer.global_rank if self.trainer else 0
        world_size = self.trainer.world_size if self.trainer else 1
        if len(items) < world_size:
            hint = "; num_neighbors deals out the nodes of one" * (
                self.level == "node" and kind == "graph"
            )
            raise InputError(f"expected a {kind} a device (got {len(items)} in {split!r}){hint}")
        return share_loader(
            items, size, self.num_workers, rank, world_size, training, collate=collate
        )

    def _neighborhoods(self, split: str, training: bool, num_neighbors: list[int]) -> Neighborhoods:
        """The nodes of a split with their neighbours: some in training, all in evaluation."""
        dataset, (index,) = self.parts[split]
        key = id(dataset), index
        if key not in self._large:
            graph = copy.copy(self.items(split)[0])
            if graph.edge_index is not None:  # torch-sparse writes past its arrays on others.
                graph.edge_index = to_edge_list(graph.edge_index).edge_index
                check_range(graph.edge_index, graph.num_nodes or 0, graph.num_nodes or 0)
            self._large[key] = graph, NeighborSampler(graph, num_neighbors)
        graph, sampler = self._large[key]
        mask = graph.get(f"{split}_mask")
        every = torch.arange(graph.num_nodes or 0)
        plain = copy.copy(graph)
        for name in MASKS:  # A batch's first nodes are those of the split.
            plain.pop(name, None)
        return Neighborhoods(
            plain,
            every if mask is None else every[mask],
            sampler,
            num_neighbors if training else [-1] * len(num_neighbors),
            self.augment if training else [],
        )

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
    """A data set of graphs whose nodes belong to splits.

    Args:
        dataset: The data set.
        masks: Fields that say so for each graph, (N,) each.
    """

    def __init__(self, dataset: Any, masks: list[dict[str, Tensor]]) -> None:
        self.dataset = dataset
        # One graph, which may be large, goes through the data set's transform once.
        self.graphs: Any = _Copies([dataset[0]]) if len(masks) == 1 else dataset
        self.masks = masks
        self.classes = getattr(dataset, "classes", None)

    @property
    def num_classes(self) -> int:
        """The data set's."""
        return self.dataset.num_classes

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> Data:
        return copy.copy(self.graphs[index]).update(self.masks[index])


class _Copies(list):
    """Graphs, each given as a copy: transforms put new tensors in, and write in none."""

    def __getitem__(self, index: Any) -> Any:
        return copy.copy(super().__getitem__(index))


def _other_mask(before: Data, graph: Data) -> str | None:
    """A mask that transforms have changed, other than by choosing nodes."""
    for name in MASKS:
        if graph.get(name) is not None and graph.num_nodes == before.num_nodes:
            old = before.get(name)
            if old is None or not graph[name].equal(old.bool()):
                return name
    return None


def _link_parts(
    dataset: Any, transforms: Sequence[BaseTransform], split: dict[str, Any]
) -> dict[str, tuple[Any, list[int]]]:
    """The three graphs that ``RandomLinkSplit`` makes of each, the last of some transforms.

    Small graphs may have no edges for validation or test: they are left out there.
    """
    check_seed_alone(split)
    draw = Compose(list(transforms))
    with seeded(number_of("seed", split)):
        try:
            graphs = list(zip(*(draw(dataset[n]) for n in range(len(dataset))), strict=True))
        except ValueError as error:
            raise InputError(f"expected graphs that RandomLinkSplit can split ({error})") from None
    return {
        name: (_Copies(part), [n for n, graph in enumerate(part) if graph.edge_label_index.numel()])
        for name, part in zip(SPLITS, graphs, strict=True)
    }


def _untransformed(dataset: Any, field: str) -> Any:
    """A data set in memory without its transform, if that leaves the labels of graphs alone.

    It is taken to do so if it does in 64 of them, at random: to transform all would take long.
    """
    if not isinstance(dataset, InMemoryDataset) or dataset.transform is None:
        return dataset
    bare = copy.copy(dataset)
    bare.transform = None
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    for n in order[:64].tolist():
        before, after = bare[n].get(field), dataset[n].get(field)
        if not isinstance(before, Tensor) or not isinstance(after, Tensor):
            return dataset
        if before.dtype != after.dtype or before.shape != after.shape:
            return dataset
        if not before.nan_to_num().equal(after.nan_to_num()):
            return dataset
    return bare


def _stored_labels(dataset: Any, indices: Sequence[int], field: str, graphs: bool) -> Tensor | None:
    """The labels of graphs in memory, (number, outputs), without making the graphs.

    ``None`` for data sets that do more than PyG's ``InMemoryDataset`` when a graph is read.
    """
    plain = isinstance(dataset, InMemoryDataset) and type(dataset).get is InMemoryDataset.get
    if not plain or dataset.transform is not None or field not in (dataset.slices or {}):
        return None
    values, slices = dataset._data[field], torch.as_tensor(dataset.slices[field])
    if not isinstance(values, Tensor) or dataset._data.__cat_dim__(field, values) != 0:
        return None
    places = torch.as_tensor(list(dataset.indices()))[torch.as_tensor(indices)]
    first, sizes = slices[places], slices[places + 1] - slices[places]
    if graphs and len(sizes.unique()) != 1:
        return None
    ends = sizes.cumsum(0)
    rows = torch.arange(int(ends[-1])) + (first - ends + sizes).repeat_interleave(sizes)
    return values[rows].reshape(len(places) if graphs else len(rows), -1)
