"""Which graphs, or which nodes of a graph, are for training, validation and test.

What is published is kept; what is missing is drawn from the training part alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import index_to_mask

from pyg_avig.data.loading.sampling import seeded
from pyg_avig.errors import InputError

SPLITS = ("train", "val", "test")
_NAMES = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}


def graph_indices(dataset: Any, split: dict[str, Any]) -> dict[str, Tensor]:
    """The graphs of each split: what the data set says, or else a random split.

    Args:
        dataset: A data set of PyG. It may say so by a method ``split``, as ours do, by
            ``get_idx_split``, as OGB's do, or by ``split_idx``, a mapping.
        split: Arguments of that method; ``seed`` is also that of what is drawn.

    Raises:
        InputError: If a graph is in two splits or is not there, or ``split`` has other arguments.
    """
    return whole(_said(dataset, split), len(dataset), split)


def node_masks(dataset: Any, split: dict[str, Any]) -> list[dict[str, Tensor]] | None:
    """The nodes of each split, as masks (N,) a graph; ``None`` where whole graphs are split.

    Args:
        dataset: A data set of PyG. Its graphs may say so by masks (of several folds, (N, F)) or
            indices: ``train_mask`` or ``train_idx`` and so on. One graph alone may leave it to the
            data set, see :func:`graph_indices`.
        split: ``fold`` of such masks, and ``seed`` of what is drawn; or arguments of the data set's
            own method.

    Raises:
        InputError: If a node is in two splits or is not there, some graphs alone have masks, or
            ``split`` has other arguments.
    """
    seed = number_of("seed", split)
    masks = []
    for n in range(len(dataset)):
        with seeded(seed):  # A transform of the data set may draw them.
            data = dataset[n]
        if not isinstance(data, Data):
            return None
        number, fields = int(data.num_nodes or 0), _fields(data)
        if fields:
            found = _of_fold(fields, number, split)
        elif len(dataset) == 1:
            found = _said(dataset, split)
        elif n == 0:
            return None
        else:
            raise InputError(f"expected masks in every graph, as in the first (got none in {n})")
        indices = whole(found, number, {"seed": seed + n})
        masks.append({f"{name}_mask": index_to_mask(indices[name], number) for name in SPLITS})
    return masks


def check_seed_alone(split: dict[str, Any]) -> None:
    """Refuse arguments that a random split has not."""
    if split.keys() - {"seed"}:
        raise InputError(
            f"expected seed alone as the argument of a random split (got {', '.join(split)})"
        )


def number_of(name: str, split: dict[str, Any]) -> int:
    """The fold or seed that a split asks for, 0 if it asks for none."""
    value = split.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise InputError(f"expected an int as {name} of split (got {value!r})")
    return int(value)


def whole(said: dict[str, Tensor], number: int, split: dict[str, Any]) -> dict[str, Tensor]:
    """Indices of all three splits, of which some may be missing.

    Without validation or test a tenth each of the training part is for it, at random. Without
    training all that is in neither is for it.

    Args:
        said: Indices or masks of those that there are.
        number: Number of graphs or nodes.
        split: ``seed`` of what is drawn.

    Raises:
        InputError: If one is in two splits, or is not there.
    """
    found = {name: _index(name, value, number) for name, value in said.items()}
    for one, other in combinations(found, 2):
        common = int(torch.isin(found[one].unique(), found[other]).sum())
        if common:
            raise InputError(f"expected splits without overlap (got {common} in {one} and {other})")
    rest = torch.ones(number, dtype=torch.bool)
    rest[torch.cat([torch.empty(0, dtype=torch.long), *found.values()])] = False
    train = found["train"] if "train" in found else rest.nonzero().view(-1)
    missing = [name for name in ("val", "test") if name not in found]
    if missing:
        generator = torch.Generator().manual_seed(number_of("seed", split))
        train = train[torch.randperm(len(train), generator=generator)]
        tenth = max(len(train) // 10, 1)
        for name in missing:
            found[name], train = train[:tenth], train[tenth:]
    return {**found, "train": train}


def _said(dataset: Any, split: dict[str, Any]) -> dict[str, Tensor]:
    """What a data set says of its splits, as it says it; nothing if it says nothing."""
    said: Any = getattr(dataset, "split_idx", None) or {}
    rest = split.keys() - {"seed"}
    for name, args in (("split", split), ("get_idx_split", {key: split[key] for key in rest})):
        method = getattr(dataset, name, None)
        if not callable(method):  # Some of PyG have a string of this name.
            continue
        try:
            said = method(**args)
        except TypeError as error:
            owner = f"{type(dataset).__name__}.{name}"
            raise InputError(f"expected split as arguments of {owner} ({error})") from None
        break
    else:
        check_seed_alone(split)
    if not isinstance(said, Mapping):
        raise InputError(f"expected splits as a mapping of indices (got {type(said).__name__})")
    return {
        name: torch.as_tensor(said[key])
        for name, keys in _NAMES.items()
        for key in keys
        if said.get(key) is not None
    }


def _fields(data: Data) -> dict[str, tuple[str, Tensor]]:
    """The field of a graph that says of each split which nodes are in it."""
    return {
        name: (f"{key}_{kind}", torch.as_tensor(data[f"{key}_{kind}"]))
        for name, keys in _NAMES.items()
        for key in reversed(keys)
        for kind in ("idx", "mask")  # The last one stays.
        if isinstance(data.get(f"{key}_{kind}"), (Tensor, np.ndarray))
    }


def _of_fold(
    fields: dict[str, tuple[str, Tensor]], number: int, split: dict[str, Any]
) -> dict[str, Tensor]:
    """The masks or indices of one fold."""
    masks = {}
    for name, (field, value) in fields.items():
        if field.endswith("mask"):
            if not value.ndim or len(value) != number or not ((value == 0) | (value == 1)).all():
                raise InputError(
                    f"expected {field} as {number} truth values (got {tuple(value.shape)}, "
                    f"{value.dtype})"
                )
            value = value.bool().reshape(number, -1)
        masks[name] = value
    folds = max([mask.size(1) for mask in masks.values() if mask.dim() == 2], default=1)
    fold = number_of("fold", split)
    known = {"fold"} if len(fields) == len(SPLITS) else {"fold", "seed"}
    if split.keys() - known or not 0 <= fold < folds:
        raise InputError(
            f"expected split as a fold in 0 to {folds - 1}"
            f"{' and a seed' if 'seed' in known else ''} (got {split})"
        )
    for name, mask in masks.items():
        if mask.dim() == 2 and mask.size(1) not in (1, folds):
            raise InputError(f"expected {folds} folds in each mask (got {mask.size(1)} of {name})")
    return {
        name: mask[:, min(fold, mask.size(1) - 1)] if mask.dim() == 2 else mask
        for name, mask in masks.items()
    }


def _index(name: str, value: Tensor, number: int) -> Tensor:
    """Indices (M,), from those or from a mask."""
    value = value.cpu()
    if value.dtype == torch.bool and value.shape == (number,):
        return value.nonzero().view(-1)
    whole = not value.is_floating_point() and value.dtype != torch.bool
    if value.numel() == 0:
        return torch.empty(0, dtype=torch.long)
    if value.dim() != 1 or not whole or value.min() < 0 or value.max() >= number:
        raise InputError(
            f"expected {name} as indices in 0 to {number - 1}, or a mask of {number} (got "
            f"{tuple(value.shape)}, {value.dtype}, from {value.min()} to {value.max()})"
        )
    return value.long()
