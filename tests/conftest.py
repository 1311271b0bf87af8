import os

import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from torch_geometric.data import Dataset
from torch_geometric.typing import WITH_TORCH_SPARSE

# Two test processes share two cores; hypothesis need not race a busy machine.
torch.set_num_threads(1)
settings.register_profile("pyg_avig", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("pyg_avig")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """A cache of this session's own, which its processes share: one prepares a data set for all."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    lock, prepare = FileLock(folder / "cache.lock"), Dataset._process

    def alone(dataset):
        with lock:
            prepare(dataset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(Dataset, "_process", alone)
        yield


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
