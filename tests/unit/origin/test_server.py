"""How the origin ends, and TLS."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest
from unit.origin.wire_client import Client, connect, log_lines, running

from fetcher.origin import OriginConfig, serve
from fetcher.origin import server as server_module
from fetcher.origin.bodies import content

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_drains_and_flushes_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    log, url = tmp_path / "access.jsonl", asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(OriginConfig(access_log=log), url.set_result))
    port = int((await url).rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Client(reader, writer)
    client.send("GET", "/drip/3/0.05")
    await client.head()
    os.kill(os.getpid(), number)
    assert await reader.read() == content(3)
    await server
    writer.close()
    assert [line["status"] for line in log_lines(log)] == [200]


async def test_close_drops_what_outlasts_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "DRAIN_SECONDS", 0.01)
    async with running() as origin, connect(origin) as client:
        client.send("GET", "/drip/2/1000")
        await client.head()
        await origin.close()
        assert await client.ended()


async def test_serve_stops_when_the_log_cannot_be_written() -> None:
    with pytest.raises(OSError, match="No space left"):
        await full_disk()


async def full_disk() -> None:
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(OriginConfig(access_log="/dev/full"), url.set_result))
    reader, writer = await asyncio.open_connection("127.0.0.1", int((await url).rpartition(":")[2]))
    await Client(reader, writer).get("/health")
    writer.close()
    await asyncio.wait_for(server, 5)


async def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(cert),
        *subject,
    ]
    subprocess.run(command, check=True, capture_output=True)  # noqa: ASYNC221 - before anything runs
    tls = ssl.create_default_context(cafile=cert)
    async with running(certfile=cert, keyfile=key) as origin, connect(origin, tls) as client:
        assert origin.url == f"https://127.0.0.1:{origin.port}"
        assert (await client.get("/bytes/100000")).body == content(100_000)
        with pytest.raises(ConnectionResetError):
            await client.get("/reset/1/health")
