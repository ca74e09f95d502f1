from __future__ import annotations

import os

import pytest
from pydantic import TypeAdapter, ValidationError

from fetcher.settings import Secret, Settings, secrets_checked

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


def test_a_file_that_is_too_large_for_a_secret(tmp_path):
    path = tmp_path / "token"
    path.write_bytes(b"a" * 65_536)
    assert len(SECRET.validate_python({"file": str(path)}).get_secret_value()) == 65_536
    path.write_bytes(b"a" * 65_537)
    with pytest.raises(ValidationError, match="can not be read: it is larger than 64 KiB"):
        SECRET.validate_python({"file": str(path)})


def test_a_device_without_an_end():
    with pytest.raises(ValidationError, match="can not be read: it is larger than 64 KiB"):
        SECRET.validate_python({"file": "/dev/zero"})


def test_a_pipe_is_read_where_no_place_is_checked():
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe\n")
    os.close(writing)
    try:
        found = SECRET.validate_python({"file": f"/dev/fd/{reading}"})
    finally:
        os.close(reading)
    assert found.get_secret_value() == "from a pipe"


@pytest.mark.parametrize("name", ["pipe", "folder", "/dev/null"])
def test_where_places_are_checked_a_secret_is_in_a_regular_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "token").write_text("secret")
    (tmp_path / "link").symlink_to("token")
    with secrets_checked(lambda kind, name: None):
        assert SECRET.validate_python({"file": "link"}).get_secret_value() == "secret"
        with pytest.raises(ValidationError, match=f"its file '{name}' can not be read: it is no regular file"):
            SECRET.validate_python({"file": name})
