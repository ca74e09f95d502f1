"""Bodies alone."""

from __future__ import annotations

from datetime import UTC, datetime

from fetcher.config import load
from fetcher.formats.body import BodyFormatConfig
from fetcher.model import Outcome, Result

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def record(body):
    return Result(
        batch="b", job_id="1", url="http://a.test/", outcome=Outcome.OK, attempts=1, finished_at=NOW, body=body
    )


def test_bodies_are_written_as_they_came_and_nothing_else():
    form = BodyFormatConfig().build()
    assert form.begin() == b""
    assert form.encode([record(b"\x00\xff"), record(None), record(b""), record(b"\n")]) == b"\x00\xff\n"
    assert form.encode([]) == b""


def test_it_is_a_format_of_standard_output_and_of_files():
    sinks = '[{"type": "stdout", "format": "body"}, {"type": "file", "path": "x.bin", "format": "body"}]'
    config = load(None, ["sources=[http://127.0.0.1/]", f"sinks={sinks}"], {})
    assert [sink.format.type for sink in config.sinks] == ["body", "body"]
