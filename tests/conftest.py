import pytest
import torch
from hypothesis import settings

# Two test processes share two cores; hypothesis need not race a busy machine.
torch.set_num_threads(1)
settings.register_profile("pyg_avig", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("pyg_avig")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
