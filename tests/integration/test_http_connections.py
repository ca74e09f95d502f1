"""How many connections are kept, and what happens when there are no files left for new ones."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from origin_process import origin_process
from raw_server import answering, ok, raw_server
from transport_factories import HTTP_EXCHANGES, http_transport, job

from fetcher.errors import ErrorKind, FetchError
from fetcher.origin import Origin, OriginConfig
from fetcher.transports.http import connector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

RESOLVE = {"*.test": "127.0.0.1"}
# Fetches each URL of 300 hosts twice, with room for 128 files; prints what failed and how many are open then.
FEW_FILES = """
import asyncio, json, os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
import uvloop
from transport_factories import http_transport, job
from fetcher.errors import FetchError

exchange, port, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
failed = []

async def work(transport, urls):
    for url in urls:
        try:
            await transport.fetch(job(url))
        except FetchError as error:
            failed.append(f"{error.kind}: {error.message}")

async def main():
    urls = iter([f"http://h{n % 300}.test:{port}/bytes/10" for n in range(600)])
    async with http_transport(exchange, resolve={"*.test": "127.0.0.1"}) as transport:
        await asyncio.gather(*(work(transport, urls) for _ in range(workers)))
        print(json.dumps([failed, len(os.listdir("/proc/self/fd"))]))

uvloop.run(main())
"""


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    server = Origin(OriginConfig())
    await server.start()
    yield server
    await server.close()


@pytest.mark.skipif(sys.platform != "linux", reason="counts files in /proc")
@pytest.mark.parametrize("exchange", HTTP_EXCHANGES)
@pytest.mark.parametrize("workers", [20, 200])
def test_more_hosts_and_more_workers_than_files(exchange, workers):
    with origin_process() as origin:
        done = subprocess.run(
            [sys.executable, "-c", FEW_FILES, exchange, str(origin.port), str(workers)],
            env={"PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    failed, files = json.loads(done.stdout)
    assert failed == []
    assert files <= 64


@pytest.mark.parametrize("exchange", HTTP_EXCHANGES)
async def test_the_oldest_idle_connection_is_closed_first(exchange, monkeypatch):
    monkeypatch.setattr(connector, "most_idle", lambda: 2)
    async with (
        raw_server(answering(*[ok()] * 9)) as server,
        http_transport(exchange, resolve=RESOLVE) as transport,
    ):
        pool = transport._session.connector
        for name in ("a", "b", "a", "c"):  # b is the oldest when c is given back
            await transport.fetch(job(server.url(host=f"{name}.test")))
        assert [key.host for key in pool._conns] == ["a.test", "c.test"]
        assert len(pool._idle) == 2
        for name in ("a", "c"):
            await transport.fetch(job(server.url(host=f"{name}.test")))
        assert server.connections == 3
        await transport.fetch(job(server.url(host="b.test")))
        assert server.connections == 4


@pytest.mark.parametrize("exchange", HTTP_EXCHANGES)
async def test_connections_that_were_lost_are_not_counted(exchange, monkeypatch, origin):
    monkeypatch.setattr(connector, "most_idle", lambda: 2)
    async with http_transport(exchange, resolve=RESOLVE) as transport:
        pool = transport._session.connector
        for name in ("a", "b"):
            await transport.fetch(job(f"http://{name}.test:{origin.port}/bytes/1"))
        (lost, _) = pool._conns[next(iter(pool._conns))][0]
        lost.transport.abort()
        await transport.fetch(job(f"http://c.test:{origin.port}/bytes/1"))
        assert sorted(key.host for key in pool._idle._keys.values()) == ["b.test", "c.test"]
        for name in ("d", "e", "a"):
            await transport.fetch(job(f"http://{name}.test:{origin.port}/bytes/1"))
        assert len(pool._idle) == 2


@pytest.mark.parametrize("exchange", HTTP_EXCHANGES)
async def test_a_lack_of_files_that_lasts_is_a_failure(exchange, origin):
    def none(_):
        raise OSError(errno.EMFILE, "too many open files")

    async with http_transport(exchange, request={"timeout": {"connect": 0.2}}) as transport:
        transport._session.connector._socket_factory = none
        with pytest.raises(FetchError) as caught:
            await transport.fetch(job(f"{origin.url}/bytes/1"))
    assert (caught.value.kind, caught.value.sent) == (ErrorKind.CONNECT_FAILED, False)
    assert "too many open files" in caught.value.message


async def test_a_lack_of_files_that_passes_is_waited_for(origin):
    async with http_transport("connection", resolve=RESOLVE) as transport:
        await transport.fetch(job(f"http://a.test:{origin.port}/bytes/1"))
        pool = transport._session.connector
        factory = pool._socket_factory

        def scarce(address):
            if len(pool._idle):
                raise OSError(errno.ENFILE, "too many open files in system")
            return factory(address)

        pool._socket_factory = scarce
        response = await transport.fetch(job(f"http://b.test:{origin.port}/bytes/1"))
    assert response.status == 200


@pytest.mark.parametrize("exchange", HTTP_EXCHANGES)
async def test_a_body_that_is_not_kept_is_not_held(exchange, origin):
    size = 9_000_000
    async with http_transport(exchange, body={"store": "inline"}) as transport:
        kept = await transport.fetch(job(f"{origin.url}/bytes/{size}"))
    async with http_transport(exchange, body={"store": "none"}) as transport:
        tracemalloc.start()
        try:
            response = await transport.fetch(job(f"{origin.url}/bytes/{size}"))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (response.body, response.body_size, response.sha256) == (None, size, kept.sha256)
    assert peak < size / 2


@pytest.mark.parametrize("store", ["none", "inline"])
async def test_a_truncated_body_is_hashed_as_it_is_kept(store, origin):
    async with http_transport("connection") as transport:
        whole = await transport.fetch(job(f"{origin.url}/bytes/100000"))
    async with http_transport(
        "connection", body={"store": store, "max_size": 100_000, "overflow": "truncate"}
    ) as transport:
        response = await transport.fetch(job(f"{origin.url}/bytes/300000"))
    assert (response.truncated, response.body_size, response.sha256) == (True, 100_000, whole.sha256)
    assert response.body == (whole.body if store == "inline" else None)


@pytest.mark.parametrize("exchange", HTTP_EXCHANGES)
async def test_https_to_a_plain_origin_is_no_tls(exchange, origin):
    """F17"""
    async with http_transport(exchange) as transport:
        with pytest.raises(FetchError) as caught:
            await transport.fetch(job(f"https://127.0.0.1:{origin.port}/"))
    assert caught.value.kind is ErrorKind.TLS_PROTOCOL


@pytest.mark.parametrize("exchange", HTTP_EXCHANGES)
async def test_no_password_of_a_redirect_is_shown(exchange, origin):
    """F107"""
    to = f"http://u:topsecret@127.0.0.1:{origin.port}/bytes/1"
    async with http_transport(exchange) as transport:
        response = await transport.fetch(job(f"{origin.url}/redirect-to?url={to}"))
    assert response.redirects[0].location == f"http://***@127.0.0.1:{origin.port}/bytes/1"
    # One that leads here; the last is not followed.
    to = f"{origin.url}/redirect-to?url=http://u:topsecret@a.test/"
    async with http_transport(exchange, request={"max_redirects": 1}) as transport:
        with pytest.raises(FetchError) as caught:
            await transport.fetch(job(f"{origin.url}/redirect-to?url={to}"))
    assert caught.value.kind is ErrorKind.TOO_MANY_REDIRECTS
    assert caught.value.message == "more than 1 redirects, the last to http://***@a.test/"
