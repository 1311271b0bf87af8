"""Writing trained models as programs: ``.pt2`` of torch.export, ``.onnx`` for onnxruntime."""

from __future__ import annotations

import copy
import io
import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils._pytree import tree_leaves
from torch_geometric.data import Batch, Data

from pyg_avig.errors import InputError, of_extra
from pyg_avig.files import written_whole
from pyg_avig.graphs import AxialEdges
from pyg_avig.models.attention_vig import AttentionViG
from pyg_avig.models.dense_backbone import size_divisible
from pyg_avig.models.exported import vig_for
from pyg_avig.models.exported_onnx import OnnxModel
from pyg_avig.models.layers import ImageGrapher
from pyg_avig.models.vig import ViG
from pyg_avig.train.export import HALF_TOLERANCE, NEEDED, TOLERANCE, check_alike
from pyg_avig.train.graph_task import GraphTask
from pyg_avig.train.image_classifier import ImageClassifier

OPSET = 18


def export_classifier(
    out: str | Path,
    classifier: ImageClassifier,
    half: bool = False,
    dynamic_size: bool = False,
) -> None:
    """Write a classifier as a program from images (B, C, H, W) to logits (B, classes).

    The batch is dynamic; C, H and W are those of the training. BatchNorms are folded into the maps
    before them where the model can (``fuse``).

    Args:
        out: ``*.pt2`` or ``*.onnx``, here or at an address that fsspec knows.
        classifier: The classifier, in evaluation mode.
        half: Compute in bfloat16, between images and logits in single precision; for ``*.pt2``.
            Similarities and weights are of single precision all the same.
        dynamic_size: Let H and W be dynamic too, in an ``*.onnx``: multiples of 32, from 64 on, to
            which the lattices of an AttentionViG fit. (torch.export guards such a program against
            single images.)

    Raises:
        InputError: If H and W are to be dynamic and ``out`` is no ``*.onnx`` or the model no
            AttentionViG on lattices; and as :func:`write_program`.
    """
    channels, *size = classifier.hparams["data_config"]["input_size"]
    model = copy.deepcopy(classifier.model)
    if isinstance(model, AttentionViG):
        model.fuse()
    dynamic, sizes = {0: Dim("batch", min=1)}, [size] * 3
    if dynamic_size:
        _check_on_lattices(out, model)
        step = size_divisible(model)
        dynamic |= {axis: step * Dim(name, min=2) for axis, name in ((2, "rows"), (3, "columns"))}
        sizes = [(step * rows, step * columns) for rows, columns in ((4, 3), (2, 2), (3, 5))]
    batches = zip((2, 1, 5), sizes, strict=True)
    write_program(
        out,
        _InHalf(model).eval() if half else model,
        ["images"],
        (dynamic,),
        [(torch.rand(number, channels, *hw),) for number, hw in batches],
        {key: classifier.hparams[key] for key in NEEDED},
        "logits",
        like=classifier.model,
        tolerance=HALF_TOLERANCE if half else TOLERANCE,
    )


def _check_on_lattices(out: str | Path, model: nn.Module) -> None:
    """Refuse a program or a model whose graph cannot follow the size of the images."""
    if Path(out).suffix != ".onnx":
        raise InputError(f"expected out as *.onnx, for images of any size (got {str(out)!r})")
    graphs = [block.graph for block in model.modules() if isinstance(block, ImageGrapher)]
    if not isinstance(model, AttentionViG) or not all(isinstance(g, AxialEdges) for g in graphs):
        raise InputError(
            f"{out}: expected an AttentionViG on axial graphs, for images of any size (got another "
            "model)"
        )


class _InHalf(nn.Module):
    """A model in bfloat16, between inputs and outputs in single precision."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        """The model's outputs."""
        return self.model(x.to(torch.bfloat16)).float()


def export_graph_task(out: str | Path, task: GraphTask) -> None:
    """Write a model of graphs as a program from edge lists to outputs, of any number of graphs.

    Its inputs are ``x`` (N, ``in_channels``), ``edge_index`` (2, E), and, as the model takes them,
    ``edge_attr`` (E, ``edge_dim``), ``pos`` (N, ``pos_dim``), ``edge_label_index`` (2, L), and for
    outputs of graphs ``num_nodes`` (B,), the number of each one's nodes: those of a PyG ``Batch``.
    N, E, L and B are dynamic, and at least 1. The output is ``predictions`` (B, O), (N, O) or
    (L, O): logits, or numbers in the unit of the targets. A ``.pt2`` takes its inputs as one dict.

    Args:
        out: ``*.pt2`` or ``*.onnx``, here or at an address that fsspec knows.
        task: The task, in evaluation mode.

    Raises:
        InputError: If the model makes its own graph, or has a position code on a lattice; and as
            :func:`write_program`.
    """
    tensors, description = task.in_the_unit_of_targets()
    model = vig_for(**description).eval()
    model.load_state_dict(tensors)
    if any(graph is not None for graph in model.graphs) or model.pos == "conv":
        raise InputError(
            f"{out}: expected a model on the edges at hand, for a program that takes them (got one "
            "with a graph constructor or a position code on a lattice)"
        )
    nodes, edges, pairs, graphs = (
        Dim(name, min=1) for name in ("nodes", "edges", "pairs", "graphs")
    )
    dynamic = {"x": {0: nodes}, "edge_index": {1: edges}}
    if model.edge_dim is not None:
        dynamic["edge_attr"] = {0: edges}
    if model.pos == "relative":
        dynamic["pos"] = {0: nodes}
    if model.level == "edge":
        dynamic["edge_label_index"] = {1: pairs}
    if model.level == "graph":
        dynamic["num_nodes"] = {0: graphs}
    drawn = [_drawn(model, *sizes) for sizes in ((7, 12, 3), (5, 4, 1), (20, 50, 4))]
    examples = [({name: fields[name] for name in dynamic},) for fields in drawn]
    program = _OfFields(model).eval()
    write_program(out, program, list(dynamic), (dynamic,), examples, description, "predictions")


class _OfFields(nn.Module):
    """A model of graphs that takes their fields as tensors."""

    def __init__(self, model: ViG) -> None:
        super().__init__()
        self.model = model

    def forward(self, fields: dict[str, Tensor]) -> Tensor:
        """The model's outputs."""
        fields = dict(fields)
        sizes = fields.pop("num_nodes", None)
        if sizes is None:
            return self.model(Data(**fields))
        # How many graphs have ended before each node; repeat_interleave has no size to trace.
        ends = sizes.new_zeros(fields["x"].size(0) + 1)
        ends = ends.index_add(0, sizes.cumsum(0), torch.ones_like(sizes))
        batch = Batch(batch=ends.cumsum(0)[:-1], **fields)
        batch._num_graphs = sizes.size(0)  # Known without a look at values.
        return self.model(batch)


def _drawn(model: ViG, nodes: int, edges: int, graphs: int) -> dict[str, Tensor]:
    """The fields of graphs drawn at random."""
    return {
        "x": torch.randn(nodes, model.in_channels),
        "edge_index": torch.randint(nodes, (2, edges)),
        "edge_attr": torch.randn(edges, model.edge_dim or 1),
        "pos": torch.randn(nodes, model.pos_dim),
        "edge_label_index": torch.randint(nodes, (2, 3 * graphs)),
        "num_nodes": (torch.arange(graphs + 1) * nodes // graphs).diff(),
    }


def write_program(
    out: str | Path,
    model: nn.Module,
    inputs: Sequence[str],
    dynamic: tuple[Any, ...],
    examples: Sequence[tuple[Any, ...]],
    description: dict[str, Any],
    output: str,
    like: nn.Module | None = None,
    tolerance: float = TOLERANCE,
) -> None:
    """Write a model as a program, after a look at what the program gives.

    Args:
        out: ``*.pt2`` or ``*.onnx``, here or at an address that fsspec knows.
        model: The model, in evaluation mode: from tensors, or a dict of them, to a tensor.
        inputs: The names of the tensors that it takes.
        dynamic: Which of their sizes are dynamic, as torch.export takes it.
        examples: Arguments: the first to trace the model, all to compare program and model.
        description: What is said of the model, as in an exported ``*.safetensors``. In a ``.pt2``
            it is the extra file ``pyg_avig.json``, in an ``.onnx`` the metadata ``pyg_avig``.
        output: The name of the result.
        like: What gives the results that the program is held to; by default the model.
        tolerance: How far they may differ; see :func:`check_alike`.

    Raises:
        InputError: If a package is not installed, the model has operations that such a program
            cannot hold, or the program gives another result; nothing is written.
        OSError: If the file cannot be written.
    """
    suffix = Path(out).suffix
    if suffix == ".onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            of_extra(module, "onnx")
    said = json.dumps(description)
    with torch.no_grad():
        expected = [(like or model)(*example) for example in examples]
        with _told(out):
            program = torch.export.export(model, examples[0], dynamic_shapes=dynamic)
        with TemporaryDirectory() as folder:
            path = Path(folder, f"model{suffix}")
            if suffix == ".onnx":
                with _told(out):
                    _save_onnx(path, program, inputs, output, said)
                onnx = OnnxModel(path)
                found = [onnx(*tree_leaves(example)) for example in examples]
            else:
                torch.export.save(program, path, extra_files={"pyg_avig.json": said})
                with warnings.catch_warnings():
                    # PyTorch 2.12 says of its own buffer that it must not be written to.
                    warnings.filterwarnings("ignore", "The given buffer is not writable")
                    run = torch.export.load(path).module()
                found = [run(*example) for example in examples]
            for ours, theirs in zip(expected, found, strict=True):
                check_alike(theirs, ours, _RUNS[suffix], tolerance)
            with written_whole(out) as partial:
                shutil.copyfile(path, partial)


_RUNS = {".onnx": "onnxruntime", ".pt2": "torch.export"}


def _save_onnx(
    path: Path, program: ExportedProgram, inputs: Sequence[str], output: str, said: str
) -> None:
    # onnxscript 0.6 prints how many rules it applied.
    with _quiet("onnxscript", "onnx_ir", "torch.onnx"), redirect_stdout(io.StringIO()):
        made: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            verbose=False,
        )
    made.model.metadata_props["pyg_avig"] = said
    made.save(str(path))


@contextmanager
def _told(out: str | Path) -> Iterator[None]:
    """Say in one line what an exporter cannot do."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # Each exporter has its own, and raises others' too.
        reason: BaseException = error
        while reason.__cause__ is not None:
            reason = reason.__cause__
        text = " ".join((str(reason).strip().splitlines() or [type(reason).__name__])[:2])
        raise InputError(
            f"{out}: expected a model that {_RUNS[Path(out).suffix]} can take ({text}); nothing "
            "was written"
        ) from None


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep loggers from telling what they did not simplify."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
