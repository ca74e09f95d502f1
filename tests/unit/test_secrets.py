from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from fetcher.settings import Secret, Settings

SECRET: TypeAdapter = TypeAdapter(Secret)


class Section(Settings):
    token: Secret


def test_a_secret_as_text_from_a_file_and_from_the_environment(tmp_path, monkeypatch):
    path = tmp_path / "token"
    path.write_text("from a file\r\n", "utf-8")
    monkeypatch.setenv("TOKEN", "from the environment")
    found = [SECRET.validate_python(value) for value in ("text", {"file": str(path)}, {"env": "TOKEN"})]
    assert [secret.get_secret_value() for secret in found] == ["text", "from a file", "from the environment"]


def test_a_secret_is_shown_nowhere():
    section = Section(token="hidden")
    for text in (repr(section), str(section), section.model_dump_json(), repr(section.model_dump())):
        assert "hidden" not in text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"file": "/nowhere/token"}, "its file '/nowhere/token' can not be read: No such file or directory"),
        ({"env": "NOT_SET_IN_ANY_TEST"}, "the environment variable NOT_SET_IN_ANY_TEST is not set"),
        ({"env": "A", "file": "b"}, "should be a text, {file: path} or {env: NAME}"),
        ({"file": 5}, "should be a text, {file: path} or {env: NAME}"),
        ({}, "should be a text, {file: path} or {env: NAME}"),
    ],
)
def test_a_secret_that_is_not_there(value, words):
    with pytest.raises(ValidationError) as caught:
        SECRET.validate_python(value)
    assert caught.value.errors()[0]["msg"] == words


def test_a_file_that_is_not_text(tmp_path):
    path = tmp_path / "token"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValidationError, match="it is not UTF-8 text"):
        SECRET.validate_python({"file": str(path)})


def test_an_empty_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("\n")
    with pytest.raises(ValidationError, match="is empty where it is kept"):
        SECRET.validate_python({"file": str(path)})
