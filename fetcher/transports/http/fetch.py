"""One job: hop after hop to the last answer, and what of it is known if it fails on the way."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from fetcher.errors import ErrorKind, FetchError
from fetcher.model import Job, Redirect, Response, Timings
from fetcher.transports.http.bodies import BodyReader
from fetcher.transports.http.exchange import USUAL_LANE, Answer, Exchange, Hop
from fetcher.transports.http.fields import printable
from fetcher.transports.http.redirects import REDIRECTS, follow, shown_location
from fetcher.transports.http.tracing import HopTrace

if TYPE_CHECKING:
    from fetcher.transports.watchdog import Watch

_MOST_DRAINED = 64 * 1024


class Means(msgspec.Struct):
    """What all fetches of a transport have in common."""

    exchange: Exchange
    bodies: BodyReader
    max_redirects: int


class Fetch:
    """The fetch of one job. ``redirects`` were followed so far; ``response`` is there from the last head on."""

    __slots__ = ("_job", "_means", "_watch", "redirects", "response")

    def __init__(self, means: Means, job: Job, watch: Watch) -> None:
        self._means = means
        self._job = job
        self._watch = watch
        self.redirects: list[Redirect] = []
        self.response: Response | None = None

    async def run(self, hop: Hop) -> Response:
        """Make the hop and those that it is redirected to; return the last answer. Raises FetchError."""
        while True:
            started = time.perf_counter()
            trace = HopTrace(self._watch)
            answer = await self._means.exchange.send(hop, trace)
            self._watch.progress()
            try:
                location = answer.fields.get("Location") if answer.status in REDIRECTS else None
                if location is None or not self._means.max_redirects:
                    first_byte = round(time.perf_counter() - started, 6)
                    timings = Timings(trace.dns, trace.connect, trace.tls, first_byte)
                    return await self._receive(hop, answer, timings)
                hop = self._next(hop, answer, location, timings=Timings())
                await self._drain(answer)
            finally:
                answer.close()

    def told(self, error: BaseException) -> BaseException:
        """Return the error, with what is known of the fetch that it ended."""
        if isinstance(error, FetchError):
            # Of a request that was redirected, bytes have left, wherever the redirect led.
            error.sent = error.sent or bool(self.redirects)
            error.redirects = self.redirects
            error.response = self.response
            if error.status is None and self.response is not None:
                error.status = self.response.status
        return error

    def _next(self, hop: Hop, answer: Answer, location: str, timings: Timings) -> Hop:
        """Return the hop that a redirect asks for, and note the one that is done."""
        shown = shown_location(location)
        self.response = _head(hop, answer, timings, self.redirects)
        if len(self.redirects) >= self._means.max_redirects:
            message = f"more than {self._means.max_redirects} redirects, the last to {shown[:200]}"
            raise FetchError(ErrorKind.TOO_MANY_REDIRECTS, message)
        following = follow(hop, answer.status, location)
        self.response = None
        self.redirects.append(Redirect(hop.url, answer.status, shown))
        return following

    async def _receive(self, hop: Hop, answer: Answer, timings: Timings) -> Response:
        response = self.response = _head(hop, answer, timings, self.redirects)
        body = await self._means.bodies.read(answer, self._watch)
        response.body = body.content
        response.body_size = body.size
        response.wire_size = body.wire_size
        response.truncated = body.truncated
        response.sha256 = body.sha256
        return response

    async def _drain(self, answer: Answer) -> None:
        """Read a short body that nobody wants, so that its connection can be used again."""
        read = 0
        # Whether it is whole does not matter: where the redirect leads is known.
        with suppress(FetchError):
            while read <= _MOST_DRAINED and (chunk := await answer.read()):
                self._watch.progress()
                read += len(chunk)


def _head(hop: Hop, answer: Answer, timings: Timings, redirects: list[Redirect]) -> Response:
    fields = answer.fields
    length = fields.get("Content-Length")
    lane = hop.lane or USUAL_LANE
    return Response(
        status=answer.status,
        method=hop.method,
        final_url=hop.url,
        headers=answer.headers,
        content_type=printable(fields.get("Content-Type")),
        content_length=int(length) if length and length.isascii() and length.isdigit() else None,
        http_version=answer.http_version,
        remote_ip=answer.remote_ip,
        proxy=None if lane.proxy is None else str(lane.proxy),
        verified=lane.verified,
        redirects=redirects,
        timings=timings,
    )
