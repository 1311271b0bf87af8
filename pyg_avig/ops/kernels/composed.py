"""The operators in PyTorch's own operations: readable, and what serves where a kernel fails.

They hold what the kernels never write: on a CSR matrix a row of features for each entry.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_avig.ops.kernels.schemas import weight_dtype


def axial_pairs(
    a: Tensor, b: Tensor, scales: list[Tensor], graphs: int, axes: list[int]
) -> list[Tensor]:
    """See :func:`pyg_avig.ops.kernels.axial_pairs`."""
    found = []
    for n in range(0, len(axes), 3):
        rows, columns = (_classes(x, graphs, axes[n : n + 3]) for x in (a, b))
        products = torch.einsum("pirc,pjrc->prij", rows, columns)
        if scales:
            ends = [_classes(x.unsqueeze(-1), graphs, axes[n : n + 3]).squeeze(-1) for x in scales]
            products = torch.einsum("prij,pir,pjr->prij", products, *ends).clamp(-1, 1)
        found.append(products.contiguous())
    return found


def axial_spread(
    x: Tensor, weights: list[Tensor], transpose: bool, graphs: int, axes: list[int]
) -> Tensor:
    """See :func:`pyg_avig.ops.kernels.axial_spread`."""
    total = x.new_zeros(x.shape, dtype=weight_dtype(x))
    equation = "prij,pirc->pjrc" if transpose else "prij,pjrc->pirc"
    for n, weight in enumerate(weights):
        rows = _classes(x, graphs, axes[3 * n : 3 * n + 3])
        total += torch.einsum(equation, weight, rows).reshape(x.shape)
    return total.to(x.dtype)


def _classes(x: Tensor, graphs: int, axis: list[int]) -> Tensor:
    """Rows as (graphs * before, members, inner, C), in at least single precision."""
    before, members, inner = axis
    return x.to(weight_dtype(x)).view(graphs * before, members, inner, x.size(-1))


def csr_pairs(
    pointer: Tensor, columns: Tensor, a: Tensor, b: Tensor, scales: list[Tensor]
) -> Tensor:
    """See :func:`pyg_avig.ops.kernels.csr_pairs`."""
    rows, wide = _rows(pointer, columns), weight_dtype(a)
    products = (a.to(wide)[rows] * b.to(wide)[columns]).sum(-1)
    if scales:
        products = (products * scales[0][rows] * scales[1][columns]).clamp(-1, 1)
    return products


def csr_spread(
    pointer: Tensor, columns: Tensor, order: Tensor | None, x: Tensor, weight: Tensor
) -> Tensor:
    """See :func:`pyg_avig.ops.kernels.csr_spread`."""
    weight = weight if order is None else weight[order]
    carried = weight.unsqueeze(-1) * x[columns]
    sums = carried.new_zeros(pointer.numel() - 1, *x.shape[1:])
    return sums.index_add(0, _rows(pointer, columns), carried).to(x.dtype)


def _rows(pointer: Tensor, columns: Tensor) -> Tensor:
    """The row of each entry."""
    rows = torch.arange(pointer.numel() - 1, device=pointer.device)
    return rows.repeat_interleave(pointer.diff(), output_size=columns.numel())
