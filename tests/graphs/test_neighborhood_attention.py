import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from pyg_avig import InputError
from pyg_avig.graphs import NeighborhoodAttentionEdges, NeighborhoodEdges


def window(place, length, kernel, dilation):
    """The window of a place, chosen among all windows: the one whose middle is nearest."""
    mates = list(range(place % dilation, length, dilation))
    if len(mates) <= kernel:
        return set(mates)
    starts = range(len(mates) - kernel + 1)
    middle = mates.index(place)
    start = min(starts, key=lambda s: abs(s + kernel // 2 - middle))
    return set(mates[start : start + kernel])


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=2).map(tuple),
    st.sampled_from([1, 3, 5]),
    st.integers(1, 3),
)
def test_windows_are_moved_inwards(size, kernel, dilation):
    places = list(itertools.product(*map(range, size)))
    expected = {
        (source, target)
        for source, a in enumerate(places)
        for target, b in enumerate(places)
        if source != target
        and all(
            p in window(q, length, kernel, dilation)
            for p, q, length in zip(a, b, size, strict=True)
        )
    }
    edges = NeighborhoodAttentionEdges(kernel, dilation).graph(Data(lattice_size=size))
    found = list(map(tuple, edges.T.tolist()))
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(("size", "dilation"), [((8, 9), 1), ((6, 7, 5), 1), ((11, 10), 2)])
def test_every_node_has_as_many_neighbours(size, dilation):
    edges = NeighborhoodAttentionEdges(5, dilation).graph(Data(lattice_size=size))
    assert (edges[1].bincount() == 5 ** len(size) - 1).all()


def test_inside_it_is_the_neighbourhood_of_a_convolution():
    data = Data(lattice_size=(9, 9))
    moved = NeighborhoodAttentionEdges(3).graph(data)
    cropped = NeighborhoodEdges(3).graph(data)
    place = torch.cartesian_prod(torch.arange(9), torch.arange(9))
    inside = ((place > 0) & (place < 8)).all(1)
    sides = [set(map(tuple, edges[:, inside[edges[1]]].T.tolist())) for edges in (moved, cropped)]
    assert sides[0] == sides[1]
    assert moved.size(1) > cropped.size(1)


def test_bad_kernels():
    with pytest.raises(InputError, match="kernel must be odd .got 4"):
        NeighborhoodAttentionEdges(4)
    with pytest.raises(InputError, match="dilation must be a positive int .got 0"):
        NeighborhoodAttentionEdges(3, 0)
