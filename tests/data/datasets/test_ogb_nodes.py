import sys

import pytest
import torch
from data.ogb import install_ogb
from data.online import ogbn_arxiv

from pyg_avig import InputError
from pyg_avig.data import GraphData, ogb_nodes


@pytest.fixture(params=["stand-in", "package"])
def _ogb(request, monkeypatch):
    if request.param == "package":
        pytest.importorskip("ogb")
    else:
        install_ogb(monkeypatch)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.usefixtures("_ogb")
def test_the_published_split_and_classes(tmp_path):
    ogbn_arxiv(tmp_path)
    for _ in range(2):  # The second time it is read as it was prepared.
        dataset = ogb_nodes("ogbn-arxiv", str(tmp_path))
        data = GraphData(dataset, level="node")
        assert data.facts["in_channels"] == 128
        assert data.facts["out_channels"] == 40
        (batch,) = data.loader("train")
        assert batch.train_mask.nonzero().flatten().tolist() == list(range(30))
        assert batch.val_mask.nonzero().flatten().tolist() == list(range(30, 40))
        assert torch.equal(batch.y.flatten(), torch.arange(50) % 40)
        assert torch.equal(batch.edge_index, torch.stack([torch.arange(1, 50), torch.arange(49)]))


@pytest.mark.usefixtures("_ogb")
def test_other_names_are_refused(tmp_path):
    with pytest.raises(InputError, match="a data set of OGB .Invalid dataset name ogbn-x"):
        ogb_nodes("ogbn-x", str(tmp_path))


def test_a_missing_package_is_named(monkeypatch):
    for name in ("ogb", "ogb.nodeproppred"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="ogbn-arxiv needs ogb.*: pip install 'pyg_avig.ogb.'"):
        ogb_nodes("ogbn-arxiv")
