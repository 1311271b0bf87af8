from pathlib import Path

import pytest
import torch
from nn.pyg_contract import LAYERS, ROWS, available, maker, table

SPARSE = "needs torch-scatter and torch-sparse: `make test-sparse` builds them"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Sparse (CS[CR] tensor support|invariant checks):UserWarning")
@pytest.mark.parametrize("name", ROWS)
def test_cross_attn_conv_keeps_the_row(name):
    if not available(name):
        pytest.skip(SPARSE)
    torch.manual_seed(0)
    ROWS[name][1](maker(LAYERS[0]))


@pytest.mark.slow
def test_the_table_in_the_docs_is_what_the_layers_do():
    documented = Path("docs/pyg_contract.md").read_text().splitlines()
    assert [line for line in table() if line not in documented] == []
