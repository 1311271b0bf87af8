"""What benchmarks change in a config of `pyg-avig fit`."""

from __future__ import annotations

from typing import Any

# Tested is the model after the last epoch, so that nothing is chosen by the test.
QUIET_TRAINER: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "callbacks": None,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "limit_val_batches": 0,
}
