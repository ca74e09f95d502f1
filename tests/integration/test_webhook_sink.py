"""The webhook sink and a receiver that keeps its word, or does not."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import textwrap
import time
from email.utils import formatdate

import pytest
import trustme
from certificates import serving, write_authority
from pydantic import ValidationError
from servers.webhook import SECRET, WebhookServer

from fetcher.errors import ConfigError, SinkError
from fetcher.model import Outcome, Result
from fetcher.sinks import webhook as module
from fetcher.sinks.webhook import WebhookConfig, retry_after


def documented():
    """Return the function that the documentation gives to receivers."""
    text = module.__doc__
    code = textwrap.dedent(text[text.index("      def is_genuine") : text.index("- ``Idempotency-Key``")])
    names = {"hmac": hmac, "hashlib": hashlib}
    exec(code, names)
    return names["is_genuine"]


def results(*names, **fields):
    return [
        Result(batch="b", job_id=f"0:{name}", url=f"http://a.test/{name}", outcome=Outcome.OK, attempts=1, **fields)
        for name in names
    ]


@pytest.fixture
def server(webhook):
    webhook.reset()
    return webhook


@pytest.fixture
async def made(server, tmp_path):
    sinks = []

    def make(**settings):
        usual = {"url": server.url, "secret": SECRET, "rejected": str(tmp_path / "rejected.jsonl"), "timeout": 10.0}
        sinks.append(WebhookConfig.model_validate(usual | settings).build())
        return sinks[-1]

    yield make
    for sink in sinks:
        await sink.close()


def rejected(tmp_path):
    path = tmp_path / "rejected.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


async def opened(sink):
    await sink.check(None, resume=False)
    await sink.open(None)
    return sink


@pytest.mark.parametrize("form", ["json", "ndjson"])
async def test_a_request_is_signed_and_its_records_can_be_parsed(server, made, form):
    sink = await opened(made(format=form, headers={"authorization": "Bearer x"}))
    await sink.write(results("é", 2, body=b"text"))
    ping, posted = server.requests
    assert ping.records == []
    assert [(record["job_id"], record["body"]) for record in posted.records] == [("0:é", "text"), ("0:2", "text")]
    assert posted.headers["content-type"] == {"json": "application/json", "ndjson": "application/x-ndjson"}[form]
    assert posted.headers["authorization"] == "Bearer x"
    assert posted.headers["fetcher-batch"] == "b"
    is_genuine = documented()
    for request in (ping, posted):
        header = request.headers["fetcher-signature"]
        assert is_genuine(header, request.body, SECRET, time.time())
        assert not is_genuine(header, request.body + b" ", SECRET, time.time())
        assert not is_genuine(header, request.body, "another", time.time())
        assert not is_genuine(header, request.body, SECRET, time.time() + 1000)


async def test_a_request_has_no_more_than_it_may(server, made):
    sink = await opened(made(records=3, ping=False))
    await sink.write(results(*range(8)))
    assert [len(posted.records) for posted in server.requests] == [3, 3, 2]
    server.reset()
    small = await opened(made(size=1000, ping=False))
    await small.write(results(1, 2, body=b"x" * 600) + results(3, body=b"x" * 5000) + results(4, 5))
    assert [len(posted.records) for posted in server.requests] == [1, 1, 1, 2]


async def test_what_is_posted_again_has_the_same_key_and_what_was_taken_is_not_posted_again(server, made):
    sink = await opened(made(records=2, ping=False))
    server.answer = lambda posted: 503 if "0:3" in posted.body.decode() else 200
    for _ in range(2):
        with pytest.raises(SinkError) as failure:
            await sink.write(results(1, 2, 3, 4, 5))
        assert failure.value.retryable
    server.answer = lambda _: 200
    await sink.write(results(1, 2, 3, 4, 5))
    keys = [posted.headers["idempotency-key"] for posted in server.requests]
    assert [posted.status for posted in server.requests] == [200, 503, 503, 200, 200]
    assert len(set(keys)) == 3
    assert keys[1] == keys[2] == keys[3]


async def test_the_key_is_the_same_after_a_crash_and_another_in_another_run(server, made):
    first = made(ping=False)
    mark = await first.open(None)
    await first.write(results(1, 2))
    again = made(ping=False)
    await again.open(mark)
    await again.write(results(1, 2))
    anew = made(ping=False)
    await anew.open(None)
    await anew.write(results(1, 2))
    keys = [posted.headers["idempotency-key"] for posted in server.requests]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("header", "pause"),
    [("7", 7.0), (None, None), ("soon", None), ("-1", None), ("999999999999", 600.0), ("0", None), ("²", None)],
)
async def test_a_receiver_that_asks_to_wait_is_waited_for(server, made, header, pause):
    sink = await opened(made(ping=False))
    server.answer = lambda _: (429, {} if header is None else {"Retry-After": header})
    with pytest.raises(SinkError) as failure:
        await sink.write(results(1))
    assert failure.value.retryable
    assert failure.value.pause == pause


def test_a_date_in_retry_after():
    now = 1_700_000_000.0
    assert retry_after(formatdate(now + 90, usegmt=True), now) == 90.0
    assert retry_after(formatdate(now - 90, usegmt=True), now) == 0.0
    assert retry_after(formatdate(now + 9000, usegmt=True), now) == 600.0


@pytest.mark.parametrize("poison", [{3}, {0}, {9}, {4, 5}, {0, 4, 9}])
async def test_poison_is_found_kept_aside_and_holds_up_nothing(server, made, tmp_path, poison):
    server.answer = lambda posted: (
        422 if any(r["job_id"] in {f"0:{n}" for n in poison} for r in posted.records) else 200
    )
    sink = await opened(made())
    await sink.write(results(*range(10)))
    await sink.write(results("later"))
    names = [record["job_id"] for record in server.records]
    assert names == [*(f"0:{n}" for n in range(10) if n not in poison), "0:later"]
    kept = rejected(tmp_path)
    assert [line["record"]["job_id"] for line in kept] == [f"0:{n}" for n in sorted(poison)]
    assert {line["reason"] for line in kept} == {"HTTP 422: said 422"}
    assert kept[0]["refused_by"] == f"webhook {server.url}"


async def test_the_search_for_poison_goes_on_where_it_was_interrupted(server, made, tmp_path):
    fail = iter([422, 200, 503, 503])
    server.answer = lambda posted: next(fail, None) or (422 if "0:3" in posted.body.decode() else 200)
    sink = await opened(made(ping=False))
    for _ in range(2):
        with pytest.raises(SinkError) as failure:
            await sink.write(results(0, 1, 2, 3))
        assert failure.value.retryable
    await sink.write(results(0, 1, 2, 3))
    assert [[r["job_id"][2:] for r in posted.records] for posted in server.requests] == [
        ["0", "1", "2", "3"],
        ["0", "1"],
        *[["2", "3"]] * 3,
        ["2"],
        ["3"],
    ]
    assert [line["record"]["job_id"] for line in rejected(tmp_path)] == ["0:3"]


async def test_a_receiver_that_refuses_everything_stops_the_run(server, made):
    sink = await opened(made(ping=False))
    server.answer = lambda _: 400
    with pytest.raises(SinkError, match="refused all of the first 12 records; see") as failure:
        await sink.write(results(*range(12)))
    assert not failure.value.retryable


async def test_records_that_can_not_be_kept_aside_stop_the_run(server, made, tmp_path):
    (tmp_path / "file").write_text("")
    sink = await opened(made(ping=False, rejected=str(tmp_path / "file" / "rejected.jsonl")))
    server.answer = lambda _: 400
    with pytest.raises(SinkError, match=r"rejected\.jsonl: can not be written: .*; it is where rejected records go"):
        await sink.write(results(1))


async def test_a_redirect_is_not_followed(server, made):
    server.answer = lambda _: (307, {"Location": f"{server.url}/elsewhere"})
    with pytest.raises(ConfigError, match="redirects are not followed, so give the final URL"):
        await opened(made())
    sink = made()
    await sink.open(None)
    with pytest.raises(SinkError, match="redirects are not followed") as failure:
        await sink.write(results(1))
    assert not failure.value.retryable
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, r"does not accept who asks \(HTTP 401: said 401\); see secret and headers"),
        (403, r"does not accept who asks \(HTTP 403: said 403\)"),
        (404, r"does not take posted records \(HTTP 404: said 404\); see url and format"),
        (405, "does not take posted records"),
    ],
)
async def test_what_is_wrong_for_all_records_is_known_before_the_first_fetch(server, made, status, words):
    server.answer = lambda _: status
    with pytest.raises(ConfigError, match=words):
        await made().check(None, resume=False)


async def test_who_does_not_like_the_ping_for_having_no_records_is_no_reason_to_stop(server, made):
    server.answer = lambda posted: 200 if posted.records else 422
    sink = await opened(made())
    await sink.write(results(1))
    assert len(server.records) == 1


@pytest.mark.parametrize(("resume", "code"), [(False, 78), (True, 75)])
async def test_a_receiver_that_is_away_at_the_start(server, made, resume, code):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/?key=hidden"
    with pytest.raises(
        SinkError, match=r"can not be reached: Connect call failed|can not be reached: .*refused"
    ) as failure:
        await made(url=url).check(None, resume=resume)
    assert (failure.value.retryable, failure.value.exit_code) == (True, code)
    assert "hidden" not in str(failure.value)


async def test_an_answer_that_does_not_come(server, made):
    sink = await opened(made(timeout=0.3))
    server.stall()
    with pytest.raises(SinkError, match=r"no answer within 0\.3 s") as failure:
        await sink.write(results(1))
    assert failure.value.retryable
    server.flow()
    await sink.write(results(1))


async def test_a_guard_lets_a_webhook_reach_public_addresses_alone(server, made):
    """F78: who may give a URL must not reach what only this machine can."""
    for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
        with pytest.raises(ConfigError, match="is blocked"):
            await made(url=url, guard=True).check(None, resume=False)
        late = made(url=url, guard=True)
        await late.open(None)
        with pytest.raises(SinkError, match="is blocked") as failure:
            await late.write(results(1))
        assert not failure.value.retryable
    assert not server.requests
    sink = await opened(made(guard={"allow": ["127.0.0.1"]}))
    await sink.write(results(1))
    assert len(server.records) == 1


async def test_a_certificate_is_checked(tmp_path, made):
    authority = trustme.CA()
    secure = WebhookServer(serving(authority.issue_cert("127.0.0.1")))
    try:
        with pytest.raises(ConfigError, match=r"its certificate is not to be trusted: .*; see ca_file"):
            await made(url=secure.url).check(None, resume=False)
        sink = await opened(made(url=secure.url, ca_file=write_authority(authority, tmp_path)))
        await sink.write(results(1))
        assert len(secure.records) == 1
        with pytest.raises(ConfigError, match="ca_file '/nowhere' can not be used: No such file"):
            await made(url=secure.url, ca_file="/nowhere").check(None, resume=False)
    finally:
        await asyncio.to_thread(secure.close)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"url": "https://user:hidden@a.test/"}, "put them into headers"),
        ({"url": "ftp://a.test/"}, "should be an address such as"),
        ({"url": "http://"}, "should be an address such as"),
        ({"headers": {"x": "a\r\nhidden: b"}}, "contains CR, LF"),
        ({"headers": {"Idempotency-Key": "1"}}, "sets the header idempotency-key itself"),
        ({"headers": {"content-length": "1"}}, "belongs to the connection"),
    ],
)
def test_settings_that_can_not_be_meant(settings, words):
    with pytest.raises(ValidationError) as caught:
        WebhookConfig.model_validate({"url": "http://a.test/"} | settings)
    message = caught.value.errors()[0]["msg"]
    assert words in message
    assert "hidden" not in message


def test_secrets_are_in_no_dump():
    config = WebhookConfig.model_validate({"url": "http://a.test/", "secret": "hidden", "headers": {"a": "hidden"}})
    assert "hidden" not in repr(config) + config.model_dump_json() + repr(config.build())
