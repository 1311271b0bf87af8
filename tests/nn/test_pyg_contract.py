from pathlib import Path

import pytest
import torch
import torch_geometric
from nn.pyg_contract import LAYERS, ROWS, maker, table


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Sparse (CS[CR] tensor support|invariant checks):UserWarning")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.sparse if needs else ())
        for name, (_, _, needs) in ROWS.items()
    ],
)
def test_cross_attn_conv_keeps_the_row(name):
    torch.manual_seed(0)
    ROWS[name][1](maker(LAYERS[0]))


@pytest.mark.slow
def test_the_table_in_the_docs_is_what_the_layers_do():
    page = Path("docs/pyg_contract.md").read_text()
    versions = f"torch {torch.__version__.split('+')[0]}, PyG {torch_geometric.__version__}"
    if versions not in page:
        pytest.skip(f"the page speaks of other versions than {versions}")
    documented = page.splitlines()
    assert [line for line in table() if line not in documented] == []
