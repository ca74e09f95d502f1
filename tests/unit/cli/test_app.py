from importlib import import_module

import pytest

from fetcher.cli.app import COMMANDS, app


def test_every_command_has_a_description():
    assert set(COMMANDS) == {name for name in app if not name.startswith("-")}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_description_is_the_first_line_of_its_docstring(name):
    target, text = COMMANDS[name]
    module, _, function = target.partition(":")
    assert getattr(import_module(module), function).__doc__.splitlines()[0] == text
