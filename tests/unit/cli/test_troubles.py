"""What is said of sinks that do not take records."""

from __future__ import annotations

from types import SimpleNamespace

import structlog
from structlog.testing import capture_logs

from fetcher.cli import troubles
from fetcher.pipeline.outlet import Outlet, Trouble
from fetcher.testing import MemorySink


def delivery(*outlets):
    return SimpleNamespace(outlets=list(outlets))


def outlet(title, trouble=None, **figures):
    made = Outlet(title, MemorySink())
    made.trouble = trouble
    for name, value in figures.items():
        setattr(made, name, value)
    return made


def test_figures_are_those_of_sinks_that_have_had_trouble():
    well, badly = outlet("well", lag=5), outlet("badly", errors=3, lag=7, dead_letters=2)
    assert troubles.fields(delivery(well)) == {}
    assert troubles.fields(delivery(well, badly)) == {"delivery": {"badly": {"lag": 7, "errors": 3, "dead_letters": 2}}}


def test_a_line_for_each_sink_in_trouble_with_nothing_a_terminal_obeys():
    away = outlet("away", Trouble(40.0, "no\x1b[2Jdisk", 3))
    (line,) = troubles.render(delivery(outlet("well"), away), 130.0)
    assert line.plain == "away does not take records for 1:30: no\\x1b[2Jdisk"


def test_the_beginning_and_the_end_of_trouble_are_logged_once():
    structlog.reset_defaults()
    watched, sink = troubles.Troubles(), outlet("db")
    with capture_logs() as logs:
        for now, trouble in [(1.0, None), (2.0, Trouble(1.5, "away", 1)), (3.0, Trouble(1.5, "away", 2)), (5.5, None)]:
            sink.trouble = trouble
            watched.log(delivery(sink), "b", now)
    assert logs == [
        {"log_level": "warning", "event": "sink away", "batch": "b", "sink": "db", "message": "away"},
        {"log_level": "info", "event": "sink back", "batch": "b", "sink": "db", "after_s": 4.0},
    ]
