"""What the commands that take files are called with; read before anything large is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from pyg_avig.errors import InputError

FORMS = ("csv", "json", "tsv")


def arguments(command: str, words: list[str]) -> dict[str, Any]:
    """What a command of :data:`PARSERS` was called with, by name.

    Raises:
        InputError: If it takes no such words.
    """
    parser = PARSERS[command]()
    try:
        return parser.parse_args(words).as_dict()
    except ArgumentError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{reason}; see {parser.prog} --help") from None


def options(command: str) -> list[str]:
    """The options of a command of :data:`PARSERS`, but for ``--help``."""
    names = [name for action in PARSERS[command]()._actions for name in action.option_strings]
    return [name for name in names if name not in ("-h", "--help")]


def _parser(command: str, description: str) -> ArgumentParser:
    return ArgumentParser(prog=f"pyg-avig {command}", exit_on_error=False, description=description)


def _predict() -> ArgumentParser:
    parser = _parser(
        "predict",
        "Of a classifier, print path, label and probability of each image file, "
        "tab-separated or as --format says; of a detector or segmenter, write into a folder what "
        "is found, as results.json or labels/*.png, and drawn/*.png; of a task on graphs, write a "
        "table. Files that cannot be read are named on standard error, and the exit status is 1.",
    )
    parser.add_argument(
        "checkpoint",
        help="A checkpoint of `pyg-avig fit`, an exported *.safetensors, *.onnx or folder.",
    )
    parser.add_argument(
        "images",
        nargs="*",
        help="Image files, of any size, folders of them, patterns such as 'photos/*.jpg'; or Data "
        "of PyG as torch.save writes it, folders of *.pt, and tables *.csv of molecules.",
    )
    parser.add_argument(
        "--top", type=int, help="Likeliest classes of each image; 1 if nothing is said."
    )
    parser.add_argument(
        "--format", choices=FORMS, help="How they are printed; as tsv if nothing is said."
    )
    parser.add_argument(
        "--batch_size", type=int, default=64, help="Images that a classifier takes at a time."
    )
    parser.add_argument(
        "--out", help="Folder that a detector or segmenter writes to; FILE.csv or FILE.parquet."
    )
    parser.add_argument(
        "--config", help="The data of this config; with files, own graphs are read as it says."
    )
    parser.add_argument("--split", help="One of train, val, test of these data; by default all.")
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="Score from which an object is drawn."
    )
    return parser


def _export() -> ArgumentParser:
    parser = _parser(
        "export",
        "Write a trained model in the form that OUT asks for: *.safetensors, the "
        "weights with their configuration, for `pyg-avig predict` and fine-tuning "
        "(--model.initial_weights); *.onnx, for onnxruntime and `pyg-avig predict`; *.pt2, for "
        "torch.export.load; a folder OUT/ that timm loads, with a model card. What was written is "
        "printed.",
    )
    parser.add_argument(
        "checkpoint", help="A checkpoint that `pyg-avig fit` wrote, or an exported file or folder."
    )
    parser.add_argument("out", help="What to write: *.safetensors, *.onnx, *.pt2 or OUT/.")
    parser.add_argument(
        "--precision", help="bf16: weights in bfloat16, and a *.pt2 computes in it; not of *.onnx."
    )
    parser.add_argument(
        "--quantize",
        help="int8: convolutions and linear maps of an *.onnx in eight bits, calibrated on the "
        "data of the run. Refused if accuracy on its validation split falls by more than 0.02.",
    )
    parser.add_argument(
        "--calibration", help="In place of the run's config.yaml: the data of this config."
    )
    parser.add_argument(
        "--dynamic_size",
        action="store_true",
        help="An *.onnx that takes images of any size: multiples of 32, from 64 on.",
    )
    return parser


def _explore() -> ArgumentParser:
    parser = _parser(
        "explore",
        "Write one HTML page, which needs no server and no network, on which one sees "
        "what each node of image files attends to: every stage, block and head. Graphs of other "
        "kinds: pyg_avig.viz.explore in Python.",
    )
    parser.add_argument("checkpoint", help="A checkpoint of `pyg-avig fit`, or an exported file.")
    parser.add_argument("images", nargs="+", help="Image files, of any size.")
    parser.add_argument("--out", default="explore.html", help="The page to write, *.html.")
    return parser


PARSERS: dict[str, Callable[[], ArgumentParser]] = {
    "predict": _predict,
    "export": _export,
    "explore": _explore,
}
