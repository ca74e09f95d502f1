"""One job: hop after hop to the last answer, and what of it is known if it fails on the way."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from fetcher.errors import ErrorKind, FetchError
from fetcher.model import Job, Redirect, Response, Timings
from fetcher.references import BadReferenceError, printable, shown
from fetcher.transports.bodies.reading import BodyReader
from fetcher.transports.http.caching.recall import NOT_MODIFIED, UNCOMMON, Known, Recall, check_asked
from fetcher.transports.http.credentials.api_key import MaskedAnswer
from fetcher.transports.http.exchange import USUAL_LANE, Answer, Exchange, Hop
from fetcher.transports.http.origins import host_of
from fetcher.transports.http.rate_limits import rate_limit
from fetcher.transports.http.redirects import (
    REDIRECTS,
    RedirectPolicy,
    follow,
    location_of,
    shown_headers,
)
from fetcher.transports.http.tracing import HopTrace
from fetcher.transports.http.wire import is_length

if TYPE_CHECKING:
    from fetcher.transports.watchdog import Watch

_MOST_DRAINED = 64 * 1024
_LONGEST_DRAIN = 1.0


class Means(msgspec.Struct):
    """What all fetches of a transport have in common."""

    exchange: Exchange
    bodies: BodyReader
    redirects: RedirectPolicy
    recall: Recall | None = None


class Fetch:
    """The fetch of one job. ``redirects`` were followed so far; ``response`` is there from the last head on."""

    __slots__ = ("_job", "_known", "_means", "_more", "_watch", "redirects", "response")

    def __init__(self, means: Means, job: Job, watch: Watch) -> None:
        self._means = means
        self._job = job
        self._watch = watch
        self._known: Known | None = None
        # Requests of the job's host after the first.
        self._more = 0
        self.redirects: list[Redirect] = []
        self.response: Response | None = None

    async def run(self, hop: Hop) -> Response:
        """Make the hop and those that it is redirected to; return the last answer. Raises FetchError."""
        while True:
            started = time.perf_counter()
            trace = HopTrace(self._watch)
            send = self._means.exchange.send if self._means.recall is None else self._recalling
            answer = await send(hop, trace)
            self._watch.progress()
            if trace.resent and host_of(hop.url) == self._job.host:
                self._more += trace.resent
            try:
                location = answer.fields.get("Location") if answer.status in REDIRECTS else None
                if location is None or not self._means.redirects.most:
                    first_byte = round(time.perf_counter() - started - trace.held, 6)
                    timings = Timings(trace.dns, trace.connect, trace.tls, first_byte)
                    return await self._receive(hop, answer, timings)
                hop = self._next(hop, answer, timings=Timings())
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
            if self.response is not None:
                self.response.more = self._more
            if error.status is None and self.response is not None:
                error.status = self.response.status
        return error

    def _next(self, hop: Hop, answer: Answer, timings: Timings) -> Hop:
        """Return the hop that a redirect asks for, and note the one that is done."""
        self.response = head_of(hop, answer, timings, self.redirects)
        location = location_of(answer.headers, answer.status)
        named = shown(location)
        policy = self._means.redirects
        if len(self.redirects) >= policy.most:
            message = f"more than {policy.most} redirects, the last to {named[:200]}"
            raise FetchError(ErrorKind.TOO_MANY_REDIRECTS, message)
        following = _following(hop, answer, policy)
        self.response = None
        self.redirects.append(Redirect(hop.url, answer.status, named))
        if host_of(following.url) == self._job.host:
            self._more += 1
        return following

    async def _recalling(self, hop: Hop, trace: HopTrace) -> Answer:
        """Make a hop with conditions by what is known, and once more without if the answer makes no sense with it."""
        exchange, recall = self._means.exchange, self._means.recall
        asked, self._known = (hop, None) if recall is None else await recall.ask(hop, self._job)
        answer = await exchange.send(asked, trace)
        # By which proxy it went is told of the hop.
        hop.lane = asked.lane
        # How long our own disk takes is no silence of the server's.
        self._watch.pause()
        try:
            if recall is None or self._known is None or await recall.fits(self._known, answer):
                return answer
        except BaseException:
            answer.close()
            raise
        answer.close()
        self._known = None
        self._watch.progress()
        return await exchange.send(hop, trace)

    async def _receive(self, hop: Hop, answer: Answer, timings: Timings) -> Response:
        response = self.response = head_of(hop, answer, timings, self.redirects)
        response.length_unknown = answer.length_unknown
        response.more = self._more
        response.rate_limit = rate_limit(answer.headers, answer.fields)
        known, recall = self._known, self._means.recall
        if answer.status in UNCOMMON:
            check_asked(hop, answer.status, known)
        if recall is None:
            await self._means.bodies.read(answer, response, self._watch, self._job)
        elif known is not None and answer.status == NOT_MODIFIED:
            recall.revalidated(known, response)
            await self._drain(answer)
        else:
            partial = recall.partial(hop, answer, known)
            await self._means.bodies.read(answer, response, self._watch, self._job, partial)
            await recall.note(hop, answer, response)
        return response

    async def _drain(self, answer: Answer) -> None:
        """Read a short body that nobody wants, so that its connection can be used again."""
        read = 0
        # Whether it is whole does not matter: where the redirect leads is known. Nor is it worth a long wait.
        with suppress(FetchError, TimeoutError):
            async with asyncio.timeout(_LONGEST_DRAIN):
                while read <= _MOST_DRAINED and (chunk := await answer.read()):
                    self._watch.progress(len(chunk))
                    read += len(chunk)


def _following(hop: Hop, answer: Answer, policy: RedirectPolicy) -> Hop:
    """Return the hop that a redirect asks for. Raises FetchError."""
    if not isinstance(answer, MaskedAnswer):
        return follow(hop, answer.status, location_of(answer.headers, answer.status), policy)
    # What stands for a key in a head that is shown is nowhere to go to.
    try:
        reference = answer.key.followed(location_of(answer.told, answer.status))
        return follow(hop, answer.status, reference, policy)
    except BadReferenceError as error:
        raise FetchError(ErrorKind.BAD_REDIRECT, str(error), status=answer.status) from None
    except FetchError as error:
        answer.key.clean(error)
        raise


def head_of(hop: Hop, answer: Answer, timings: Timings, redirects: list[Redirect]) -> Response:
    """Return what the head of an answer says, without its body."""
    fields = answer.fields
    length = fields.get("Content-Length")
    lane = hop.lane or USUAL_LANE
    return Response(
        status=answer.status,
        method=hop.method,
        final_url=hop.url,
        headers=answer.headers if fields.get("Location") is None else shown_headers(answer.headers),
        content_type=printable(fields.get("Content-Type")),
        content_length=int(length) if length and is_length(length) else None,
        http_version=answer.http_version,
        remote_ip=answer.remote_ip,
        proxy=None if lane.proxy is None else str(lane.proxy),
        verified=lane.verified,
        redirects=redirects,
        timings=timings,
    )
