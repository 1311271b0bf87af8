import os
import shutil
import tempfile
from pathlib import Path

# Where kernels in Triton run, its interpreter runs them; it asks once, when it is imported.
os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch
from data.neighbors import sample_in_torch
from filelock import FileLock
from hypothesis import settings
from torch_geometric.data import Dataset
from torch_geometric.typing import WITH_TORCH_SPARSE

# Two test processes share two cores; hypothesis need not race a busy machine.
torch.set_num_threads(1)
settings.register_profile("pyg_avig", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("pyg_avig")


def pytest_configure(config):
    """Give the run a cache of its own, in which nobody has left anything, and the CPU alone."""
    if hasattr(config, "workerinput"):  # Of pytest-xdist; it has the first process's environment.
        return
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    cache = tempfile.mkdtemp(prefix="pyg_avig-tests-")
    config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))
    os.environ["XDG_CACHE_HOME"] = cache


@pytest.fixture(scope="session", autouse=True)
def _one_prepares():
    """One process prepares a data set in the cache, for all."""
    lock, prepare = FileLock(Path(os.environ["XDG_CACHE_HOME"], "tests.lock")), Dataset._process

    def alone(dataset):
        with lock:
            prepare(dataset)

    with pytest.MonkeyPatch.context() as patch:
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


@pytest.fixture(params=["stand-in", pytest.param("package", marks=pytest.mark.sparse)])
def neighbor_sampler(request, monkeypatch):
    """What PyG samples neighbours with: a stand-in that every machine has, and the package."""
    if request.param == "stand-in":
        sample_in_torch(monkeypatch)
    return request.param
