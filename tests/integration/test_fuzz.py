"""Mutated responses: whatever a server sends, a fetch ends in a Result of a known kind, and no other is poisoned.

``make fuzz`` runs many more examples than ``make test`` does (``FUZZ`` says how many).
"""

from __future__ import annotations

import asyncio
import gzip
import os
import zlib
from contextlib import AsyncExitStack
from itertools import count
from typing import TYPE_CHECKING

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_server import Peer, ok, raw_server
from transport_factories import http_transport, job

from fetcher.engine.worker import Worker
from fetcher.errors import ErrorKind
from fetcher.model import Outcome, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = int(os.environ.get("FUZZ", "250"))
LONGEST = 5.0
NUMBERS = count()
HEAD = b"HTTP/1.1 200 OK\r\n"
BODY = b"The quick brown fox jumps over the lazy dog. " * 8
SEEDS = [
    ok(BODY, "Content-Type: text/plain; charset=utf-8", 'ETag: "x"'),
    ok(gzip.compress(BODY), "Content-Encoding: gzip"),
    ok(zlib.compress(BODY), "Content-Encoding: deflate"),
    ok(gzip.compress(BODY) * 2, "Content-Encoding: x-gzip, identity"),
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%s\r\n" % (len(BODY), BODY) * 3 + b"0\r\nT: x\r\n\r\n",
    HEAD + b"Connection: close\r\n\r\n" + BODY,
    b"HTTP/1.0 404 Not Found\r\nA: b\r\n c\r\n\r\n" + BODY,
    b"HTTP/1.1 204 No Content\r\nSet-Cookie: a=b; Domain=.test\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok(BODY),
    b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 4\r\n\r\nmove",
    b"HTTP/1.1 503 Busy\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
]
PIECES = [
    *(b"\r\n", b"\n", b"\0", b"\r\n\r\n", b" ", b":", b"\xff\xfe"),
    *(b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1", b"HTTP/1.1 ", b"Connection: close\r\n"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n"),
    *(b"Location: http://[::1\r\n", b"Content-Encoding: br, zstd\r\n", b"Content-Range: bytes 0-1/2\r\n"),
]


def mutated(data: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    for change, where, size, piece in changes:
        at = int(where * len(data))
        match change:
            case "flip":
                data = data[:at] + piece + data[at + len(piece) :]
            case "delete":
                data = data[:at] + data[at + size :]
            case "insert":
                data = data[:at] + piece + data[at:]
            case "repeat":
                data = data[:at] + data[at : at + size] * 3 + data[at + size :]
            case "cut":
                data = data[:at]
    return data


ANSWERS = st.builds(
    mutated,
    st.sampled_from(SEEDS),
    st.lists(
        st.tuples(
            st.sampled_from(["flip", "delete", "insert", "repeat", "cut"]),
            st.floats(0, 1),
            st.integers(1, 60),
            st.sampled_from(PIECES) | st.binary(min_size=1, max_size=8),
        ),
        max_size=4,
    ),
)


class Rig:
    """A transport, and a server that answers ``/fuzz`` by the next answer and everything else by its path."""

    answer = b""
    split = 1
    ending = "close"

    async def serve(self, peer: Peer) -> None:
        while True:
            path = (await peer.request()).split(b" ")[1]
            if path != b"/fuzz":
                await peer.send(ok(path))
                continue
            await peer.send(self.answer[: self.split])
            await asyncio.sleep(0)
            await peer.send(self.answer[self.split :])
            if self.ending == "reset":
                peer.reset()
                return
            if self.ending == "close":
                return

    async def start(self) -> None:
        request = {"timeout": {"read": 0.3, "total": 2}, "max_redirects": 2}
        self._open = AsyncExitStack()
        self._server = await self._open.enter_async_context(raw_server(self.serve))
        transport = await self._open.enter_async_context(http_transport("connection", request=request))
        self._worker = Worker("fuzz", {"http": transport}, "GET")

    async def fetch(self, path: str) -> Result:
        attempt = self._worker.attempt(job(self._server.url(path)), 0.0)
        return (await asyncio.wait_for(attempt, LONGEST))[0]

    async def stop(self) -> None:
        await self._open.aclose()


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def rig(request) -> Iterator[tuple[asyncio.Runner, Rig]]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        fuzzed = Rig()
        runner.run(fuzzed.start())
        yield runner, fuzzed
        runner.run(fuzzed.stop())


@pytest.mark.timeout(36_000)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    answer=ANSWERS,
    split=st.integers(0, 400),
    ending=st.sampled_from(["close", "close", "close", "close", "reset", "go on"]),
)
def test_whatever_a_server_sends_ends_in_a_result(rig, answer, split, ending):
    runner, fuzzed = rig
    fuzzed.answer, fuzzed.split, fuzzed.ending = answer, split, ending
    result = runner.run(fuzzed.fetch("/fuzz"))
    assert result.error_kind is not ErrorKind.INTERNAL, result.error_message
    assert (result.outcome is Outcome.OK) == (result.error_kind is None)
    if result.outcome is Outcome.OK:
        assert result.body_size == len(result.body or b"")
    path = f"/{next(NUMBERS)}"
    healthy = runner.run(fuzzed.fetch(path))
    assert healthy.outcome is Outcome.OK, (healthy.error_kind, healthy.error_message)
    assert healthy.body == path.encode()
