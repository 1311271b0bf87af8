"""The operators of other devices on tensors of the CPU."""

import contextlib
import importlib.util
import warnings

import pytest
import torch

from pyg_avig.ops import axial
from pyg_avig.ops.kernels import composed, gpu

OPERATORS = {
    "composed": {name: getattr(composed, name) for name in gpu.OPERATORS},
    # Through Triton's interpreter (conftest.py).
    "Triton": gpu.OPERATORS,
}
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton, which is for Linux"
)


@contextlib.contextmanager
def serving(name, may_fail=False):
    """Have these operators serve wherever those in C++ would."""
    with (
        torch.library._scoped_library("pyg_avig", "IMPL") as library,
        pytest.MonkeyPatch.context() as patch,
    ):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Warning only once for all operators")
            for operator, function in OPERATORS[name].items():
                library.impl(operator, function, "CPU", allow_override=True)
        patch.delenv("PYG_AVIG_KERNELS", raising=False)
        patch.setattr("pyg_avig.ops.kernels.library", lambda: name)
        patch.setitem(axial.SMALL, "cpu", axial.SMALL["cuda"])
        yield
    assert may_fail or not gpu._failed
