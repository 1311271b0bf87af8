"""ONNX files that `pyg-avig export` writes, run by onnxruntime, whose reading runs no code."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyg_avig.errors import InputError, of_extra
from pyg_avig.files import local_file


class OnnxModel:
    """A model in an ONNX file that `pyg-avig export` wrote, on the CPU.

    ``description`` is what is said of it, as in
    :func:`pyg_avig.models.exported.read_description`; ``inputs`` and ``outputs`` the names of its
    tensors. It takes as many threads as PyTorch.

    Args:
        path: The file, here or at an address that fsspec knows.
        needed: What must be said of it: ``NEEDED`` or ``NEEDED_OF_GRAPHS`` of
            :mod:`pyg_avig.models.exported`; ``None`` takes all that is.

    Raises:
        InputError: If onnxruntime is not installed, or the file is missing, broken, or of something
            else.
    """

    def __init__(self, path: str | Path, needed: Collection[str] | None = None) -> None:
        onnxruntime = of_extra("onnxruntime", "onnx")
        self.path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # What its own optimisers have to say is for nobody here.
        try:
            with local_file(path) as file:
                session = onnxruntime.InferenceSession(
                    file.read_bytes(), options, providers=["CPUExecutionProvider"]
                )
        except FileNotFoundError:
            raise InputError(f"{path}: expected an ONNX file (there is none)") from None
        except Exception as error:  # onnxruntime has a dozen, of no common class.
            raise InputError(f"{path}: expected an ONNX file ({_first_line(error)})") from None
        self.session = session
        self.inputs = [value.name for value in session.get_inputs()]
        self.outputs = [value.name for value in session.get_outputs()]
        try:
            said = json.loads(session.get_modelmeta().custom_metadata_map.get("pyg_avig", "null"))
        except json.JSONDecodeError:
            said = None
        if not isinstance(said, dict) or not said.keys() >= {*(needed or ())}:
            raise InputError(
                f"{path}: expected an ONNX file that `pyg-avig export` wrote (got another)"
            )
        self.description: dict[str, Any] = said

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The output for these inputs, in the order of ``inputs``.

        Raises:
            InputError: If they have other shapes or dtypes.
        """
        given = {name: x.numpy() for name, x in zip(self.inputs, inputs, strict=True)}
        try:
            (output,) = self.session.run(self.outputs[:1], given)
        except Exception as error:
            raise InputError(
                f"{self.path}: expected inputs that it takes ({_first_line(error)})"
            ) from None
        return torch.from_numpy(output)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
