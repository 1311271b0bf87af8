import subprocess
import sys

import pytest
import torch
from torch_geometric.data import Data

from pyg_avig import InputError
from pyg_avig.models import load_exported_vig
from pyg_avig.models.exported import NEEDED_OF_GRAPHS, read_description, vig_for
from pyg_avig.train.export import write_export

FACTS = {
    "level": "node",
    "task": "multiclass",
    "in_channels": 4,
    "out_channels": 3,
    "edge_dim": None,
    "pos_dim": None,
    "classes": ["a", "b", "c"],
}
DESCRIPTION = {"facts": FACTS, "model_args": {"channels": 8, "num_blocks": 1}}


def graph():
    return Data(x=torch.randn(5, 4), edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]))


@pytest.fixture
def exported(tmp_path):
    model = vig_for(**DESCRIPTION).eval()
    write_export(tmp_path / "model.safetensors", model.state_dict(), DESCRIPTION)
    return model, tmp_path / "model.safetensors"


def test_a_model_of_graphs_is_what_was_exported(exported):
    model, path = exported
    found, data = load_exported_vig(path), graph()
    assert not found.training
    assert torch.equal(found(data), model(data))
    assert read_description(path, NEEDED_OF_GRAPHS) == DESCRIPTION


def test_it_is_read_without_lightning(exported):
    program = f"""
import sys
for name in ("pytorch_lightning", "torchmetrics", "jsonargparse"):
    sys.modules[name] = None
import torch
from torch_geometric.data import Data
from pyg_avig.models import load_exported_vig
model = load_exported_vig({str(exported[1])!r})
print(tuple(model(Data(x=torch.zeros(2, 4), edge_index=torch.zeros(2, 1, dtype=torch.long))).shape))
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True
    )
    assert run.stdout == "(2, 3)\n", run.stderr


def test_other_models_are_refused(exported, tmp_path):
    model, path = exported
    with pytest.raises(InputError, match="`pyg-avig export` wrote"):
        read_description(path)  # Of images.
    wider = {**DESCRIPTION, "model_args": {"channels": 16, "num_blocks": 1}}
    write_export(path, model.state_dict(), wider)
    with pytest.raises(InputError, match="expected the weights of ViG"):
        load_exported_vig(path)
