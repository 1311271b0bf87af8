"""ONNX files that `pyg-avig export` writes, run by onnxruntime, whose reading runs no code."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from pyg_avig.errors import InputError, of_extra
from pyg_avig.files import local_file
from pyg_avig.graphs.adjacency import to_edge_list
from pyg_avig.models.exported import only


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
        if not isinstance(said, dict):
            raise InputError(self._of_another)
        self.description: dict[str, Any] = said
        self.said(needed or ())

    def said(self, needed: Collection[str]) -> dict[str, Any]:
        """What is needed of the description.

        Raises:
            InputError: If that is not all there.
        """
        return only(self.description, needed, self._of_another)

    @property
    def _of_another(self) -> str:
        return f"{self.path}: expected an ONNX file that `pyg-avig export` wrote (got another)"

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


class OnnxGraphs(nn.Module):
    """A model of graphs in an ONNX file, that takes PyG's data as :class:`ViG` does.

    Args:
        program: The file.
        edge_dim: Size of the edge features that it takes, if any.
    """

    def __init__(self, program: OnnxModel, edge_dim: int | None) -> None:
        super().__init__()
        self.program = program
        self.edge_dim = edge_dim

    def forward(self, data: Data) -> Tensor:
        """The outputs of a graph or batch of graphs.

        Raises:
            InputError: If the data lack a field that the program takes, or have it in another shape
                or dtype.
        """
        return self.program(*(self._field(data, name) for name in self.program.inputs))

    @staticmethod
    def _field(data: Data, name: str) -> Tensor:
        if name == "num_nodes":
            return data.ptr.diff() if isinstance(data, Batch) else torch.tensor([data.num_nodes])
        value = data.get(name)
        if value is None:
            raise InputError(f"expected a graph with the field {name} (got {data})")
        if name == "edge_index":
            return to_edge_list(value).edge_index
        value = value if value.layout == torch.strided else value.to_dense()
        return value.view(-1, 1) if name == "edge_attr" and value.dim() == 1 else value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
