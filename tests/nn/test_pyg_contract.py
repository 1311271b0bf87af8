from pathlib import Path

import pytest
import torch
import torch_geometric
from nn.pyg_contract import LAYERS, OPTIONS, ROWS, maker, table


def rows(but=()):
    return [
        pytest.param(name, marks=pytest.mark.sparse if needs else ())
        for name, (_, _, needs) in ROWS.items()
        if name not in but
    ]


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("name", rows())
def test_cross_attn_conv_keeps_the_row(name):
    torch.manual_seed(0)
    ROWS[name][1](maker(LAYERS[0]))


@pytest.mark.parametrize(
    ("option", "name"),
    [
        pytest.param(option, *row.values, marks=row.marks)
        for option, (_, others) in OPTIONS.items()
        for row in rows(others)
    ],
)
def test_and_with_its_options(option, name):
    torch.manual_seed(0)
    ROWS[name][1](maker(LAYERS[0], **OPTIONS[option][0]))


def by_row(lines):
    cells = {line.split("|")[2].strip(): line for line in lines if line.startswith("| ")}
    return {name.strip("`"): line for name, line in cells.items() if name.startswith("`")}


@pytest.mark.slow
def test_the_table_in_the_docs_is_what_the_layers_do():
    page = Path("docs/pyg_contract.md").read_text().splitlines()
    documented = by_row(page)
    versions = f"torch {torch.__version__.split('+')[0]}, PyG {torch_geometric.__version__}"
    if versions in "\n".join(page):
        found = by_row(table())
        assert {name: documented[name] for name in found} == found
    # Other versions of the peers may do better or worse; ours keeps every row, and no row of the
    # page is without its test.
    assert set(documented) == set(ROWS)
    assert all(line.split("|")[3].strip() == "yes" for line in documented.values())
