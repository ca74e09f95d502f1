"""What the access log says, and when."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from unit.origin.wire_client import connect, drained, log_lines, running

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from fetcher.origin import Origin


async def test_access_log_lines(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    async with running(access_log=log) as origin, connect(origin) as client:
        await client.get("/bytes/5?i=1")
        await client.get("/bytes/5?i=2", "Host: B.test")
        await client.ask("POST", '/status/404?q="\\', "Host: [::1]:80", body=b"x")
        client.writer.write(b"bad\r\n\r\n")
        await client.answer()
    lines = log_lines(log)
    assert all(isinstance(line.pop("time"), float) for line in lines)
    assert lines == [
        {"host": "a.test", "path": "/bytes/5?i=1", "method": "GET", "status": 200, "concurrent": 1},
        {"host": "b.test", "path": "/bytes/5?i=2", "method": "GET", "status": 200, "concurrent": 1},
        {"host": "[::1]", "path": '/status/404?q="\\', "method": "POST", "status": 404, "concurrent": 1},
        {"host": "", "path": "", "method": "", "status": 400, "concurrent": 1},
    ]


async def test_access_log_counts_a_hosts_requests_in_progress(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    expect = b"POST /echo?1 HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    async with running(access_log=log) as origin, connect(origin) as one, connect(origin) as two:
        one.writer.write(expect)
        await one.answer()
        async with connect(origin) as three:
            three.send("GET", "/hang?2")
            await drained(three)
            await two.get("/bytes/1?3")
            await two.get("/bytes/1?4", "Host: b.test")
            one.writer.write(b"hi")
            await one.answer()
            await two.get("/bytes/1?5")
        while len(origin._connections) > 2:  # noqa: ASYNC110 - the origin tells nobody else
            await asyncio.sleep(0)
        await two.get("/health?6")
        await two.get("/health?7")
    counts = {line["path"][-1]: line["concurrent"] for line in log_lines(log)}
    assert counts == {"1": 1, "2": 2, "3": 3, "4": 1, "5": 2, "6": 1, "7": 1}


async def test_access_log_is_flushed_while_running(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    async with running(access_log=log) as origin, connect(origin) as client:
        await client.get("/health")
        async with asyncio.timeout(5):
            while not log_lines(log):  # noqa: ASYNC110 - the file is all that tells
                await asyncio.sleep(0.01)


async def test_no_access_log_no_flusher(origin: Origin) -> None:
    assert (origin.log, origin.flusher) == (None, None)


async def test_access_log_to_stdout(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    async with running(access_log="-") as origin, connect(origin) as client:
        await client.get("/health")
    assert json.loads(capfdbinary.readouterr().out)["path"] == "/health"
