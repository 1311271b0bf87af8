import pytest
import torch
from hypothesis import settings
from torch_geometric.typing import WITH_TORCH_SPARSE

# Two test processes share two cores; hypothesis need not race a busy machine.
torch.set_num_threads(1)
settings.register_profile("pyg_avig", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("pyg_avig")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pytest_collection_modifyitems(items):
    if WITH_TORCH_SPARSE:
        return
    reason = "needs torch-scatter and torch-sparse: `make test-sparse` builds them"
    for item in items:
        if item.get_closest_marker("sparse"):
            item.add_marker(pytest.mark.skip(reason=reason))
