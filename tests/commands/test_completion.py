import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from pyg_avig import InputError
from pyg_avig.commands.completion import _parser, print_completion
from pyg_avig.commands.front import COMMANDS


def test_every_command_and_field_is_known():
    (subparsers,) = (action for action in _parser(COMMANDS, None)._actions if action.choices)
    assert list(subparsers.choices) == list(COMMANDS)
    fit = subparsers.choices["fit"]._option_string_actions
    assert {"--trainer.max_epochs", "--model.lr", "--data.root", "--ckpt_path", "--resume"} <= set(
        fit
    )
    assert "digits/nano" in fit["--config"].choices
    assert "--top" in subparsers.choices["predict"]._option_string_actions


def test_a_shell_takes_the_script(tmp_path, capsys):
    pytest.importorskip("shtab")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    print_completion("bash", COMMANDS)
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    ask = "COMP_WORDS=(pyg-avig fit --config digits/); COMP_CWORD=3; "
    ask += '_shtab_pyg_avig; printf "%s\\n" "${COMPREPLY[@]}"'
    run = subprocess.run([bash, "-c", f"source {script}; {ask}"], capture_output=True, text=True)
    assert "digits/nano" in run.stdout.split()


def test_what_is_missing_or_unknown_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", SimpleNamespace(SUPPORTED_SHELLS=["bash"], FILE=None))
    with pytest.raises(InputError, match="expected a shell of bash .got 'fish'"):
        print_completion("fish", COMMANDS)
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(InputError, match="pip install shtab"):
        print_completion("bash", COMMANDS)
