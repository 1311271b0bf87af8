"""Writing trained classifiers as ONNX programs in eight bits, calibrated on their own data."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from pyg_avig.data.loading.image_graphs import ImageGraphDataModule
from pyg_avig.data.loading.streams import ImageStream
from pyg_avig.errors import InputError, of_extra
from pyg_avig.files import written_whole
from pyg_avig.graphs import graph_images
from pyg_avig.models.exported_onnx import OnnxModel
from pyg_avig.train.config_data import data_of
from pyg_avig.train.export_program import export_classifier
from pyg_avig.train.image_classifier import ImageClassifier

CALIBRATED = 256
"""Images of the training split that say how large activations are."""
JUDGED = 1000
"""Images of the validation split, at most, on which accuracy is taken."""
LOSS = 0.02
"""How much accuracy eight bits may cost."""


def export_int8(out: str | Path, classifier: ImageClassifier, config: str | Path) -> None:
    """Write a classifier as an ONNX program with convolutions and linear maps in eight bits.

    Static quantisation of onnxruntime: one scale for each channel of a weight and for each
    activation, the latter from images of the training split, not augmented. Weights take seven of
    the eight bits, as sums of products would overflow on processors without VNNI. Products of two
    activations (similarities, weighted sums), what enters them, and all that is neither map nor
    convolution, the exponential above all, stay in single precision.

    What it cost is printed on standard error.

    Args:
        out: ``*.onnx``, here or at an address that fsspec knows.
        classifier: The classifier, in evaluation mode.
        config: A config of ``pyg-avig fit`` with the classifier's data, such as that of its run.

    Raises:
        InputError: If the data have other classes or channels than the classifier, or accuracy on
            the validation split falls by more than 0.02; and as
            :func:`~pyg_avig.train.export_program.export_classifier`. Nothing is written.
        OSError: If a file cannot be read or written.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        of_extra(module, "onnx")
    data = _data_for(classifier, config)
    with TemporaryDirectory() as folder:
        whole, small = (Path(folder, f"{name}.onnx") for name in ("whole", "small"))
        export_classifier(whole, classifier)
        _quantize(whole, small, data)
        before, after = (_accuracy(OnnxModel(path), data) for path in (whole, small))
        lost = f"accuracy on the validation split: {after:.4f} in int8, {before:.4f} in fp32"
        if before - after > LOSS:
            raise InputError(
                f"{out}: expected a model that loses at most {LOSS} in eight bits (got {lost}); "
                "nothing was written"
            )
        with written_whole(out) as partial:
            shutil.copyfile(small, partial)
    print(lost, file=sys.stderr)


def _data_for(classifier: ImageClassifier, config: str | Path) -> ImageGraphDataModule:
    """The data of a config, whose images become the classifier's inputs."""
    data = data_of(config, ImageGraphDataModule)
    theirs, ours = list(map(str, data.classes)), list(map(str, classifier.hparams["classes"]))
    if theirs != ours:
        raise InputError(
            f"{config}: expected data of the checkpoint's {len(ours)} classes, "
            f"{_named(ours)} (got {len(theirs)}: {_named(theirs)})"
        )
    data_config = classifier.hparams["data_config"]
    if data.data_config["input_size"][0] != data_config["input_size"][0]:
        raise InputError(
            f"{config}: expected images of {data_config['input_size'][0]} channels, as the "
            f"checkpoint's (got {data.data_config['input_size'][0]})"
        )
    data.data_config = data_config
    data.prepare_data()
    data.setup("fit")
    return data


def _named(classes: list[str]) -> str:
    return ", ".join(classes[:3]) + (", ..." if classes[3:] else "")


def _quantize(whole: Path, small: Path, data: ImageGraphDataModule) -> None:
    """Write a program in eight bits beside one in single precision."""
    onnx, tools = of_extra("onnx", "onnx"), of_extra("onnxruntime.quantization", "onnx")
    shapes = of_extra("onnxruntime.quantization.shape_inference", "onnx")
    plain = whole.with_name("plain.onnx")
    shapes.quant_pre_process(str(whole), str(plain), skip_symbolic_shape=True)
    graph = onnx.load(str(plain)).graph
    weights = {weight.name for weight in graph.initializer}
    of_activations = [
        node.name
        for node in graph.node
        if node.op_type == "MatMul" and not weights & set(node.input)
    ]
    tools.quantize_static(
        str(plain),
        str(small),
        _Reader(_batches(data, "train", CALIBRATED)),
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        nodes_to_exclude=of_activations,
        per_channel=True,
        reduce_range=True,
        activation_type=tools.QuantType.QUInt8,
        weight_type=tools.QuantType.QInt8,
        # Queries, keys and values stay as they come out of the linear maps.
        extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
    )


class _Reader:
    """Batches of images, as onnxruntime asks for them."""

    def __init__(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        self.batches = batches

    def get_next(self) -> dict[str, Any] | None:
        """The inputs of the next batch; ``None`` behind the last."""
        images = next(self.batches, None)
        return None if images is None else {"images": images[0].numpy()}


def _accuracy(model: OnnxModel, data: ImageGraphDataModule) -> float:
    found = [model(images).argmax(-1) == y for images, y in _batches(data, "val", JUDGED)]
    return float(torch.cat(found).float().mean())


def _batches(
    data: ImageGraphDataModule, split: str, number: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, C, H, W) and classes (B,) of as many of a split, which may be sorted by class."""
    images = data.splits[split]
    if not isinstance(images, ImageStream):
        places = np.linspace(0, len(images) - 1, min(number, len(images))).astype(int)
        chosen: Any = Subset(images, places.tolist())  # type: ignore[arg-type]
        data.splits = {**data.splits, split: chosen}
    batches = iter(data.loader(split))
    for batch in islice(batches, -(-number // data.batch_size)):
        yield graph_images(batch).contiguous(), batch.y
