from importlib import import_module

import pytest

from fetcher.cli import app as module
from fetcher.cli.app import COMMANDS, app, main


def test_every_command_has_a_description():
    assert set(COMMANDS) == {name for name in app if not name.startswith("-")}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_description_is_the_first_line_of_its_docstring(name):
    target, text = COMMANDS[name]
    module, _, function = target.partition(":")
    assert getattr(import_module(module), function).__doc__.splitlines()[0] == text


@pytest.mark.parametrize("code", [None, 0, 3, "bye"])
def test_an_exit_that_is_not_ours_is_no_success(monkeypatch, capsys, code):
    def command(arguments):
        raise SystemExit(code)

    monkeypatch.setattr(module, "app", command)
    assert main([]) == 1
    assert f"sys.exit({code!r})" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_who_asks_for_help_gets_it(capsys, arguments):
    assert main(arguments) == 0
    assert capsys.readouterr().out
