"""Keys that are refused before PyTorch is loaded: those that the parser would refuse, no others."""

import re
import shlex
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentError

from pyg_avig import InputError
from pyg_avig.commands.keys import check_keys
from pyg_avig.config_files import named_configs, with_config_files
from pyg_avig.train.cli import CLI

NANO = str(named_configs()["digits/nano"])
COMMANDS = ("fit", "validate", "test")


class _Built(Exception):
    """The parsers are there."""


@pytest.fixture(scope="module")
def parsers():
    """The real parsers, by command."""
    built = {}

    class Parsers(CLI):
        def parse_arguments(self, parser, args):
            built.update(self._subcommand_parsers)
            raise _Built

    with suppress(_Built):
        Parsers([])
    return built


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_the_parser_passes(command, parsers):
    options = [option for option in parsers[command]._option_string_actions if "--" in option]
    assert len(options) > 40
    for option in options:
        check_keys([command, f"{option}=x"])
        check_keys([command, "--config", f"{{{option.removeprefix('--')}: x}}"])


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", named_configs())
def test_every_config_passes(name, command):
    check_keys([command, "--config", str(named_configs()[name])])


OF_PAGES = [
    line.replace("\\\n", " ")
    for page in ("README.md", *map(str, sorted(Path("docs").glob("*.md"))))
    for line in re.findall(r"^pyg-avig (?:fit|test) (?:.*\\\n)*.*", Path(page).read_text(), re.M)
    if "/config.yaml" not in line and "FILE" not in line  # Of a run that is not here.
]


@pytest.mark.parametrize("line", OF_PAGES)
def test_every_command_of_the_pages_passes(line):
    check_keys(with_config_files(shlex.split(line, comments=True)[1:]))


def test_there_are_commands_in_the_pages():
    assert len(OF_PAGES) > 20


WRONG = [
    (["--foo=1"], "an option that `pyg-avig fit --help` lists (got --foo)"),
    (["--modle.lr", "1"], "(got --modle; did you mean model?)"),
    (["--optimizer=Adam"], "(got --optimizer)"),
    (["--trainer.max_epoch", "3"], "(got --trainer.max_epoch; did you mean max_epochs?)"),
    (["--trainer={max_epoch: 3}"], "(got --trainer.max_epoch; did you mean max_epochs?)"),
    (["--trainer.callback+=RichProgressBar"], "did you mean callbacks?"),
    (["--model.foo", "1"], "an argument of pyg_avig.train.ImageClassifier that"),
    (["--model.init_args.lrr=1"], "(got --model.init_args.lrr; did you mean lr?)"),
    (["--model={init_args: {lrr: 1}}"], "(got --model.init_args.lrr; did you mean lr?)"),
    (["--model=GraphTask", "--model.label_smoothin=0"], "GraphTask"),
    (["--data.bath_size", "4"], "(got --data.bath_size; did you mean batch_size?)"),
    (["--data=OwnImages", "--data.rot=FOLDER"], "pyg_avig.data.Digits or pyg_avig.data.OwnImages"),
    (["--config", "{data: {init_args: {bath_size: 4}}}"], "(got data.init_args.bath_size; did"),
    (["--config={trainer.max_epoch: 4}"], "(got trainer.max_epoch; did you mean max_epochs?)"),
    (["--config={seed: 4}"], "(got seed"),
]


@pytest.mark.parametrize(("options", "said"), WRONG, ids=str)
def test_a_slip_is_named(options, said, parsers):
    with pytest.raises(InputError) as refused:
        check_keys(["fit", "--config", NANO, *options])
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(ArgumentError):  # Nothing that it would take is refused.
        parsers["fit"].parse_args(["--config", NANO, *options])


NAMES = [
    *("trainer", "model", "data", "seed_everything", "ckpt_path", "init_args", "class_path"),
    *("dict_kwargs", "max_epochs", "max_epoch", "callbacks", "callbacks+", "logger", "foo", ""),
    *("lr", "lrr", "batch_size", "model_args", "model_args+", "classes", "__path__"),
]
CONTENTS = ["1", "null", "{}", "{lr: 1}", "{init_args: {lr: 1}}", "{max_epochs: 1}", "GraphTask"]


@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3), *2 * [st.sampled_from(CONTENTS)])
def test_nothing_that_the_parser_takes_is_refused(parsers, path, option, content):
    key = ".".join(path)
    for word in (f"--{key}={option}", f"--config={{{key}: {content}}}"):
        words = ["--config", NANO, word]
        try:
            check_keys(["fit", *words])
        except InputError:
            with pytest.raises(ArgumentError):
                parsers["fit"].parse_args(words)


def test_a_slip_in_a_file_is_named_with_the_file(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("data:\n  class_path: pyg_avig.data.Digits\n  init_args:\n    bath_size: 4\n")
    with pytest.raises(InputError, match=r"own\.yaml: .*did you mean batch_size"):
        check_keys(["test", f"--config={file}"])


@pytest.mark.parametrize(
    "options",
    [
        ["--model=my_package.Model", "--model.foo=1"],
        ["--model=torch.nn.Linear", "--model.foo=1"],
        ["--data.class_path=my_data.Data", "--data.foo=1"],
        ["--data", "own.yaml", "--data.foo=1"],
        ["--data.dict_kwargs.foo=1"],
        ["--model.model_args.foo=1"],
        ["--model.model_args={foo: 1}"],
        ["--trainer.logger.foo=1"],
        ["--trainer.callbacks+=Foo", "--trainer.callbacks.foo=1"],
        ["--foo=1", "--help"],
        ["--model.help=Foo", "--foo"],
        ["--resume", "--model.foo=1"],
        ["--config={foo"],
        ["--config=foo"],
        ["--config=s3://bucket/a.yaml"],
        ["--print_config=skip_null"],
        ["--trainer.logger.init_args.name", "two words --foo"],
        ["-x"],
        ["--"],
    ],
    ids=str,
)
def test_the_parser_judges_the_rest(options):
    check_keys(["fit", "--config", NANO, *options])
