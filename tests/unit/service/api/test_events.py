"""Server-sent events on a real socket: who is slow, who is one too many, and the end."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from fetcher.service.api import events as events_module
from fetcher.service.api.events import Events, Listener
from fetcher.service.models import History, Moment, Snapshot

AT = datetime(2026, 1, 2, tzinfo=UTC)


def snapshot(number=0):
    return Snapshot(
        at=AT,
        version="1",
        uptime=number,
        state="ready",
        in_flight=0,
        concurrency=1,
        rate=0,
        loop_lag=0,
        cpu=0,
        memory=0,
        batches=[],
        trouble=["a line\nand another\r\n\nevent: forged"],
    )


@asynccontextmanager
async def listening(events):
    """Serve events, and yield a session and the URL."""

    async def handle(request):
        return await events.handle(
            request, lambda: snapshot(1), lambda: History(moments=[Moment(at=AT, rate=1, in_flight=2)])
        )

    app = web.Application()
    app.router.add_get("/events", handle)
    runner = web.AppRunner(app, shutdown_timeout=2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield session, f"http://127.0.0.1:{runner.addresses[0][1]}/events"
    events.end()
    await runner.cleanup()


async def event(answer):
    """Read the next event as (name, data), None at the end."""
    name = data = None
    while line := (await answer.content.readline()).decode():
        match line.rstrip("\n").partition(": "):
            case ("event", _, name):
                pass
            case ("data", _, text):
                data = json.loads(text)
            case ("", "", "") if data is not None:
                return name, data
    return None


async def test_who_listens_gets_the_past_then_the_present_then_what_comes():
    events = Events()
    async with listening(events) as (session, url), session.get(url) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        assert await event(answer) == (
            "history",
            json.loads(History(moments=[Moment(at=AT, rate=1, in_flight=2)]).model_dump_json()),
        )
        name, first = await event(answer)
        assert (name, first["uptime"]) == ("snapshot", 1)
        # No text of it ends an event, or begins another.
        assert first["trouble"] == snapshot().trouble
        events.publish(lambda: snapshot(2))
        assert (await event(answer))[1]["uptime"] == 2
        events.end()
        assert await event(answer) is None


async def test_nothing_is_made_for_nobody():
    events = Events()

    def never():
        raise AssertionError("nobody listens")

    events.publish(never)
    async with listening(events) as (session, url):
        async with session.get(url) as answer:
            await event(answer)
            assert len(events) == 1
        await gone(events)
        events.publish(never)


async def gone(events):
    """Wait until the service has noticed that nobody listens any more."""
    async with asyncio.timeout(10):
        while len(events):
            if events:
                events.publish(snapshot)
            await asyncio.sleep(0.01)


async def test_one_snapshot_is_made_for_all_listeners():
    events, made = Events(), []
    async with listening(events) as (session, url), session.get(url) as one, session.get(url) as two:
        for answer in (one, two):
            await event(answer)
            await event(answer)
        events.publish(lambda: made.append(1) or snapshot(7))
        assert [(await event(answer))[1]["uptime"] for answer in (one, two)] == [7, 7]
    assert len(made) == 1


async def test_one_too_many_is_turned_away(monkeypatch):
    monkeypatch.setattr(events_module, "MOST_LISTENERS", 2)
    events = Events()
    async with listening(events) as (session, url), session.get(url) as one, session.get(url) as two:
        await event(one)
        await event(two)
        async with session.get(url) as three:
            assert three.status == 503
            assert "Retry-After" in three.headers


async def test_after_the_end_nobody_is_taken():
    events = Events()
    async with listening(events) as (session, url):
        events.end()
        async with session.get(url) as answer:
            assert answer.status == 503


async def test_the_newest_takes_the_place_of_what_was_not_taken():
    listener = Listener()
    for number in range(1000):
        listener.put(b"%d" % number)
    assert await listener.take() == b"999"
    listener.put(b"1000")
    listener.end()
    assert await listener.take() is None


async def test_something_is_sent_when_nothing_happens(monkeypatch):
    monkeypatch.setattr(events_module, "HEARTBEAT", 0.01)
    assert await Listener().take() == b":\n\n"


@pytest.mark.timeout(30)
async def test_who_takes_nothing_is_cut_off_and_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(events_module, "STALLED", 0.2)
    events = Events()
    large = snapshot().model_copy(update={"trouble": ["x" * 400_000]})
    async with listening(events) as (session, url), idler(url), session.get(url) as answer:
        await event(answer)
        await event(answer)
        async with asyncio.timeout(20):
            while len(events) == 2:
                events.publish(lambda: large)
                assert (await event(answer))[1]["trouble"] == large.trouble


@asynccontextmanager
async def idler(url):
    """Ask for events and read no more than the first line of the answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1024)
    writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readline()
    yield
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
