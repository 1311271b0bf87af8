import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from pyg_avig import InputError
from pyg_avig.graphs import MobileGraphEdges


@given(st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple), st.integers(1, 8))
def test_neighbours_are_one_hop_away(size, hop):
    places = list(itertools.product(*map(range, size)))
    number = {place: n for n, place in enumerate(places)}
    expected = set()
    for place in places:
        for axis, length in enumerate(size):
            for way in (-hop, hop):
                other = list(place)
                other[axis] = (place[axis] + way) % length
                if hop < length:
                    expected.add((number[tuple(other)], number[place]))
    edges = MobileGraphEdges(hop).graph(Data(lattice_size=size))
    found = list(map(tuple, edges.T.tolist()))
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(("side", "hop"), [(28, 8), (14, 4), (7, 2)])
def test_four_neighbours_in_every_stage(side, hop):
    edges = MobileGraphEdges(hop).graph(Data(lattice_size=(side, side)))
    assert (edges[1].bincount() == 4).all()


@pytest.mark.parametrize("hop", [0, 1.5])
def test_bad_hops(hop):
    with pytest.raises(InputError, match="hop must be a positive int"):
        MobileGraphEdges(hop)
