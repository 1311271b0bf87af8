"""The command line: Lightning's, and `predict` for image files."""

from __future__ import annotations

import sys
from typing import Any

import pytorch_lightning as pl
from jsonargparse import ArgumentParser
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from pyg_avig.errors import InputError
from pyg_avig.train.checkpoint import read_checkpoint
from pyg_avig.train.image_classifier import ImageClassifier
from pyg_avig.train.predict import predict_images

_DESCRIPTION = """Train, validate and test AttentionViG; label image files.

  pyg-avig fit      --config configs/digits/nano.yaml
  pyg-avig fit      --config configs/digits/nano.yaml --model.lr 1e-3
  pyg-avig fit      --config configs/digits/nano.yaml --ckpt_path CHECKPOINT  (resumes)
  pyg-avig test     --config configs/digits/nano.yaml --ckpt_path CHECKPOINT
  pyg-avig predict  CHECKPOINT IMAGE [IMAGE ...]
"""


class CLI(LightningCLI):
    """Lightning's command line for :class:`ImageClassifier` and any data module."""

    def __init__(self, args: list[str] | None = None, **kwargs: Any) -> None:
        super().__init__(
            ImageClassifier,
            pl.LightningDataModule,
            subclass_mode_data=True,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            parser_kwargs={"description": _DESCRIPTION, "prog": "pyg-avig"},
            args=args,
            **kwargs,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's subcommands but `predict`, which takes image files here."""
        subcommands = LightningCLI.subcommands()
        del subcommands["predict"]
        return subcommands

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and look at the checkpoint before anything is built on it."""
        super().parse_arguments(parser, args)
        subcommand = self.config.get("subcommand")
        path = self.config[subcommand].get("ckpt_path") if subcommand else None
        # Lightning resolves these words itself.
        symbolic = ("best", "last", "hpc")
        self.checkpoint = read_checkpoint(path) if path and path not in symbolic else None

    def after_instantiate_classes(self) -> None:
        """Refuse a checkpoint of other classes than the data's."""
        if self.checkpoint is not None:
            theirs, ours = (
                self.checkpoint["hyper_parameters"]["classes"],
                self.datamodule.classes,
            )
            if list(theirs) != list(ours):
                raise InputError(f"expected a checkpoint for the classes {ours} (got {theirs})")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Tell the model what the data say of themselves."""
        for name in ("classes", "data_config"):
            parser.link_arguments(f"data.{name}", f"model.{name}", apply_on="instantiate")


def main(args: list[str] | None = None) -> int:
    """Run `pyg-avig`; the exit status."""
    words = sys.argv[1:] if args is None else args
    try:
        if words[:1] == ["predict"]:
            return predict_images(**_predict_arguments(words[1:]))
        CLI(args)
    except InputError as error:
        print(f"pyg-avig: {error}", file=sys.stderr)
        return 2
    return 0


def _predict_arguments(args: list[str]) -> dict[str, Any]:
    parser = ArgumentParser(
        prog="pyg-avig predict",
        description="Print path, label and probability of each image file, tab-separated. "
        "Files that cannot be read are named on standard error, and the exit status is 1.",
    )
    parser.add_argument("checkpoint", help="A checkpoint that `pyg-avig fit` wrote.")
    parser.add_argument("images", nargs="+", help="Image files, of any size.")
    parser.add_argument(
        "--batch_size",
        type=int,
        default=64,
        help="Images that go through the model at a time.",
    )
    return parser.parse_args(args).as_dict()
