"""How fast predictions were."""

from __future__ import annotations

import sys
from time import perf_counter


def say_rate(done: int, noun: str, start: float) -> None:
    """Print on standard error how many were done since ``start``, by ``perf_counter``."""
    seconds = perf_counter() - start
    rate = done / max(seconds, 1e-9)
    print(f"{done} {noun} in {seconds:.1f} s, {rate:.1f} {noun} a second", file=sys.stderr)
