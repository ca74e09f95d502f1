"""Real runs whose requests all wait in one phase: it is named."""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager

import pytest
from batches import TEST_HOSTS
from bounded_runs import batch, first, why
from dns_server import dns_server
from raw_server import raw_server

from fetcher.engine.why.advice import USUAL, Bound
from fetcher.engine.why.sampling import sample

JOBS = 12


@contextmanager
def silent_port():
    """Listen without ever accepting: the kernel opens connections, and nobody says anything on them."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        yield listening.getsockname()[1]


def has_waited(one):
    """Return a condition: all jobs of a batch have been in flight for longer than is usual."""
    loop = asyncio.get_running_loop()

    def do():
        found = sample(one.engine, loop.time()).at_work
        return len(found) == JOBS and all(work.seconds > USUAL for work in found)

    return do


async def bound_of(folder, url, **http):
    limits = {"per_host": {"concurrency": JOBS}}
    urls = [f"{url}{{1..{JOBS}}}"]
    one = batch(folder, urls, http=TEST_HOSTS | http, limits=limits, retry={"attempts": 1})
    return first(await why(one, until=has_waited(one)))


async def test_a_name_server_that_does_not_answer(tmp_path):
    never = asyncio.Event()

    async def slow(_before):
        await never.wait()

    async with dns_server(slow=slow) as dns:
        dns_settings = {"servers": [dns.address], "timeout": "30s"}
        found = await bound_of(tmp_path, "http://slow.test:9/", resolve={}, dns=dns_settings)
    assert found.name == Bound.DNS
    assert found.details == ["slow.test (100%)"]
    assert "http.dns" in found.advice


async def test_handshakes_that_stall(tmp_path):
    with silent_port() as port:
        found = await bound_of(tmp_path, f"https://h.test:{port}/")
    assert found.name == Bound.TLS


async def test_a_robots_txt_that_does_not_come(tmp_path):
    with silent_port() as port:
        found = await bound_of(tmp_path, f"http://h.test:{port}/", robots="obey")
    assert found.name == Bound.ROBOTS


@pytest.mark.parametrize(
    ("head", "bound"),
    [(b"", Bound.ORIGIN), (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx", Bound.TRANSFER)],
)
async def test_answers_that_do_not_come_or_not_to_their_end(tmp_path, head, bound):
    never = asyncio.Event()

    async def begin(peer):
        await peer.receive_until(b"\r\n\r\n")
        await peer.send(head)
        await never.wait()

    async with raw_server(begin) as server:
        found = await bound_of(tmp_path, f"http://h.test:{server.port}/")
    assert found.name == bound
    assert found.details == ["h.test (100%)"]
