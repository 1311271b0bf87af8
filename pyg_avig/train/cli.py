"""The command line: Lightning's, and `predict` for files of images or graphs."""

from __future__ import annotations

import errno
import math
import shlex
import signal
import sys
from operator import eq
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from pyg_avig.data.loading.image_trees import images_among
from pyg_avig.errors import InputError
from pyg_avig.files import place, remove_partial
from pyg_avig.models.exported_onnx import OnnxModel
from pyg_avig.train.checkpoint import (
    AtomicCheckpointIO,
    export_checkpoint,
    graph_task_of,
    load_classifier,
    load_graph_task,
    load_weights,
    read_checkpoint,
    read_trained,
)
from pyg_avig.train.explore import explore_arguments, explore_images
from pyg_avig.train.export import NEEDED_OF_GRAPHS
from pyg_avig.train.image_classifier import ImageClassifier
from pyg_avig.train.interruption import LastCheckpoint, Stopped
from pyg_avig.train.predict import FORMS, predict_images
from pyg_avig.train.predict_graphs import predict_data, predict_files
from pyg_avig.train.predict_scenes import load_task, predict_scenes
from pyg_avig.train.recipe import Recipe

_DESCRIPTION = """Train, validate and test AttentionViG; label image files.

  pyg-avig fit      --config configs/digits/nano.yaml
  pyg-avig fit      --config configs/digits/nano.yaml --model.lr 1e-3
  pyg-avig fit      --config RUN/config.yaml --ckpt_path RUN/checkpoints/last.ckpt  (resumes)
  pyg-avig test     --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt
  pyg-avig export   RUN/checkpoints/best.ckpt model.safetensors  (or FOLDER/, model.onnx, .pt2)
  pyg-avig predict  RUN/checkpoints/best.ckpt IMAGE [IMAGE ...]  (or FOLDER, 'a/*.png')
  pyg-avig predict  RUN/checkpoints/best.ckpt IMAGE [IMAGE ...] --out FOLDER  (objects, pixels)
  pyg-avig predict  RUN/checkpoints/best.ckpt GRAPH.pt [...] --out FILE.csv  (graphs, nodes, edges)
  pyg-avig predict  RUN/checkpoints/best.ckpt --config RUN/config.yaml --out FILE.csv  (the same)
  pyg-avig explore  RUN/checkpoints/best.ckpt IMAGE [IMAGE ...] --out PAGE.html

`pyg-avig fit --help`, `fit --model.help=ImageClassifier` and `fit --data.help=Images` list every
field; RUN is the folder of a run, such as runs/digits-nano/version_0.
"""


_FROZEN = ("freeze_beta", "freeze_norm")
"""What is frozen by default where there are initial weights."""


class _HelpFormatter(DefaultHelpFormatter):
    """Keeps the line breaks of the description."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text


class _SaveConfig(SaveConfigCallback):
    """Writes a run's config beside its metrics; without a logger there is no such place."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.logger is not None:
            super().setup(trainer, pl_module, stage)


class CLI(LightningCLI):
    """Lightning's command line: an :class:`ImageClassifier` unless told otherwise, on any data."""

    def __init__(self, args: list[str] | None = None, **kwargs: Any) -> None:
        super().__init__(
            Recipe,
            pl.LightningDataModule,
            save_config_callback=_SaveConfig,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={
                "prog": "pyg-avig",
                "description": _DESCRIPTION,
                "formatter_class": _HelpFormatter,
            },
            args=args,
            **kwargs,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's subcommands but `predict`, which takes image files here."""
        subcommands = LightningCLI.subcommands()
        del subcommands["predict"]
        return subcommands

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Lightning's trainer, with checkpoints that are whole or not there, and the last."""
        given = self._get(self.config_init, "trainer", default={})
        plugins, callbacks = _as_list(given.get("plugins")), _as_list(given.get("callbacks"))
        if given.get("enable_checkpointing") is not False:
            folders = [c.dirpath for c in callbacks if isinstance(c, ModelCheckpoint) and c.dirpath]
            callbacks = [*callbacks, LastCheckpoint(*folders[:1])]
        plugins = [*plugins, AtomicCheckpointIO()]
        return super().instantiate_trainer(plugins=plugins, callbacks=callbacks, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Tell the model what the data say of themselves."""
        parser.set_defaults({"model": {"class_path": "pyg_avig.train.ImageClassifier"}})
        # A model gets those that it takes.
        for name in ("classes", "data_config", "facts", "annotation"):
            target = f"model.init_args.{name}"
            parser.link_arguments(f"data.{name}", target, apply_on="instantiate")

    def _parse_ckpt_path(self) -> None:
        """Keep what the user asked for: Lightning would put the checkpoint's values over it."""

    def before_instantiate_classes(self) -> None:
        """Leave out what a checkpoint makes needless: initial weights, and a teacher for a test."""
        config = self.config if self.subcommand is None else self.config[self.subcommand]
        _name_locally(config.trainer)
        if self.subcommand is None or self.config[self.subcommand].get("ckpt_path") is None:
            return
        model = self.config[self.subcommand].model.init_args
        if model.get("initial_weights") is not None:
            for name in _FROZEN:
                if name in model and model[name] is None:
                    model[name] = True
            model.initial_weights = None
        if "pretrained" in model:
            model.pretrained = False
        if self.subcommand != "fit" and "distillation" in model:
            model.distillation = None

    def after_instantiate_classes(self) -> None:
        """Look at the checkpoint before anything is run on it, or written."""
        if self.subcommand is None:
            return
        path = self.config[self.subcommand].get("ckpt_path")
        if path is None:
            if self.subcommand != "fit":
                raise InputError(f"{self.subcommand} needs a checkpoint: add --ckpt_path FILE")
            return
        content = read_checkpoint(path, self.model.same_in_checkpoints)
        theirs, ours = content["hyper_parameters"], self.model.hparams
        same = list(self.model.same_in_checkpoints)
        if self.subcommand == "fit":
            same += self.model.same_to_resume
            if theirs.get("initial_weights"):
                started = [name for name in _FROZEN if name in same and theirs.get(name) is None]
                theirs = {**theirs, **dict.fromkeys(started, True)}
        for name in same:
            alike = _alike if name == "facts" else eq
            if not alike(theirs.get(name) or None, ours[name] or None):
                raise InputError(
                    f"{path}: expected a checkpoint with {name} {ours[name]!r}, as the config "
                    f"says (got {theirs.get(name)!r}); the run's own config.yaml fits it"
                )
        load_weights(self.model, content, path)

    def fit(self, model: pl.LightningModule, **kwargs: Any) -> None:
        """Train; a run that cannot begin leaves no folder behind, one that is stopped says so."""
        folder = self.trainer.log_dir
        existed = folder is None or _exists(folder)
        self._remove_partial(kwargs.get("ckpt_path"))
        try:
            self.trainer.fit(model, **kwargs)
        except InputError:
            if not existed and not self.trainer.global_step and _exists(str(folder)):
                system, name = place(str(folder))
                system.rm(name, recursive=True)
            raise
        except OSError as error:
            if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(error.errno, error.strerror, folder) from error
            raise
        except Stopped as stopped:
            if self.trainer.is_global_zero:
                print(_how_to_resume(stopped, folder), file=sys.stderr)
            raise

    def _remove_partial(self, checkpoint: str | None) -> None:
        """Remove what killed runs have left half written: this one's predecessors, and siblings."""
        folders = [] if checkpoint is None else [Path(checkpoint).parent]
        if self.trainer.log_dir is not None:
            folders += Path(self.trainer.log_dir).parent.glob("*/checkpoints")
        if self.trainer.is_global_zero:
            for folder in folders:
                remove_partial(folder)


def _as_list(given: Any) -> list[Any]:
    """A field of Lightning's trainer that takes nothing, one or many."""
    return given if isinstance(given, list) else [] if given is None else [given]


def _exists(folder: str) -> bool:
    system, name = place(folder)
    return system.exists(name)


def _name_locally(config: Any) -> None:
    """Write addresses ``file://...`` as paths: Lightning would make a folder ``file:`` of some."""
    for key, value in vars(config).items() if isinstance(config, Namespace) else ():
        if isinstance(value, str) and value.startswith("file://"):
            config[key] = place(value)[1]
        for part in value if isinstance(value, list) else [value]:
            _name_locally(part)


def _alike(theirs: Any, ours: Any) -> bool:
    """Whether two facts of data agree; statistics vary a little with the number of threads."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return theirs.keys() == ours.keys() and all(_alike(theirs[key], ours[key]) for key in ours)
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(_alike, theirs, ours))
    if isinstance(theirs, float) and isinstance(ours, float):
        both_unknown = math.isnan(theirs) and math.isnan(ours)
        return both_unknown or math.isclose(theirs, ours, rel_tol=1e-4, abs_tol=1e-6)
    return theirs == ours


def _how_to_resume(stopped: Stopped, folder: str | None) -> str:
    by = f"pyg-avig: stopped by {stopped.signal.name}"
    if not stopped.checkpoint:
        return f"{by}; no checkpoint was written"
    words = ["--ckpt_path", stopped.checkpoint]
    if folder is None:
        return f"{by}; it goes on with the same arguments and {shlex.join(words)}"
    words = ["pyg-avig", "fit", "--config", f"{folder}/config.yaml", *words]
    return f"{by}; it goes on with: {shlex.join(words)}"


def main(args: list[str] | None = None) -> int:
    """Run `pyg-avig`; the exit status."""
    try:
        return _run(args)
    except BrokenPipeError:
        raise
    except Exception as error:
        message = _mendable(error)
        if message is None:
            raise
        print(f"pyg-avig: {message}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        return 128 + stopped.signal
    except SIGTERMException:
        return 128 + signal.SIGTERM
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning makes an exit of an interruption.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        return 128 + signal.SIGINT


def _run(args: list[str] | None) -> int:
    words = sys.argv[1:] if args is None else args
    status = 0
    if words[:1] == ["predict"]:
        status = predict(**_predict_arguments(words[1:]))
    elif words[:1] == ["explore"]:
        status = explore_images(**explore_arguments(words[1:]))
    elif words[:1] == ["export"]:
        for path in export_checkpoint(**_export_arguments(words[1:])):
            system, name = place(path)
            print(f"{path} ({system.size(name) / 1000:,.0f} kB)")
    else:
        CLI(args)
    sys.stdout.flush()  # A full disk may show only here.
    return status


def _mendable(error: BaseException | None) -> str | None:
    """What a user can mend, in one line; ``None`` of anything else."""
    while error is not None and not isinstance(
        error, (InputError, MisconfigurationException, OSError)
    ):
        error = error.__cause__  # The parser wraps what a constructor raises.
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError):
        # One of a loader's worker process carries the worker's traceback before it.
        return str(error).strip().splitlines()[-1] if str(error) else type(error).__name__
    return None if error is None else str(error).rsplit("InputError: ", 1)[-1].strip()


def predict(
    checkpoint: str,
    images: list[str],
    batch_size: int = 64,
    out: str | None = None,
    threshold: float = 0.5,
    config: str | None = None,
    split: str | None = None,
    top: int | None = None,
    format: str | None = None,
) -> int:
    """Say or draw what is on images or of graphs, as a checkpoint's task is; the exit status.

    Args:
        checkpoint: See :func:`predict_images`.
        images: See :func:`predict_images` and :func:`predict_files`; also folders of images and
            patterns, see :func:`~pyg_avig.data.loading.image_trees.images_among`.
        batch_size: See :func:`predict_images`.
        out: Where a detector or segmenter writes, see ``predict_scenes``; or of graphs, see
            :func:`predict_files`.
        threshold: See ``predict_scenes``.
        config: See :func:`predict_data`.
        split: See :func:`predict_data`.
        top: See :func:`predict_images`.
        format: Its ``form``.
    """
    content, said = _looked_into(checkpoint)
    of_graphs = said.keys() >= NEEDED_OF_GRAPHS
    if (top, format) != (None, None) and (of_graphs or "annotation" in said):
        raise InputError(f"{checkpoint}: expected a classifier of images, for --top and --format")
    if of_graphs:
        return _predict_graphs(checkpoint, content, images, out, config, split)
    if config is not None or split is not None:
        raise InputError(f"{checkpoint}: expected a GraphTask, for --config and --split")
    if not images:
        raise InputError("expected image files (got none)")
    files, errors = images_among(images)
    for error in errors:
        print(error, file=sys.stderr)
    if isinstance(content, OnnxModel) or "annotation" not in said:
        if out is not None:
            raise InputError(
                f"{checkpoint}: expected a detector or segmenter, to write into {out} (a "
                "classifier's labels are printed; leave out --out)"
            )
        top = 1 if top is None else top
        model: ImageClassifier | OnnxModel = (
            content if isinstance(content, OnnxModel) else load_classifier(checkpoint, content)
        )
        status = predict_images(model, files, batch_size, top, format or "tsv")
        return 1 if errors else status
    if out is None:
        raise InputError(f"{checkpoint}: expected a folder to write to: add --out FOLDER")
    status = predict_scenes(load_task(content, checkpoint), files, out, threshold)
    return 1 if errors else status


def _looked_into(path: str) -> tuple[dict[str, Any] | OnnxModel, dict[str, Any]]:
    """A checkpoint, an export or a program, read once; and what is said of its model."""
    suffix = Path(path).suffix
    if suffix == ".pt2":
        raise InputError(
            f"{path}: expected a checkpoint, or an exported *.safetensors, *.onnx or folder (got a "
            "program for torch.export.load, whose reading can run code of the file)"
        )
    if suffix == ".onnx":
        program = OnnxModel(path)
        return program, program.description
    content = read_trained(path)
    return content, content["hyper_parameters"]


def _predict_graphs(
    checkpoint: str,
    content: dict[str, Any] | OnnxModel,
    files: list[str],
    out: str | None,
    config: str | None,
    split: str | None,
) -> int:
    if out is None:
        raise InputError(f"{checkpoint}: expected a file to write to: add --out FILE.csv")
    if bool(files) == (config is not None):
        raise InputError("expected graph files, or a data set by --config (got both or neither)")
    if isinstance(content, OnnxModel):
        task = graph_task_of(content)
    else:
        task = load_graph_task(checkpoint, content)
    if config is None:
        if split is not None:
            raise InputError(f"expected --config, for the split {split!r} of its data")
        return predict_files(task, files, out)
    predict_data(task, config, out, split)
    return 0


def _predict_arguments(args: list[str]) -> dict[str, Any]:
    parser = ArgumentParser(
        prog="pyg-avig predict",
        description="Of a classifier, print path, label and probability of each image file, "
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
        "of PyG as torch.save writes it.",
    )
    parser.add_argument(
        "--top", type=int, help="Likeliest classes of each image; 1 if nothing is said."
    )
    parser.add_argument(
        "--format", choices=sorted(FORMS), help="How they are printed; as tsv if nothing is said."
    )
    parser.add_argument(
        "--batch_size", type=int, default=64, help="Images that a classifier takes at a time."
    )
    parser.add_argument(
        "--out", help="Folder that a detector or segmenter writes to; FILE.csv or FILE.parquet."
    )
    parser.add_argument("--config", help="In place of graph files: the data of this config.")
    parser.add_argument("--split", help="One of train, val, test of these data; by default all.")
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="Score from which an object is drawn."
    )
    return parser.parse_args(args).as_dict()


def _export_arguments(args: list[str]) -> dict[str, Any]:
    parser = ArgumentParser(
        prog="pyg-avig export",
        description="Write a trained model in the form that OUT asks for: *.safetensors, the "
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
    return parser.parse_args(args).as_dict()
