"""What the summary says of the places where records went."""

import pytest
from pydantic import TypeAdapter

from fetcher.cli.summary import _output
from fetcher.registry import config_class

LOGIN = {"sender": "a@example.org", "to": ["b@example.org", "c@example.org"], "host": "smtp.example.org"}


@pytest.mark.parametrize(
    ("type_", "settings", "said"),
    [
        ("file", {"path": "out/x.jsonl"}, "out/x.jsonl"),
        ("stdout", {}, "stdout"),
        ("sqlite", {"path": "out/x.db"}, "out/x.db"),
        ("redis", {"url": "redis://h:7000/3", "stream": "pages"}, "redis://h:7000/3/pages"),
        ("nats", {"servers": ["nats://h"], "stream": "S", "subject": "a.b"}, "nats://h:4222/S/a.b"),
        ("webhook", {"url": "https://h.test/hook?key=secret"}, "webhook https://h.test/hook"),
        ("email", LOGIN, "email to b@example.org, c@example.org"),
        ("objectstore", {"path": "s3://b/x.jsonl"}, "objectstore s3://b/x.jsonl"),
        ("postgres", {"dsn": "postgresql://u:secret@h/db"}, "postgres"),
    ],
)
def test_each_output_is_named_without_secrets(type_, settings, said):
    sink = TypeAdapter(config_class("sinks", type_)).validate_python({"type": type_} | settings)
    shown = _output(sink)
    assert shown.startswith(said)
    assert "secret" not in shown
