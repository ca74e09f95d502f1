"""What is said while nothing ends."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from fetcher.cli import waiting
from fetcher.cli.text import counted, duration
from fetcher.engine.waiting import Straggler, Waiting
from fetcher.interfaces import Standing

BODY = Straggler("http://a.test/big", "a.test", 2, 21.0, Standing("body", 20.0, 3000, 40.0))
SILENT = Straggler("http://b.test/never", "b.test", 1, 14.2, Standing("first byte", 14.1, 0, 15.9))


def drawn(found, quiet=14.0, width=120):
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(waiting.render(found, quiet))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_a_lull_is_worth_a_word_after_a_while():
    lull = waiting.Lull(5, 100.0)
    assert lull.update(5, 102.9) is None
    assert lull.update(5, 103.0) == 3.0
    assert lull.update(6, 104.0) is None
    assert lull.update(6, 110.0) == 6.0


def test_jobs_in_flight_are_named_with_phase_and_seconds():
    assert drawn(Waiting(in_flight=9, stragglers=[BODY, SILENT])) == [
        "nothing has ended for 0:14; in flight for longest:",
        "http://a.test/big body 0:20 attempt 2, 2.9 KiB, at most 0:40 more",
        "http://b.test/never first byte 0:14 at most 0:15 more",
        "and 7 more in flight",
    ]


def test_on_a_narrow_terminal_only_the_url_gives_way():
    straggler = Straggler("http://a.test/" + "x" * 500, "a.test", 2, 21.0, BODY.standing)
    shown = drawn(Waiting(in_flight=1, stragglers=[straggler]), width=80)
    assert len(shown) == 2
    assert shown[1].startswith("http://a.test/xxxx")
    assert shown[1].endswith("\N{HORIZONTAL ELLIPSIS} body 0:20 attempt 2, 2.9 KiB, at most 0:40 more")


def test_a_transport_that_does_not_tell():
    straggler = Straggler("http://a.test/", "a.test", 1, 5.0)
    assert drawn(Waiting(in_flight=1, stragglers=[straggler]))[1] == "http://a.test/ in flight 5.0 s"


def test_what_is_waited_for_if_nothing_is_in_flight():
    assert drawn(Waiting(queued=1, next_due=8.0, resting=[("a.test", 9.5)], reading=True)) == [
        "nothing has ended for 0:14",
        "1 job in the queue, the next retry in 8.0 s",
        "a.test rests for another 9.5 s",
        "the sources are still being read",
    ]


def test_what_jobs_wait_for_that_could_not_begin():
    found = Waiting(queued=2, next_due=8.0, postponed=[("the token endpoint \x1b[31m is down", 7.51)])
    assert drawn(found, width=200)[2:] == ["the token endpoint \\x1b[31m is down; asked again in 7.5 s"]
    assert waiting.fields(found, 14.0)["postponed"] == {"the token endpoint \\x1b[31m is down": 7.5}


def test_while_draining_only_what_has_begun_is_waited_for():
    found = Waiting(queued=5, next_due=8.0, resting=[("a.test", 9.5)], writing=["sink:0"], draining=True)
    assert drawn(found) == ["nothing has ended for 0:14", "sink:0 is writing"]
    assert waiting.fields(found, 14.0) == {"quiet_s": 14.0, "in_flight": 0, "jobs": [], "writing": ["sink:0"]}


def test_the_same_in_the_log():
    found = Waiting(in_flight=2, stragglers=[SILENT], queued=3, next_due=4.04, resting=[("a.test", 9.54)])
    assert json.loads(json.dumps(waiting.fields(found, 14.04))) == {
        "quiet_s": 14.0,
        "in_flight": 2,
        "jobs": [
            {
                "url": "http://b.test/never",
                "host": "b.test",
                "attempt": 1,
                "phase": "first byte",
                "seconds": 14.1,
                "received": 0,
                "left_s": 15.9,
            }
        ],
        "writing": [],
        "queued": 3,
        "next_due_s": 4.0,
        "resting": {"a.test": 9.5},
    }


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:secret@a.test/", "http://***@a.test/"),
        ("http://a.test/\x1b[31m\n", "http://a.test/\\x1b[31m\\n"),
        ("http://a.test/" + "x" * 500, "http://a.test/" + "x" * 63 + "..."),
    ],
)
def test_a_url_is_shown_safely(url, shown):
    straggler = Straggler(url, "a.test", 1, 5.0)
    assert shown in drawn(Waiting(in_flight=1, stragglers=[straggler]))[1]
    assert "secret" not in str(waiting.fields(Waiting(in_flight=1, stragglers=[straggler]), 5.0))


@pytest.mark.parametrize(
    ("value", "text"), [(0.2, "0.2 s"), (90, "90 s"), (600.0, "10 min"), (7200.0, "2 h"), (5400.0, "90 min")]
)
def test_a_duration_is_written_as_somebody_may_have_set_it(value, text):
    assert duration(value) == text


def test_a_number_of_things():
    assert [counted(number, "job") for number in (0, 1, 2000)] == ["0 jobs", "1 job", "2,000 jobs"]
