"""The door to every command: it answers what needs no PyTorch, and sends on what does."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pyg_avig import __version__
from pyg_avig.commands.completion import print_completion
from pyg_avig.config_files import list_configs, with_config_files
from pyg_avig.errors import InputError

COMMANDS = {
    "fit": "train a model",
    "validate": "measure a checkpoint on the validation split",
    "test": "measure a checkpoint on the test split",
    "predict": "label images, find objects, or write a table of graphs",
    "export": "write a trained model as safetensors, ONNX, a program or a folder for timm",
    "explore": "write a page on which one sees what a model attends to",
    "configs": "list what can be trained, or print a config",
    "models": "list the models, with parameters, cost and input",
    "doctor": "say what this machine has: versions, devices, kernels, data",
    "completion": "print what completes commands and options in a shell",
}

_EXAMPLES = """\
  pyg-avig fit      --config digits/nano
  pyg-avig fit      --config digits/nano --model.lr 1e-3
  pyg-avig fit      --config own_images --data.root FOLDER
  pyg-avig fit      --resume RUN
  pyg-avig test     --config RUN/config.yaml --ckpt_path best
  pyg-avig predict  RUN/checkpoints/best.ckpt IMAGE [IMAGE ...]  (or FOLDER, 'a/*.png')
  pyg-avig predict  RUN/checkpoints/best.ckpt IMAGE [IMAGE ...] --out FOLDER  (objects, pixels)
  pyg-avig predict  RUN/checkpoints/best.ckpt GRAPH.pt [...] --out FILE.csv  (graphs, nodes, edges)
  pyg-avig predict  RUN/checkpoints/best.ckpt MOLECULES.csv --out FILE.csv  (after own_graphs)
  pyg-avig predict  RUN/checkpoints/best.ckpt --config RUN/config.yaml --out FILE.csv  (the same)
  pyg-avig export   RUN/checkpoints/best.ckpt model.safetensors  (or FOLDER/, model.onnx, .pt2)
  pyg-avig explore  RUN/checkpoints/best.ckpt IMAGE [IMAGE ...] --out PAGE.html
"""


def help_text() -> str:
    """What `pyg-avig --help` prints."""
    commands = "".join(f"  {name:12}{line}\n" for name, line in COMMANDS.items())
    return (
        f"usage: pyg-avig [--help] [--version] {{{','.join(COMMANDS)}}} ...\n\n"
        "Train, validate and test AttentionViG and its relatives; use what was trained.\n\n"
        f"{commands}\n{_EXAMPLES}\n"
        "`pyg-avig COMMAND --help` lists its options; `fit --model.help=ImageClassifier` and\n"
        "`fit --data.help=Images` every field. RUN is the folder of a run, such as\n"
        "runs/digits-nano/version_0.\n"
    )


def main(words: list[str]) -> int:
    """Run a command; the exit status."""
    try:
        return _run(words)
    except InputError as error:
        print(f"pyg-avig: {error}", file=sys.stderr)
        return 2


def _run(words: list[str]) -> int:
    command = words[0] if words else "--help"
    if command in ("-h", "--help"):
        print(help_text(), end="", file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if command == "--version":
        print(f"pyg-avig {__version__}")
        return 0
    if command not in COMMANDS and not command.startswith("-"):
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"expected a command of {', '.join(COMMANDS)} (got {command!r}{hint})")
    if command in _LISTS:
        return _LISTS[command](words[1:])
    if find_spec("jsonargparse") is None:
        raise _needs("jsonargparse")
    if command in ("predict", "export", "explore"):
        # The same again behind large imports; here, so that a slip is answered at once.
        import_module("pyg_avig.arguments").arguments(command, words[1:])
    else:
        words = _trainable(words)
    try:
        cli: Any = import_module("pyg_avig.train.cli")
    except ModuleNotFoundError as error:
        raise _needs(error.name) from None
    return cli.main(words)


def _trainable(words: list[str]) -> list[str]:
    """The words of a training, with configs as files.

    Raises:
        InputError: If they say nothing to train on.
    """
    enough = ("-c", "--config", "--data", "--resume", "--print_config", "-h", "--help")
    if words[0] in COMMANDS and not any(w.startswith(enough) or ".help" in w for w in words):
        raise InputError(
            f"expected pyg-avig {words[0]} --config FILE, or a name that `pyg-avig configs` lists "
            "(got none)"
        )
    words = with_config_files(words)
    if words[0] in COMMANDS:
        # The same again behind large imports; here, so that a slip is answered at once.
        import_module("pyg_avig.commands.keys").check_keys(words)
    return words


def _needs(name: str | None) -> InputError:
    return InputError(
        f"the command line needs {name}; install it with: pip install 'pyg_avig[train]'"
    )


def _configs(words: list[str]) -> int:
    if any(word.startswith("-") for word in words):
        print("usage: pyg-avig configs [NAME ...]\n\nList the configs, or print those named.")
        return 0 if {*words} <= {"-h", "--help"} else 2
    list_configs(words)
    return 0


def _without_words(command: str, module: str, function: str) -> Callable[[list[str]], int]:
    def run(words: list[str]) -> int:
        if words:
            print(f"usage: pyg-avig {command}\n\n{COMMANDS[command].capitalize()}.")
            return 0 if {*words} <= {"-h", "--help"} else 2
        try:
            getattr(import_module(module), function)()
        except ModuleNotFoundError as error:
            raise _needs(error.name) from None
        return 0

    return run


def _completion(words: list[str]) -> int:
    if len(words) != 1 or words[0].startswith("-"):
        print(
            "usage: pyg-avig completion SHELL\n\nPrint what completes commands, options and names "
            "of configs in bash, zsh or tcsh; needs shtab.\nIn bash: "
            "pyg-avig completion bash > ~/.local/share/bash-completion/completions/pyg-avig"
        )
        return 0 if words and {*words} <= {"-h", "--help"} else 2
    try:
        print_completion(words[0], COMMANDS)
    except ModuleNotFoundError as error:
        raise _needs(error.name) from None
    return 0


_LISTS = {
    "completion": _completion,
    "configs": _configs,
    "models": _without_words("models", "pyg_avig.commands.models", "list_models"),
    "doctor": _without_words("doctor", "pyg_avig.commands.doctor", "report"),
}
