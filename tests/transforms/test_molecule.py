import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils.smiles import e_map, x_map

from pyg_avig import InputError
from pyg_avig.transforms import OneHotMolecule

MOLECULE = Data(  # Categories alone; the first is the atomic number.
    x=torch.tensor([[6, 0, 1, 5, 3, 0, 4, 0, 0], [8, 0, 1, 5, 1, 0, 4, 0, 1]]),
    edge_attr=torch.tensor([[1, 0, 0], [1, 0, 0]]),
    edge_index=torch.tensor([[0, 1], [1, 0]]),
)


def test_a_column_for_every_value():
    out = OneHotMolecule()(MOLECULE)
    assert out.x.shape == (2, sum(map(len, x_map.values())))
    assert out.edge_attr.shape == (2, sum(map(len, e_map.values())))
    assert (out.x.sum(1) == 9).all()
    assert out.x[:, [6, 8]].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    starts = torch.tensor([len(words) for words in x_map.values()]).cumsum(0)[:-1]
    back = [part.argmax(1) for part in out.x.tensor_split(starts, 1)]
    assert torch.equal(torch.stack(back, 1), MOLECULE.x)


def test_a_lone_atom_has_no_bonds():
    out = OneHotMolecule()(Data(x=MOLECULE.x[:1], edge_attr=torch.empty(0, 3).long()))
    assert out.edge_attr.shape == (0, 30)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Data(x=torch.zeros(2, 3).long()), r"x with 9 columns .got \(2, 3\)"),
        (Data(x=MOLECULE.x), "edge_attr with 3 columns .got None"),
        (Data(x=torch.full((1, 9), 200)), "atomic_num in x below 119 .got 200"),
    ],
)
def test_bad_input_is_named(data, message):
    with pytest.raises(InputError, match=message):
        OneHotMolecule()(data)
