"""The email sink and a server with STARTTLS and a login; whole batches that end in every way."""

from __future__ import annotations

import csv
import io
import socket
import sys

import pytest
from pydantic import ValidationError
from servers.smtp import SmtpServer

from fetcher.errors import ConfigError, ErrorKind, MissingExtraError, SinkError
from fetcher.interfaces import Ending
from fetcher.model import Outcome, Result
from fetcher.sinks.email import EmailConfig


def failures(*names, **fields):
    return [
        Result(
            batch="b",
            job_id=f"0:{name}",
            url=f"http://a.test/{name}",
            outcome=Outcome.FAILED,
            error_kind=ErrorKind.HTTP_5XX,
            error_message="=cmd|' /C calc'!A0",
            attempts=4,
            **fields,
        )
        for name in names
    ]


def ending(**fields):
    usual = {
        "batch": "b",
        "jobs": 1000,
        "outcomes": {"ok": 990, "failed": 10},
        "statuses": {"2xx": 990, "5xx": 10},
        "kinds": {"http_5xx": 10},
        "seconds": 61.0,
        "limit": "5%",
        "exceeded": False,
    }
    return Ending(**usual | fields)


@pytest.fixture
def server(smtp):
    smtp.reset()
    return smtp


@pytest.fixture
def made(server):
    return lambda **settings: EmailConfig.model_validate(server.options | {"timeout": 5.0} | settings).build()


def table(message):
    (attachment,) = message.iter_attachments()
    assert attachment.get_content_type() == "text/csv"
    assert attachment.get_filename() == "failures.csv"
    return list(csv.DictReader(io.StringIO(attachment.get_content())))


async def test_a_message_has_the_summary_twice_and_the_failures(server, made):
    sink = made()
    await sink.check(None, resume=False)
    assert server.messages == []
    await sink.open(None)
    ok = Result(batch="b", job_id="0:ok", url="http://a.test/ok", outcome=Outcome.OK, attempts=1)
    await sink.write([ok, *failures(1, 2)])
    await sink.conclude(ending(batch="<b>"))
    (message,) = server.messages
    assert message["subject"] == "[fetcher] <b>: finished, 10 of 1,000 jobs failed"
    assert (message["from"], message["to"]) == ("batches@example.org", "ops@example.org")
    assert message["auto-submitted"] == "auto-generated"
    assert message["message-id"].endswith("@example.org>")
    text, html = (message.get_body((kind,)).get_content() for kind in ("plain", "html"))
    for words in ("1,000", "ok 990, failed 10", "2xx 990, 5xx 10", "http_5xx", "61 s", "the first 2 of 10"):
        assert words in text
        assert words in html
    assert "<b>" in text
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    first, second = table(message)
    assert first["url"] == "http://a.test/1"
    assert second["error_message"] == "'=cmd|' /C calc'!A0"


async def test_what_was_skipped_is_told_of_unless_it_was_not_wanted(server, made):
    kinds = [ErrorKind.INVALID_ROW, ErrorKind.HOST_DOWN, ErrorKind.ROBOTS_UNREACHABLE, ErrorKind.ROBOTS_DISALLOWED]
    skipped = [
        Result(batch="b", job_id=str(kind), url="u", outcome=Outcome.SKIPPED, error_kind=kind, attempts=0)
        for kind in kinds
    ]
    sink = made()
    await sink.open(None)
    await sink.write([*skipped, *failures(1)])
    counts = {"ok": 5, "failed": 1, "skipped": 4}
    await sink.conclude(ending(jobs=10, outcomes=counts, kinds=dict.fromkeys(map(str, kinds), 1) | {"http_5xx": 1}))
    (message,) = server.messages
    assert message["subject"] == "[fetcher] b: finished, 3 of 10 jobs failed"
    assert "all of them in failures.csv" in message.get_body(("plain",)).get_content()
    assert [row["error_kind"] for row in table(message)] == [*map(str, kinds[:3]), "http_5xx"]


async def test_an_input_that_could_not_be_used_at_all_is_trouble(server, made):
    sink = made(when="trouble")
    await sink.open(None)
    await sink.conclude(ending(jobs=3, outcomes={"skipped": 3}, kinds={"invalid_url": 3}, exceeded=True))
    (message,) = server.messages
    assert message["subject"] == "[fetcher] b: FAILED, none of 3 rows of the input could be used"


async def test_failures_are_bounded_and_survive_a_crash(server, made):
    sink = made(attach=5)
    mark = await sink.open(None)
    mark = await sink.write(failures(1, 2, "\udcff")) or mark
    again = made(attach=5)
    await again.check(mark, resume=True)
    assert await again.open(mark) == mark
    for _ in range(3):
        await again.write(failures(*range(10, 1000), headers=[("x", "y" * 5000)], body=b"x" * 5000))
    assert len(await again.write(failures(1))) < 5000
    await again.conclude(ending())
    (message,) = server.messages
    assert [row["job_id"] for row in table(message)] == ["0:1", "0:2", "0:?", "0:10", "0:11"]


async def test_one_message_an_ending(server, made):
    sink = made()
    await sink.open(None)
    stopped = await sink.conclude(ending(stopped="disk full"))
    assert await sink.conclude(ending(stopped="disk full")) == stopped
    again = made()
    await again.open(stopped)
    await again.conclude(ending(stopped="disk full"))
    finished = await again.conclude(ending())
    last = made()
    await last.open(finished)
    await last.conclude(ending())
    assert [message["subject"].partition(": ")[2][:8] for message in server.messages] == ["STOPPED,", "finished"]


async def test_a_message_that_is_sent_again_has_the_same_id(server, made):
    sink = made()
    mark = await sink.open(None)
    await sink.conclude(ending())
    again = made()  # the process died before the new mark was committed
    await again.open(mark)
    await again.conclude(ending())
    anew = made()
    await anew.open(None)
    await anew.conclude(ending())
    ids = [message["message-id"] for message in server.messages]
    assert ids[0] == ids[1] != ids[2]


async def test_only_trouble_is_told_of_if_that_is_wanted(server, made):
    for fields in ({}, {"exceeded": True}, {"stopped": "disk full"}):
        sink = made(when="trouble")
        await sink.open(None)
        await sink.conclude(ending(**fields))
    subjects = [message["subject"] for message in server.messages]
    assert subjects == [
        "[fetcher] b: FAILED, 10 of 1,000 jobs failed (more than 5%)",
        "[fetcher] b: STOPPED, 1,000 of 1,000 jobs done",
    ]


async def test_nothing_of_a_batch_becomes_a_header_or_a_line_of_its_own(server, made):
    sink = made(subject="{batch} {ending}")
    await sink.open(None)
    evil = "x\r\nBcc: victim@example.org\r\n\r\n.\r\nMAIL FROM:<x>\u2028\x1b[31m"
    await sink.write(failures(evil))
    await sink.conclude(ending(batch=evil, stopped=evil, kinds={evil: 1}, statuses={evil: 1}))
    (message,) = server.messages
    assert "bcc" not in message
    assert message["to"] == "ops@example.org"
    assert server.envelopes[0].rcpt_tos == ["ops@example.org"]
    assert message["subject"].startswith("x Bcc: victim@example.org")


@pytest.mark.parametrize("answer", ["451 try later", "421 going down"])
async def test_a_server_that_is_busy_is_tried_again(server, made, answer):
    sink = made()
    await sink.open(None)
    server.answer = answer
    with pytest.raises(SinkError, match=f"can not be reached: it answered {answer[:3]}") as failure:
        await sink.conclude(ending())
    assert failure.value.retryable
    server.answer = "250 OK"
    await sink.conclude(ending())
    assert len(server.messages) == 1


async def test_a_message_that_is_refused_for_good(server, made):
    sink = made()
    await sink.open(None)
    server.answer = "554 looks like spam"
    with pytest.raises(SinkError, match=r"the server refuses the message: 554 looks like spam") as failure:
        await sink.conclude(ending())
    assert not failure.value.retryable


async def test_what_the_server_refuses_is_known_before_the_first_fetch(server, made):
    with pytest.raises(ConfigError, match=r"the server refuses to log in \(535\); see username and password"):
        await made(password="wrong").check(None, resume=False)
    server.refused = {"nobody@example.org"}
    with pytest.raises(ConfigError, match=r"refuses nobody@example.org: 550 no such user here; see to"):
        await made(to=["ops@example.org", "nobody@example.org"]).check(None, resume=False)
    with pytest.raises(ConfigError, match=r"the server refuses to log in \(530\)|refuses batches@example.org: 530"):
        await made(tls="none", username=None, password=None).check(None, resume=False)
    with pytest.raises(ConfigError, match=r"its certificate is not to be trusted: .*; see ca_file"):
        await made(ca_file=None).check(None, resume=False)


@pytest.mark.parametrize(("resume", "code"), [(False, 78), (True, 75)])
async def test_a_server_that_is_away_at_the_start(made, resume, code):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(SinkError, match="can not be reached") as failure:
        await made(port=port).check(None, resume=resume)
    assert (failure.value.retryable, failure.value.exit_code) == (True, code)


async def test_tls_from_the_first_byte():
    server = SmtpServer(implicit_tls=True)
    try:
        sink = EmailConfig.model_validate(server.options).build()
        await sink.check(None, resume=False)
        await sink.open(None)
        await sink.conclude(ending())
        assert len(server.messages) == 1
    finally:
        server.close()


async def test_a_missing_driver_is_named(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiosmtplib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'aiosmtplib>="):
        await made().check(None, resume=False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sender": "a@b.test\r\nBcc: c@d.test"}, "should be an address"),
        ({"to": ["Name <a@b.test>"]}, "should be an address"),
        ({"to": ["a@b.test, c@d.test"]}, "should be an address"),
        ({"subject": "x\ny"}, "should be one line of printable text"),
        ({"username": "u"}, "has a username without a password"),
        ({"username": "u", "password": "hidden", "tls": "none"}, "would send its password in the clear"),
        ({"host": "a.test\r\nx"}, "should match pattern"),
    ],
)
def test_settings_that_can_not_be_meant(settings, words):
    with pytest.raises(ValidationError) as caught:
        EmailConfig.model_validate({"host": "a.test", "sender": "a@b.test", "to": ["a@b.test"]} | settings)
    message = caught.value.errors()[0]["msg"]
    assert words in message
    assert "hidden" not in message
