"""Retries, and how politely: rows F59 to F65. Whole batches against real servers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from batches import run_batch
from raw_server import ok, raw_server, unused_port

ONE_AT_A_TIME = {"per_host": {"concurrency": 1}}


def refusal(*headers: str, status: str = "429 Too Many Requests") -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n{lines}\r\n".encode()


UNAVAILABLE = refusal(status="503 Service Unavailable")


class Origin:
    """Answers by ``reply(number, path)``, the number of the request on its host; notes when each came."""

    def __init__(self, reply, delay=0.0):
        self.reply, self.delay = reply, delay
        self.came = defaultdict(list)
        self.paths = Counter()

    async def __call__(self, peer):
        while True:
            head = (await peer.request()).decode()
            host = head.partition("Host: ")[2].partition(":")[0]
            path = head.split(" ", 2)[1]
            self.came[host].append(time.monotonic())
            self.paths[path] += 1
            await asyncio.sleep(self.delay)
            answer = self.reply(len(self.came[host]), self.paths[path])
            if answer is None:
                peer.reset()
                return
            await peer.send(answer)


def first(answer: bytes):
    """Answer the first request of each host with ``answer``, and all others well."""
    return lambda number, _: answer if number == 1 else ok()


def gap(origin: Origin, host: str = "a.test") -> float:
    """Return the seconds between the first request and the second."""
    return origin.came[host][1] - origin.came[host][0]


# Slots


async def test_f59_waiting_for_a_slot_is_not_charged_to_the_timeout(tmp_path):
    origin = Origin(lambda *_: ok(), delay=0.25)
    async with raw_server(origin) as server:
        records = await run_batch(
            tmp_path,
            [server.url(f"/{n}", f"h{n}.test") for n in range(8)],
            limits={"concurrency": 1, "per_host": {"concurrency": 1}},
            request={"timeout": {"total": 1, "connect": 1, "read": 1}},
        )
    assert [record["outcome"] for record in records] == ["ok"] * 8
    assert max(record["queue_s"] for record in records) > 1.0
    assert max(record["total_s"] for record in records) < 1.0


async def test_f59_waiting_for_a_host_is_not_charged_either(tmp_path):
    origin = Origin(lambda *_: ok())
    async with raw_server(origin) as server:
        records = await run_batch(
            tmp_path,
            [server.url(f"/{n}", "a.test") for n in range(6)],
            limits={"per_host": {"delay": "300ms"}},
            request={"timeout": {"total": 1, "connect": 1, "read": 1}},
        )
    assert [(record["outcome"], record["attempts"]) for record in records] == [("ok", 1)] * 6


async def test_f59_the_wait_for_a_budget_is_charged_neither_to_a_timeout_nor_to_the_deadline_of_a_job(tmp_path):
    origin = Origin(lambda number, _: refusal(status="500 Oops") if number <= 4 else ok())
    async with raw_server(origin) as server:
        records = await run_batch(
            tmp_path,
            [server.url(f"/{n}", "a.test") for n in range(4)],
            request={"timeout": {"total": "400ms"}},
            limits={"per_host": {"budget": ["3/s"]}},
            retry={"backoff": "1ms", "deadline": "600ms"},
        )
    assert [(record["outcome"], record["attempts"]) for record in records] == [("ok", 2)] * 4
    came = origin.came["a.test"]
    assert came[-1] - came[0] > 2


# Retry-After


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_f60_retry_after_in_seconds_is_honoured_for_the_whole_host_and_no_other(tmp_path, status):
    origin = Origin(first(refusal("Retry-After: 1", status=status)))
    async with raw_server(origin) as server:
        records = await run_batch(
            tmp_path,
            [server.url(f"/{host}{n}", f"{host}.test") for n in range(5) for host in "ab"],
            limits=ONE_AT_A_TIME | {"hosts": {"b.test": {"concurrency": 1}}},
            retry={"backoff": 0},
        )
    assert {record["outcome"] for record in records} == {"ok"}
    # Both were told to rest; neither was asked by any of its jobs within that second.
    assert gap(origin, "a.test") >= 0.99
    assert gap(origin, "b.test") >= 0.99
    assert sorted(record["attempts"] for record in records) == [1] * 8 + [2] * 2


async def test_f60_the_other_hosts_are_asked_meanwhile(tmp_path):
    origin = Origin(lambda number, _: refusal("Retry-After: 2") if number == 1 and len(origin.came) == 1 else ok())
    async with raw_server(origin) as server:
        await run_batch(
            tmp_path,
            [server.url(f"/{n}", host) for host in ("a.test", "b.test", "c.test") for n in range(5)],
            limits={"concurrency": 1},
            retry={"backoff": 0},
        )
    [rested] = [host for host, came in origin.came.items() if came[0] == min(min(t) for t in origin.came.values())]
    others = [when for host, came in origin.came.items() if host != rested for when in came]
    assert gap(origin, rested) >= 1.99
    assert max(others) < origin.came[rested][1]


def later(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("skew", [0.0, 3600.0, -3600.0, 20_000_000.0], ids=["none", "ahead", "behind", "insane"])
async def test_f61_retry_after_as_a_date_is_honoured_by_the_clock_of_the_server(tmp_path, skew):
    def reply(number, _):
        if number > 1:
            return ok()
        # A clock that is off by most of a year is not believed, and the date is taken by ours.
        off = skew if abs(skew) < 86_400 else 0.0
        return refusal(f"Date: {later(skew)}", f"Retry-After: {later(off + 2)}")

    origin = Origin(reply)
    async with raw_server(origin) as server:
        [record] = await run_batch(tmp_path, [server.url("/", "a.test")], retry={"backoff": 0})
    assert (record["outcome"], record["attempts"]) == ("ok", 2)
    # Dates are in whole seconds, so two seconds may be little more than one.
    assert 0.99 <= gap(origin) < 30


@pytest.mark.parametrize("value", ["86400", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
async def test_f62_a_huge_retry_after_is_cut(tmp_path, value):
    origin = Origin(first(refusal(f"Retry-After: {value}")))
    async with raw_server(origin) as server:
        [record] = await run_batch(tmp_path, [server.url("/", "a.test")], retry={"backoff": 0, "max_retry_after": "1s"})
    assert (record["outcome"], record["attempts"]) == ("ok", 2)
    assert gap(origin) >= 0.99


@pytest.mark.parametrize("value", ["-100", "soon", "", "1e9", "Fri, 99 Foo 2026 99:99:99 GMT", "3600, 7200"])
async def test_f62_a_negative_one_and_garbage_are_ignored(tmp_path, value):
    origin = Origin(first(refusal(f"Retry-After: {value}", status="503 Service Unavailable")))
    async with raw_server(origin) as server:
        [record] = await run_batch(tmp_path, [server.url("/", "a.test")], retry={"backoff": 0})
    assert (record["outcome"], record["attempts"]) == ("ok", 2)
    assert gap(origin) < 30


# What is sent again


async def test_f63_post_is_not_sent_again_once_bytes_were_sent(tmp_path):
    origin = Origin(lambda *_: None)
    async with raw_server(origin) as server:
        records = await run_batch(
            tmp_path,
            [
                {"url": server.url("/post", "a.test"), "method": "POST", "json": {"pay": 1}},
                {"url": server.url("/get", "a.test")},
            ],
            retry={"backoff": 0},
        )
    found = {record["method"]: (record["outcome"], record["error_kind"], record["attempts"]) for record in records}
    assert found == {"POST": ("failed", "connection_reset", 1), "GET": ("failed", "connection_reset", 4)}
    assert origin.paths["/post"] == 1


async def test_f63_post_is_sent_again_if_the_config_says_that_it_may_be(tmp_path):
    origin = Origin(lambda _, tries: None if tries < 3 else ok())
    async with raw_server(origin) as server:
        [record] = await run_batch(
            tmp_path,
            [{"url": server.url("/post", "a.test"), "method": "POST", "json": {"pay": 1}}],
            retry={"backoff": 0, "methods": ["GET", "POST"]},
        )
    assert (record["outcome"], record["attempts"]) == ("ok", 3)


async def test_f63_post_is_tried_again_if_nothing_had_been_sent(tmp_path):
    url = f"http://127.0.0.1:{unused_port()}/"
    [record] = await run_batch(tmp_path, [{"url": url, "method": "POST"}], retry={"backoff": 0})
    assert (record["error_kind"], record["attempts"]) == ("connect_refused", 4)


@pytest.mark.parametrize(("methods", "attempts"), [(["GET"], 1), (["GET", "POST"], 2)])
async def test_f63_post_is_not_sent_again_because_its_answer_was_not_the_expected_one(tmp_path, methods, attempts):
    origin = Origin(lambda _, tries: ok(b'{"paid": true}' if tries > 1 else b'{"paid": false}'))
    async with raw_server(origin) as server:
        [record] = await run_batch(
            tmp_path,
            [{"url": server.url("/pay", "a.test"), "method": "POST", "json": {"pay": 1}}],
            expect={"json": "paid"},
            retry={"backoff": 0, "methods": methods},
        )
    assert (record.get("error_kind"), record["attempts"]) == (None if attempts > 1 else "unexpected", attempts)
    assert origin.paths["/pay"] == attempts


# Storms


async def test_f64_what_failed_together_does_not_come_back_together(tmp_path):
    origin = Origin(lambda _, tries: UNAVAILABLE if tries == 1 else ok())
    async with raw_server(origin) as server:
        records = await run_batch(
            tmp_path,
            [server.url(f"/{n}", f"h{n}.test") for n in range(200)],
            limits={"concurrency": 200},
            retry={"backoff": "2s"},
        )
    assert {(record["outcome"], record["attempts"]) for record in records} == {("ok", 2)}
    again = sorted(came[1] for came in origin.came.values())
    # Drawn from two seconds; the most crowded fifth of a second has about a tenth of them.
    crowd = max(sum(start <= when < start + 0.2 for when in again) for start in again)
    assert crowd < 100
    assert again[-1] - again[0] > 1.0


async def test_f64_a_host_that_keeps_failing_gets_its_retries_thinned_out_and_none_is_dropped(tmp_path):
    origin = Origin(lambda *_: UNAVAILABLE)
    third = []
    reply = origin.reply

    def noting(number, tries):
        if tries == 3:
            third.append(time.monotonic())
        return reply(number, tries)

    origin.reply = noting
    async with raw_server(origin) as server:
        records = await run_batch(
            tmp_path,
            [server.url(f"/{n}", "a.test") for n in range(300)],
            limits={"adapt": False, "per_host": {"concurrency": 50}},
            retry={"attempts": 3, "backoff": "150ms"},
        )
    assert {(record["error_kind"], record["attempts"]) for record in records} == {("http_5xx", 3)}
    # Without a budget they would be drawn from 0.3 s.
    assert third[-1] - third[0] > 1.2


# Ends


async def test_f65_the_deadline_covers_all_attempts(tmp_path):
    origin = Origin(lambda *_: UNAVAILABLE)
    async with raw_server(origin) as server:
        records = await run_batch(
            tmp_path,
            [server.url(f"/{n}", "a.test") for n in range(5)],
            retry={"attempts": 100, "backoff": "200ms", "max_backoff": "200ms", "deadline": "1s"},
        )
    assert {record["error_kind"] for record in records} == {"http_5xx"}
    assert all(2 <= record["attempts"] < 60 for record in records)


async def test_f65_the_deadline_cuts_off_an_attempt_that_is_under_way(tmp_path):
    async def script(peer):
        await peer.request()
        if peer.number == 1:
            await peer.send(refusal("Connection: close", status="503 Service Unavailable"))
        else:
            await peer.gone()

    async with raw_server(script) as server:
        [record] = await run_batch(
            tmp_path, [server.url()], retry={"backoff": 0, "deadline": "1s"}, limits={"adapt": False}
        )
    assert (record["error_kind"], record["attempts"]) == ("deadline", 2)
    assert record["total_s"] < 20
