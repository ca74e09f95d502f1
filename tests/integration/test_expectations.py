"""What an answer has to be: whole batches against servers that answer in ways that nobody hopes for."""

from __future__ import annotations

import asyncio

import pytest
from batches import run_batch
from raw_server import answering, ok, raw_server, refusing_port, saying

QUICK = {"backoff": "1ms", "max_backoff": "2ms"}


def head(status, *headers, body=b""):
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode("latin-1") + body


async def ask(folder, expect, *answers, job=None, **sections):
    """Return the record of a job that is answered so, one answer for each attempt."""
    sections = {"retry": QUICK} | sections
    async with raw_server(answering(*answers)) as server:
        (record,) = await run_batch(folder, [{"url": server.url("/")} | (job or {})], expect=expect, **sections)
    return record


DONE = {"json": "status == 'done'"}


async def test_an_answer_that_is_not_there_yet_is_asked_for_until_it_is(tmp_path):
    pending, done = ok(b'{"status": "pending"}'), ok(b'{"status": "done"}')
    record = await ask(tmp_path, DONE, pending, pending, done)
    assert (record["outcome"], record["attempts"], record["body"]) == ("ok", 3, '{"status": "done"}')


async def test_an_answer_that_never_is_as_expected_fails_with_what_it_was(tmp_path):
    pending = ok(b'{"status": "pending"}', "Content-Type: application/json")
    record = await ask(tmp_path, DONE, *[pending] * 4)
    assert (record["outcome"], record["error_kind"], record["attempts"]) == ("failed", "unexpected", 4)
    assert record["error_message"] == "expected JSON with \"status == 'done'\", which is false"
    assert (record["status"], record["body"]) == (200, '{"status": "pending"}')


async def test_without_retry_the_first_answer_is_the_last(tmp_path):
    record = await ask(tmp_path, DONE | {"retry": False}, ok(b"{}"))
    assert (record["error_kind"], record["attempts"]) == ("unexpected", 1)


async def test_a_status_that_is_expected_is_well(tmp_path):
    record = await ask(tmp_path, {"status": [200, 404]}, head(404, body=b"no"))
    assert (record["outcome"], record["status"], record["attempts"], record["body"]) == ("ok", 404, 1, "no")
    assert "error_kind" not in record
    assert "error_message" not in record


async def test_what_is_expected_of_a_body_is_expected_of_a_404_that_is_expected(tmp_path):
    expect = {"status": [200, 404], "json": "code == 'not_found'", "retry": False}
    well = await ask(tmp_path, expect, head(404, body=b'{"code": "not_found"}'))
    other = await ask(tmp_path, expect, head(404, body=b"<html>not this one</html>"))
    assert (well["outcome"], other["outcome"], other["error_kind"]) == ("ok", "failed", "unexpected")


async def test_a_status_that_is_not_expected_is_not_well_and_a_failure_keeps_its_kind(tmp_path):
    expect = {"status": 201, "matches": "never looked for"}
    record = await ask(tmp_path, expect | {"retry": False}, ok())
    assert (record["outcome"], record["error_kind"]) == ("failed", "unexpected")
    assert record["error_message"] == "expected the status 201, and it is 200"
    record = await ask(tmp_path, expect, head(503), head(404))
    assert (record["error_kind"], record["error_message"]) == ("http_4xx", "the server answered 404")
    assert record["attempts"] == 2  # of a 503 and a 404, as ever


async def test_what_is_too_early_is_asked_for_when_it_said_that_it_is_there(tmp_path):
    early = head(202, "Retry-After: 0", body=b"{}")
    record = await ask(tmp_path, {"status": 200}, early, early, ok())
    assert (record["outcome"], record["attempts"]) == ("ok", 3)


async def test_what_is_too_early_says_nothing_of_the_rest_of_its_host(tmp_path):
    early = head(202, "Retry-After: 100", body=b"{}")
    async with raw_server(answering(early, *[ok()] * 20)) as server, asyncio.timeout(20):
        records = await run_batch(
            tmp_path,
            [server.url(f"/{n}") for n in range(21)],
            expect={"status": 200, "retry": False},
            limits={"per_host": {"concurrency": 1}},
        )
    assert sorted(record["outcome"] for record in records) == ["failed"] + ["ok"] * 20


async def test_it_is_the_answer_at_the_end_of_redirects_that_is_asked(tmp_path):
    found = head(302, "Location: /there", "Content-Type: text/html", body=b"moved")
    record = await ask(
        tmp_path, {"content_type": "text/plain", "status": 200}, found, ok(b"x", "Content-Type: text/plain")
    )
    assert (record["outcome"], record["attempts"], len(record["redirects"])) == ("ok", 1, 1)


async def test_a_redirect_that_is_expected_is_well_if_it_is_not_followed(tmp_path):
    found = head(302, "Location: /there")
    record = await ask(tmp_path, {"status": "3xx"}, found, request={"max_redirects": 0})
    assert (record["outcome"], record["status"]) == ("ok", 302)


async def test_a_redirect_to_nowhere_stays_a_redirect_to_nowhere(tmp_path):
    with refusing_port() as port:
        found = head(302, f"Location: http://127.0.0.1:{port}/")
        record = await ask(tmp_path, {"status": 302}, found, retry={"attempts": 1})
    assert (record["outcome"], record["error_kind"]) == ("failed", "connect_refused")


async def test_the_answer_to_a_head_has_a_type_and_no_body(tmp_path):
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 500\r\n\r\n"
    job = {"method": "HEAD"}
    well = await ask(tmp_path, {"content_type": "text/*"}, answer, job=job)
    assert well["outcome"] == "ok"
    record = await ask(tmp_path, {"json": "a", "retry": False}, answer, job=job)
    assert record["error_message"] == "expected JSON with 'a', and the answer has no body; HEAD asks for none"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "the answer has no body"),
        (b"<!doctype html><p>Sorry", "the body is not JSON"),
        (b'{"a": "\xff\xfe"}', "the body is not JSON: it is not UTF-8"),
        (b"[" * 150_000 + b"]" * 150_000, "the body is not JSON: maximum recursion depth exceeded"),
        (b'{"b": [' + b"0," * 200_000 + b"0]}", "which is null"),
        (b'{"a": ""}', 'which is ""'),
    ],
    ids=["empty", "html", "not utf-8", "deep", "large", "falsy"],
)
async def test_a_body_that_is_not_as_expected_costs_its_job_alone(tmp_path, body, why):
    record = await ask(tmp_path, {"json": "a", "retry": False}, ok(body))
    assert (record["outcome"], record["error_kind"]) == ("failed", "unexpected")
    assert why in record["error_message"]
    assert len(record["error_message"]) < 300


async def test_a_large_body_that_is_as_expected_is_well(tmp_path):
    body = b'{"pad": "' + b"x" * 1_000_000 + b'", "items": [1]}'
    record = await ask(tmp_path, {"json": "items", "matches": r'"items": \[1\]'}, ok(body))
    assert record["outcome"] == "ok"


async def test_a_body_that_was_cut_is_told_to_be(tmp_path):
    record = await ask(
        tmp_path, {"json": "a", "retry": False}, ok(b'{"a": "long"}'), body={"max_size": 6, "overflow": "truncate"}
    )
    assert record["error_message"].endswith("it was cut at body.max_size")


async def test_an_earlier_body_that_is_still_so_is_held_to_the_same(tmp_path):
    answers = [ok(b'{"status": "done"}', 'ETag: "1"'), b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n']
    sections = {"http": {"cache": {"path": str(tmp_path / "cache.db")}}}

    async def script(peer):
        await answering(answers[peer.number - 1])(peer)

    async with raw_server(script) as server:
        for earlier in (None, True):
            (record,) = await run_batch(tmp_path, [server.url("/")], expect=DONE | {"status": 200}, **sections)
            assert (record["outcome"], record.get("revalidated")) == ("ok", earlier)
            (tmp_path / "out.jsonl").unlink()


async def test_what_did_not_arrive_is_not_asked(tmp_path):
    async with raw_server(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")) as server:
        (record,) = await run_batch(tmp_path, [server.url("/")], expect={"matches": "x"}, retry={"attempts": 1})
    assert record["error_kind"] == "body_incomplete"
