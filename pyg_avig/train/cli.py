"""The command line: Lightning's, and `predict` for image files."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import ArgumentParser, DefaultHelpFormatter
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from pyg_avig.errors import InputError
from pyg_avig.train.checkpoint import (
    AtomicCheckpointIO,
    export_checkpoint,
    load_weights,
    read_checkpoint,
)
from pyg_avig.train.predict import predict_images
from pyg_avig.train.recipe import Recipe

_DESCRIPTION = """Train, validate and test AttentionViG; label image files.

  pyg-avig fit      --config configs/digits/nano.yaml
  pyg-avig fit      --config configs/digits/nano.yaml --model.lr 1e-3
  pyg-avig fit      --config RUN/config.yaml --ckpt_path RUN/checkpoints/last.ckpt  (resumes)
  pyg-avig test     --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt
  pyg-avig export   RUN/checkpoints/best.ckpt model.safetensors
  pyg-avig predict  RUN/checkpoints/best.ckpt IMAGE [IMAGE ...]  (or model.safetensors)
  pyg-avig predict  RUN/checkpoints/best.ckpt IMAGE [IMAGE ...] --out FOLDER  (objects, pixels)

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
        """Lightning's trainer, with checkpoints that are whole or not there."""
        given = self._get(self.config_init, "trainer", default={}).get("plugins") or []
        plugins = [*(given if isinstance(given, list) else [given]), AtomicCheckpointIO()]
        return super().instantiate_trainer(plugins=plugins, **kwargs)

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
            if (theirs.get(name) or None) != (ours[name] or None):
                raise InputError(
                    f"{path}: expected a checkpoint with {name} {ours[name]!r}, as the config "
                    f"says (got {theirs.get(name)!r}); the run's own config.yaml fits it"
                )
        load_weights(self.model, content, path)

    def fit(self, model: pl.LightningModule, **kwargs: Any) -> None:
        """Train; a run that cannot begin leaves no folder behind."""
        folder = self.trainer.log_dir
        existed = folder is None or Path(folder).exists()
        try:
            self.trainer.fit(model, **kwargs)
        except InputError:
            if not existed and not self.trainer.global_step:
                shutil.rmtree(str(folder), ignore_errors=True)
            raise


def main(args: list[str] | None = None) -> int:
    """Run `pyg-avig`; the exit status."""
    words = sys.argv[1:] if args is None else args
    try:
        if words[:1] == ["predict"]:
            return predict(**_predict_arguments(words[1:]))
        if words[:1] == ["export"]:
            export_checkpoint(**_export_arguments(words[1:]))
            return 0
        CLI(args)
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, (InputError, MisconfigurationException)):
            cause = cause.__cause__  # The parser wraps what a constructor raises.
        if cause is None:
            raise
        # An error of a loader's worker process carries the worker's traceback before it.
        message = str(cause).rsplit("InputError: ", 1)[-1].strip()
        print(f"pyg-avig: {message}", file=sys.stderr)
        return 2
    return 0


def predict(
    checkpoint: str,
    images: list[str],
    batch_size: int = 64,
    out: str | None = None,
    threshold: float = 0.5,
) -> int:
    """Say or draw what is on image files, by the task that a checkpoint is of; the exit status.

    Args:
        checkpoint: See :func:`predict_images`.
        images: See :func:`predict_images`.
        batch_size: See :func:`predict_images`.
        out: Where a detector or segmenter writes; see ``predict_scenes``.
        threshold: See ``predict_scenes``.
    """
    content = {} if checkpoint.endswith(".safetensors") else read_checkpoint(checkpoint, ())
    if "annotation" not in content.get("hyper_parameters", {}):
        if out is not None:
            raise InputError(
                f"{checkpoint}: expected a detector or segmenter, to write into {out} (a "
                "classifier's labels are printed; leave out --out)"
            )
        return predict_images(checkpoint, images, batch_size)
    if out is None:
        raise InputError(f"{checkpoint}: expected a folder to write to: add --out FOLDER")
    try:
        from pyg_avig.train.predict_scenes import load_task, predict_scenes
    except ModuleNotFoundError as error:
        raise InputError(f"predict needs {error.name}: pip install 'pyg_avig[dense]'") from None
    return predict_scenes(load_task(content, checkpoint), images, out, threshold)


def _predict_arguments(args: list[str]) -> dict[str, Any]:
    parser = ArgumentParser(
        prog="pyg-avig predict",
        description="Of a classifier, print path, label and probability of each image file, "
        "tab-separated; of a detector or segmenter, write into a folder what is found, as "
        "results.json or labels/*.png, and drawn/*.png. Files that cannot be read are named on "
        "standard error, and the exit status is 1.",
    )
    parser.add_argument("checkpoint", help="A checkpoint of `pyg-avig fit`, or an exported file.")
    parser.add_argument("images", nargs="+", help="Image files, of any size.")
    parser.add_argument(
        "--batch_size", type=int, default=64, help="Images that a classifier takes at a time."
    )
    parser.add_argument("--out", help="Folder that a detector or segmenter writes to.")
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="Score from which an object is drawn."
    )
    return parser.parse_args(args).as_dict()


def _export_arguments(args: list[str]) -> dict[str, Any]:
    parser = ArgumentParser(
        prog="pyg-avig export",
        description="Write a trained model as a safetensors file with its configuration, for "
        "`pyg-avig predict`, for fine-tuning (--model.initial_weights), or for others.",
    )
    parser.add_argument("checkpoint", help="A checkpoint that `pyg-avig fit` wrote.")
    parser.add_argument("out", help="The file to write, *.safetensors.")
    return parser.parse_args(args).as_dict()
