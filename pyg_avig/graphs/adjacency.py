"""Every way in which PyG writes an adjacency, as one edge list."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import degree, is_torch_sparse_tensor, lexsort, to_edge_index
from torch_geometric.utils.sparse import index2ptr

from pyg_avig.errors import InputError
from pyg_avig.graphs.axial_graph import AxialGraph

Adjacency: TypeAlias = Tensor | SparseTensor | AxialGraph
"""An edge list (2, E), source to target, of any integer dtype; an ``EdgeIndex``; a
transposed adjacency matrix (N_target, N_source) as a torch.sparse tensor (COO, CSR, CSC) or
a ``torch_sparse.SparseTensor``; an :class:`AxialGraph`."""


class EdgeList(NamedTuple):
    """The edges of an adjacency, in its own order."""

    edge_index: Tensor
    """(2, E), int64, source to target."""
    value: Tensor | None
    """The values of a sparse matrix, (E, ...)."""


def is_sparse_matrix(adjacency: Adjacency) -> bool:
    """Whether the adjacency is a matrix (whose rows are the targets)."""
    return isinstance(adjacency, SparseTensor) or is_torch_sparse_tensor(adjacency)


def to_edge_list(adjacency: Adjacency) -> EdgeList:
    """The edges of any adjacency, on its own device.

    Raises:
        InputError: If it is none of :data:`Adjacency`.
    """
    if isinstance(adjacency, AxialGraph):
        return EdgeList(adjacency.edge_index, None)
    if is_sparse_matrix(adjacency):
        if getattr(adjacency, "layout", None) == torch.sparse_coo and not adjacency.is_coalesced():
            raise InputError("expected a coalesced sparse matrix (call coalesce() first)")
        edge_index, value = to_edge_index(adjacency)
        if isinstance(adjacency, SparseTensor) and not adjacency.has_value():
            value = None
        return EdgeList(edge_index.flip(0), value)
    edge_index = _checked_tensor(adjacency)
    if isinstance(edge_index, EdgeIndex):
        edge_index = edge_index.as_tensor()
    return EdgeList(edge_index.long(), None)


def num_edges(adjacency: Adjacency) -> int:
    """The number of edges of any adjacency.

    Raises:
        InputError: If it is none of :data:`Adjacency`.
    """
    if isinstance(adjacency, AxialGraph):
        return adjacency.num_edges
    if isinstance(adjacency, SparseTensor):
        return adjacency.nnz()
    if is_sparse_matrix(adjacency):
        return adjacency._nnz()
    return _checked_tensor(adjacency).size(1)


def _checked_tensor(adjacency: Any) -> Tensor:
    """An edge list as it is, of whatever integer dtype."""
    if not isinstance(adjacency, Tensor) or adjacency.dim() != 2 or adjacency.size(0) != 2:
        shape = f" of shape {tuple(adjacency.shape)}" if isinstance(adjacency, Tensor) else ""
        raise InputError(
            "expected edge_index as an integer tensor of shape (2, E), a sparse matrix or an "
            f"AxialGraph (got {type(adjacency).__name__}{shape})"
        )
    if adjacency.is_floating_point() or adjacency.dtype == torch.bool or adjacency.is_complex():
        raise InputError(f"expected edge_index of an integer dtype (got {adjacency.dtype})")
    return adjacency


def with_value(adjacency: Any, value: Tensor) -> Any:
    """A sparse matrix with the edges of ``adjacency`` and new values (E, ...)."""
    if isinstance(adjacency, SparseTensor):
        return adjacency.set_value(value, layout="coo")
    shape = (*adjacency.shape[:2], *value.shape[1:])
    if adjacency.layout == torch.sparse_coo:
        indices = adjacency.indices()
        return torch.sparse_coo_tensor(
            indices, value, shape, is_coalesced=True, check_invariants=False
        )
    if adjacency.layout == torch.sparse_csr:
        parts = adjacency.crow_indices(), adjacency.col_indices()
        return torch.sparse_csr_tensor(*parts, value, shape, check_invariants=False)
    parts = adjacency.ccol_indices(), adjacency.row_indices()
    return torch.sparse_csc_tensor(*parts, value, shape, check_invariants=False)


def matrix_like(adjacency: Any, edge_index: Tensor, value: Tensor) -> tuple[Any, Tensor]:
    """A sparse matrix of the kind and size of another with other edges.

    Args:
        adjacency: The other.
        edge_index: The edges, (2, E), source to target, none twice, in any order.
        value: Their values, (E, ...).

    Returns:
        The matrix, and the values in its own order.
    """
    source, target = edge_index
    by_source = getattr(adjacency, "layout", None) == torch.sparse_csc
    order = lexsort([target, source] if by_source else [source, target])
    source, target, value = source[order], target[order], value[order]
    if isinstance(adjacency, SparseTensor):
        sizes = adjacency.sparse_sizes()
        matrix = SparseTensor(row=target, col=source, sparse_sizes=sizes, is_sorted=True)
        return matrix.set_value(value, layout="coo"), value
    num_targets, num_sources = adjacency.shape[:2]
    shape = (num_targets, num_sources, *value.shape[1:])
    if adjacency.layout == torch.sparse_coo:
        indices = torch.stack([target, source])
        matrix = torch.sparse_coo_tensor(
            indices, value, shape, is_coalesced=True, check_invariants=False
        )
        return matrix, value
    if by_source:
        pointer = index2ptr(source, num_sources)
        return torch.sparse_csc_tensor(pointer, target, value, shape, check_invariants=False), value
    pointer = index2ptr(target, num_targets)
    return torch.sparse_csr_tensor(pointer, source, value, shape, check_invariants=False), value


def neighbor_counts(adjacency: Adjacency, num_nodes: int, row: int, like: Tensor) -> Tensor:
    """How many edges name each node in ``row``, at least 1, (N,), or () where all have as many."""
    if isinstance(adjacency, AxialGraph):
        return adjacency.neighbor_counts(like)
    # Counted in single precision: a half-precision count stops growing.
    counts = degree(to_edge_list(adjacency).edge_index[row], num_nodes, torch.float32)
    return counts.clamp(min=1).to(like.dtype)


def disjoint_copies(edge_index: Tensor, copies: int, sizes: tuple[int, int]) -> Tensor:
    """The edges of so many copies of a graph, whose rows speak of so many nodes each."""
    numbers = torch.arange(copies, device=edge_index.device).view(-1, 1)
    rows = [(row + numbers * size).flatten() for row, size in zip(edge_index, sizes, strict=True)]
    return torch.stack(rows)


def check_size(adjacency: Adjacency, num_first: int, num_second: int) -> None:
    """Refuse an adjacency that knows of another number of nodes than there are features.

    Args:
        adjacency: Any.
        num_first: Number of nodes that the first row of its edge list speaks of: the sources,
            as edges go from source to target.
        num_second: Number of nodes that the second row speaks of.

    Raises:
        InputError: With both sizes.
    """
    if isinstance(adjacency, AxialGraph):
        for number in (num_first, num_second):
            if number != adjacency.num_nodes:
                raise InputError(
                    f"expected features of {adjacency.num_nodes} nodes, as {adjacency} has "
                    f"(got {number})"
                )
    elif is_sparse_matrix(adjacency):
        size = (adjacency.size(0), adjacency.size(1))
        if size != (num_second, num_first):
            raise InputError(
                f"expected a matrix of shape {(num_second, num_first)}, targets by sources "
                f"(got {size}; is it to be transposed?)"
            )
    elif isinstance(adjacency, EdgeIndex):
        for known, number in zip(adjacency.sparse_size(), (num_first, num_second), strict=True):
            if known not in (None, number):
                raise InputError(
                    f"expected an EdgeIndex of sparse_size {(num_first, num_second)} "
                    f"(got {tuple(adjacency.sparse_size())})"
                )


def checked_edge_list(
    adjacency: Adjacency, num_first: int, num_second: int, device: torch.device
) -> EdgeList:
    """:func:`to_edge_list`, held to :func:`check_edges`; a lattice's edges come to ``device``."""
    edges = to_edge_list(adjacency)
    if isinstance(adjacency, AxialGraph):  # It is implicit, so its edges go where they are needed.
        edges = EdgeList(edges.edge_index.to(device), None)
    check_edges(edges.edge_index, num_first, num_second, device)
    return edges


def is_recorded() -> bool:
    """Whether operations are recorded: to be compiled, exported, traced or linearized."""
    modes = torch._C._TorchDispatchModeKey  # Those of make_fx and fake tensors; no public name.
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or any(map(torch._C._get_dispatch_mode, (modes.PROXY, modes.FAKE)))
    )


def is_compiled() -> bool:
    """Whether ``torch.compile`` records, for this machine and its kernels."""
    return torch.compiler.is_compiling() and not torch.compiler.is_exporting()


def is_mapped(adjacency: Adjacency) -> bool:
    """Whether ``torch.func.vmap`` maps over the edges, so that their values are several."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # No public name either.
    return isinstance(adjacency, Tensor) and wrapped(adjacency)


def check_edges(
    edge_index: Tensor, num_sources: int, num_targets: int, device: torch.device
) -> None:
    """Refuse an edge list (2, E) that names nodes which are not there.

    Raises:
        InputError: If it lies on another device than the features.
        IndexError: With the valid range.
    """
    if edge_index.device != device:
        raise InputError(
            f"expected edges and features on one device (got {edge_index.device} and {device})"
        )
    # Looking at the values would break a compiled graph and stall an accelerator.
    if not (is_recorded() or is_mapped(edge_index) or edge_index.device.type != "cpu"):
        check_range(edge_index, num_sources, num_targets)


def check_range(edge_index: Tensor, num_sources: int, num_targets: int) -> None:
    """The part of :func:`check_edges` that looks at the values, on any device.

    Raises:
        IndexError: With the valid range.
    """
    if edge_index.numel() == 0:
        return
    for row, name, limit in ((0, "source", num_sources), (1, "target", num_targets)):
        low, high = torch.stack(edge_index[row].aminmax()).tolist()
        if low < 0 or high >= limit:
            raise IndexError(
                f"edge_index[{row}] must lie in the interval [0, {limit}), the {name} nodes "
                f"(got values from {low} to {high})"
            )
