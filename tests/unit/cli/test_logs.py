"""The log is JSON lines, whoever writes to it."""

from __future__ import annotations

import io
import json
import logging
import sys

import pytest
import structlog

from fetcher.cli.logs import LibraryHandler, configure_logging


@pytest.fixture
def logged(monkeypatch):
    """Return the lines that were logged so far."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    before = structlog.get_config()
    configure_logging()
    configure_logging()

    def read():
        text = stream.getvalue()
        assert text.isascii()
        assert not {character for character in text if ord(character) < 32} - {"\n"}
        return [json.loads(line) for line in text.splitlines()]

    yield read
    structlog.configure(**before)
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, LibraryHandler)]


def test_an_event_is_a_line_with_its_time_and_level(logged):
    structlog.get_logger().info("batch_started", batch="b")
    (line,) = logged()
    assert (line["event"], line["level"], line["batch"]) == ("batch_started", "info", "b")
    assert line["timestamp"].endswith("Z")


def test_control_characters_and_terminal_escapes_are_escaped(logged):
    hostile = "\x1b[2J\r\n\x00\x9b31m\u202egnp.exe\x7f"
    structlog.get_logger().warning("refused", reason=hostile)
    logging.getLogger("some.library").warning("%s", hostile)
    first, second = logged()
    assert first["reason"] == second["message"] == hostile


def test_what_a_library_logs_is_an_event_once(logged):
    logging.getLogger("aiohttp.server").error("not for %s", "http://user:s3cr3t@h/")
    (line,) = logged()
    assert (line["event"], line["level"], line["logger"]) == ("library_log", "error", "aiohttp.server")
    assert line["message"] == "not for http://***@h/"


def fail():
    raise ValueError("x" * 3000 + " the reason")


def test_a_traceback_is_a_field(logged):
    try:
        fail()
    except ValueError:
        logging.getLogger("aiohttp.server").exception("unhandled")
        structlog.get_logger().exception("batch_crashed")
    first, second = logged()
    assert first["exception"].endswith("the reason\n")
    assert len(first["exception"]) <= 2000
    assert "Traceback" in second["exception"]


def test_what_a_library_says_in_passing_is_not_logged(logged):
    logging.getLogger("aiohttp.access").info("GET /")
    assert logged() == []
