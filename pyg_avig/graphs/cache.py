"""What depends on a size alone, kept for the last few sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

SIZES = 8

_Result = TypeVar("_Result")


def cache_by_size(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Keep what the decorated function returned for the last :data:`SIZES` different arguments.

    Its results are shared, so do not write into them. A program that is being compiled, exported or
    run on fake tensors calls it anew: sizes are symbols there, and tensors outlive no trace.

    Args:
        function: Makes tensors of hashable arguments, the device among them.
    """
    kept = lru_cache(maxsize=SIZES)(function)

    @wraps(function)
    def call(*args: Any) -> _Result:
        if torch.compiler.is_compiling() or type(torch.empty(0)) is not Tensor:
            return function(*args)
        with torch.inference_mode(False):  # It outlives this call.
            return kept(*args)

    return call
