from __future__ import annotations

from pathlib import Path

from fetcher.config import load

EXAMPLE = Path(__file__).parents[3] / "config" / "remote_sinks.yaml"
NAMES = ("WEBHOOK_SECRET", "REDIS_PASSWORD", "NATS_TOKEN", "SMTP_PASSWORD")


def test_the_example_of_remote_sinks_can_be_loaded_and_shows_no_secret(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "hidden")
    config = load(str(EXAMPLE))
    assert [sink.type for sink in config.sinks] == ["webhook", "redis", "nats", "email"]
    for sink in config.sinks:
        assert "hidden" not in repr(sink) + sink.model_dump_json() + repr(sink.build())
