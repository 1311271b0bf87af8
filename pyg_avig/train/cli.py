"""The commands that train and use models: Lightning's, and those that take files."""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import eq
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.utilities.exceptions import SIGTERMException

from pyg_avig.arguments import arguments
from pyg_avig.config_files import with_config_files
from pyg_avig.errors import InputError
from pyg_avig.files import place, remove_partial
from pyg_avig.train.checkpoint import (
    AtomicCheckpointIO,
    export_checkpoint,
    load_weights,
    read_checkpoint,
)
from pyg_avig.train.explore import explore_images
from pyg_avig.train.interruption import CarryOn, LastCheckpoint, Stopped
from pyg_avig.train.mendable import mendable, one_line_of_a_full_disk, refused
from pyg_avig.train.predict import predict
from pyg_avig.train.recipe import Recipe, check_ranges
from pyg_avig.train.report import StartReport, end_lines, hush_lightning
from pyg_avig.train.runs import Run, metrics_until, newest_run, run_to_resume, write_metrics

# What Lightning takes without a word.
_TRAINER_RANGES = {
    "accumulate_grad_batches": (1, math.inf, True),
    "check_val_every_n_epoch": (1, math.inf, True),
    "gradient_clip_val": (0, math.inf, True),
    "log_every_n_steps": (0, math.inf, True),
    "num_sanity_val_steps": (-1, math.inf, True),
    "val_check_interval": (0, math.inf, False),
}
_FROZEN = ("freeze_beta", "freeze_norm")
"""What is frozen by default where there are initial weights."""


_SUBCOMMANDS = {
    "fit": "Train a model. --resume RUN goes on with a run that was interrupted, in its folder; "
    "--resume alone with the newest of the config. --config takes a file or a name of `pyg-avig "
    "configs`.",
    "validate": "Measure a checkpoint on the validation split: --ckpt_path FILE, or best or last "
    "for that of the config's run, or of its newest.",
    "test": "The same on the test split.",
}


class _SaveConfig(SaveConfigCallback):
    """Writes a run's config beside its metrics; without a logger there is no such place."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.logger is None or stage != "fit":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if hasattr(data, "write_split"):  # The run keeps its split, whatever files come later.
            path = f"{trainer.log_dir}/split.csv"
            if trainer.is_global_zero:
                data.write_split(path)
            self.config.data.init_args.split = path
        super().setup(trainer, pl_module, stage)


class CLI(LightningCLI):
    """Lightning's command line: an :class:`ImageClassifier` unless told otherwise, on any data."""

    def __init__(self, args: list[str] | None = None, **kwargs: Any) -> None:
        self._resumed: Run | None = None
        hush_lightning()
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
                "exit_on_error": False,
                "allow_abbrev": False,
                **{
                    name: {
                        "prog": f"pyg-avig {name}",
                        "description": text,
                        "exit_on_error": False,
                        "allow_abbrev": False,
                    }
                    for name, text in _SUBCOMMANDS.items()
                },
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

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse them, with names of configs, ``--resume`` and ``best`` spelled out as files."""
        words = sys.argv[1:] if args is None else args
        if isinstance(words, list):
            words = self._with_runs(parser, with_config_files(words))
        # The parent's own takes a program that parses a list for a mistake.
        parse = parser.parse_args if isinstance(words, list) else parser.parse_object
        self.config = parse(words)

    def _with_runs(self, parser: LightningArgumentParser, words: list[str]) -> list[str]:
        """Arguments with the run that they mean."""
        words, resumed = _taken(words, "--resume")
        if resumed is not None:
            if words[:1] != ["fit"] or "--ckpt_path" in words:
                raise InputError("expected --resume with fit, and without --ckpt_path")
            run = run_to_resume(resumed) if resumed else self._newest(parser, words, "last")
            self._resumed = run_to_resume(run.path)
            while "--config" in words or any(word.startswith("--config=") for word in words):
                words, _ = _taken(words, "--config")
            logger = [f"--trainer.logger.init_args.{k}={v}" for k, v in run.as_logger().items()]
            found = ["--ckpt_path", run.checkpoint("last")]
            return ["fit", "--config", run.config, *words[1:], *logger, *found]
        rest, name = _taken(words, "--ckpt_path")
        if name not in ("best", "last"):
            return words
        beside = [Run(str(Path(word).parent)) for word in words if word.endswith("config.yaml")]
        own = [run for run in beside if run.has(run.checkpoint(name))]
        run = own[-1] if own else self._newest(parser, rest, name)
        return [*rest, "--ckpt_path", run.checkpoint(name)]

    def _newest(self, parser: LightningArgumentParser, words: list[str], checkpoint: str) -> Run:
        """The newest run that these arguments have made."""
        config = parser.parse_args(words)
        trainer = config[config.subcommand].trainer
        logger = trainer.logger.get("init_args") if isinstance(trainer.logger, Namespace) else None
        if not logger or not logger.get("save_dir"):
            raise InputError(
                "expected a config whose logger says a save_dir, to find its newest run; name the "
                "run, as --resume RUN or --ckpt_path FILE"
            )
        folder = f"{logger.save_dir}/{logger.get('name') or ''}".rstrip("/")
        return newest_run(folder, checkpoint)

    def _set_seed(self) -> None:
        with refused(lambda: True):
            super()._set_seed()

    def instantiate_classes(self) -> None:
        """Make model, data and trainer; what they refuse is for the user to mend."""
        with refused(lambda: True):
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Lightning's trainer, with checkpoints that are whole or not there, and the last."""
        if self._resumed is not None:
            self.save_config_kwargs = {"overwrite": True}
        given = self._get(self.config_init, "trainer", default={})
        # Some may be a time in words, too.
        numbers = {key: v for key, v in given.items() if isinstance(v, (int, float))}
        check_ranges(numbers, _TRAINER_RANGES)
        epochs = getattr(self.datamodule, "suggested_epochs", None)
        if epochs and given.get("max_epochs") is None and given.get("max_steps") == -1:
            self._get(self.config, "trainer")["max_epochs"] = given["max_epochs"] = epochs
        plugins, callbacks = _as_list(given.get("plugins")), _as_list(given.get("callbacks"))
        if given.get("enable_checkpointing") is not False:
            folders = [c.dirpath for c in callbacks if isinstance(c, ModelCheckpoint) and c.dirpath]
            callbacks = [*callbacks, LastCheckpoint(*folders[:1])]
        callbacks = [StartReport(), *([CarryOn()] if self._resumed else []), *callbacks]
        plugins = [*plugins, AtomicCheckpointIO()]
        trainer = super().instantiate_trainer(plugins=plugins, callbacks=callbacks, **kwargs)
        processors = os.cpu_count() or 1
        if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > processors:
            raise InputError(
                f"trainer.devices must be at most {processors}, the processors that there are (got "
                f"{trainer.num_devices})"
            )
        return trainer

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Tell the model what the data say of themselves."""
        parser.set_defaults(
            {
                "model": {"class_path": "pyg_avig.train.ImageClassifier"},
                # It counts no operations here, and says that there are none.
                "trainer.enable_model_summary": False,
            }
        )
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
        self._remove_partial(kwargs.get("ckpt_path"))
        with (
            self._nothing_empty_left(folder),
            one_line_of_a_full_disk(folder),
            warnings.catch_warnings(),
        ):
            if self._resumed is not None:  # Its folder is not empty.
                warnings.filterwarnings("ignore", "(Checkpoint|Experiment logs) directory")
                if self.trainer.is_global_zero:
                    self._keep_metrics(kwargs["ckpt_path"], str(folder))
            try:
                with refused(lambda: not self.trainer.global_step):
                    self.trainer.fit(model, **kwargs)
            except Stopped as stopped:
                if self.trainer.is_global_zero:
                    print(_how_to_resume(stopped, folder), file=sys.stderr)
                raise
        trained = not self.trainer.fast_dev_run  # type: ignore[attr-defined]
        if self.trainer.is_global_zero and trained:
            place_of_run = folder if self.trainer.loggers else None
            print("\n".join(["", *end_lines(self.trainer, place_of_run)]), flush=True)

    def validate(self, model: pl.LightningModule, **kwargs: Any) -> None:
        """Measure on the validation split."""
        with self._nothing_empty_left(self.trainer.log_dir), refused(lambda: True):
            self.trainer.validate(model, **kwargs)
            _check_any("validation", self.trainer.num_val_batches)

    def test(self, model: pl.LightningModule, **kwargs: Any) -> None:
        """Measure on the test split."""
        with self._nothing_empty_left(self.trainer.log_dir), refused(lambda: True):
            self.trainer.test(model, **kwargs)
            _check_any("test", self.trainer.num_test_batches)

    @contextmanager
    def _nothing_empty_left(self, folder: str | None) -> Iterator[None]:
        """Remove the folder of a run that ends without a file or an update in it."""
        existed = folder is None or _exists(folder)
        try:
            yield
        except BaseException as error:
            begun = self.trainer.global_step or (isinstance(error, Stopped) and error.checkpoint)
            if not existed and not begun and self.trainer.is_global_zero:
                _remove_folder(str(folder), only_empty=False)
            raise
        if not existed and self.trainer.is_global_zero:
            _remove_folder(str(folder), only_empty=True)

    def _keep_metrics(self, checkpoint: str, folder: str) -> None:
        """Let a logger that goes on in a folder keep the metrics up to the checkpoint."""
        logger = self.trainer.logger
        step = read_checkpoint(checkpoint, ())["global_step"]
        columns, rows = metrics_until(folder, step)
        if not isinstance(logger, pl.loggers.CSVLogger) or not columns:
            return
        writer = logger.experiment  # Which removes them.
        write_metrics(folder, columns, rows)
        writer.metrics_keys = columns

    def _remove_partial(self, checkpoint: str | None) -> None:
        """Remove what killed runs have left half written: this one's predecessors, and siblings."""
        folders = [] if checkpoint is None else [Path(checkpoint).parent]
        if self.trainer.log_dir is not None:
            folders += Path(self.trainer.log_dir).parent.glob("*/checkpoints")
        if self.trainer.is_global_zero:
            for folder in folders:
                remove_partial(folder)


def _check_any(split: str, num_batches: Sequence[float]) -> None:
    if not sum(num_batches):
        raise InputError(f"expected data with a {split} split to measure on (got none)")


def _as_list(given: Any) -> list[Any]:
    """A field of Lightning's trainer that takes nothing, one or many."""
    return given if isinstance(given, list) else [] if given is None else [given]


def _taken(words: list[str], option: str) -> tuple[list[str], str | None]:
    """Words without an option and its value: empty if it has none, ``None`` if it is not there."""
    for n, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name != option:
            continue
        if equals:
            return [*words[:n], *words[n + 1 :]], value
        if n + 1 < len(words) and not words[n + 1].startswith("-"):
            return [*words[:n], *words[n + 2 :]], words[n + 1]
        return [*words[:n], *words[n + 1 :]], ""
    return words, None


def _exists(folder: str) -> bool:
    system, name = place(folder)
    return system.exists(name)


def _remove_folder(folder: str, only_empty: bool) -> None:
    system, name = place(folder)
    if system.exists(name) and not (only_empty and system.find(name)):
        system.rm(name, recursive=True)


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
    where = ["--resume", folder]
    if os.path.abspath(stopped.checkpoint) != os.path.abspath(Run(folder).checkpoint("last")):
        where = ["--config", f"{folder}/config.yaml", *words]
    return f"{by}; it goes on with: {shlex.join(['pyg-avig', 'fit', *where])}"


def main(args: list[str] | None = None) -> int:
    """Run `pyg-avig`; the exit status."""
    try:
        return _run(args)
    except BrokenPipeError:
        raise
    except Exception as error:
        message = mendable(error)
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
        given = arguments("predict", words[1:])
        with refused(lambda: given["config"] is not None):
            status = predict(**given)
    elif words[:1] == ["explore"]:
        status = explore_images(**arguments("explore", words[1:]))
    elif words[:1] == ["export"]:
        for path in export_checkpoint(**arguments("export", words[1:])):
            system, name = place(path)
            print(f"{path} ({system.size(name) / 1000:,.0f} kB)")
    else:
        CLI(words)
    sys.stdout.flush()  # A full disk may show only here.
    return status
