"""Asks an origin's robots.txt before each hop, redirects included (RFC 9309).

    4xx, or a redirect that leads nowhere      everything is allowed           (section 2.3.1.3)
    5xx, or no answer that can be read         nothing is, ``robots_unreachable``  (section 2.3.1.4)

It is fetched once per origin however many hops wait for it, with a time limit of its own that no request is charged
for. It goes the way of the request, by the same proxy and past the same guard, but without the headers of the
request: nothing that was meant for a page is told to whom a robots.txt is redirected.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import suppress
from ssl import SSLContext
from time import monotonic
from typing import TYPE_CHECKING

import msgspec
from yarl import URL

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.bodies.decoding import ACCEPT_ENCODING, decoder_for
from fetcher.transports.http.exchange import Answer, Exchange, Hop
from fetcher.transports.http.redirects import REDIRECTS, RedirectPolicy, follow, location_of
from fetcher.transports.http.robots.rules import (
    ALL_ALLOWED,
    MAX_SIZE,
    Rules,
    lifetime,
    product_token,
    relevant,
)
from fetcher.transports.http.tracing import HopTrace
from fetcher.transports.watchdog import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_REDIRECTS = 5
UNREACHABLE_FOR = 60.0
"""For how many seconds a robots.txt that could not be had is not asked for again."""
_PAUSES = (0.5, 1.0)
_MOST_ORIGINS = 10_000
# Rules take some thirty times the memory of their text.
_MOST_TEXT = 4 * 1024 * 1024
# Parsing more than this takes so long that the event loop should turn meanwhile.
_PARSED_AT_ONCE = 32 * 1024
_MOST_DRAINED = 64 * 1024
_DRAINED_FOR = 1.0
_OK = range(200, 300)
_SERVER_ERROR = 500
# No fault of the origin: the jobs fail by it as they would have failed without a robots.txt.
_NOT_THE_ORIGIN = frozenset(
    {
        ErrorKind.BLOCKED,
        ErrorKind.PROXY_UNREACHABLE,
        ErrorKind.PROXY_AUTH,
        ErrorKind.PROXY_REFUSED,
        ErrorKind.AUTH_FAILED,
        ErrorKind.INVALID_URL,
        ErrorKind.INVALID_ROW,
        ErrorKind.INTERNAL,
    }
)

_Key = str | tuple[str, SSLContext]


class Verdict(msgspec.Struct, frozen=True, eq=False):
    """What follows from a robots.txt for ``lifetime`` seconds.

    Where there are no ``rules``, nothing may be fetched, and ``kind`` and ``reason`` say why.
    """

    rules: Rules | None
    lifetime: float
    kind: ErrorKind = ErrorKind.ROBOTS_UNREACHABLE
    reason: str = ""


class Memory:
    """Verdicts by origin. Bounded by their number and by the text behind them: what was not used for longest goes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._verdicts: OrderedDict[_Key, tuple[Verdict, float]] = OrderedDict()
        self._text = 0

    def get(self, key: _Key) -> Verdict | None:
        """Return what is known of an origin and still holds."""
        verdict, until = self._verdicts.get(key, (None, 0.0))
        if verdict is None or until <= self._clock():
            return None
        self._verdicts.move_to_end(key)
        return verdict

    def latest(self, key: _Key) -> Rules | None:
        """Return the rules that were last known, though they may be out of date."""
        entry = self._verdicts.get(key)
        return None if entry is None else entry[0].rules

    def put(self, key: _Key, verdict: Verdict) -> None:
        """Remember from now on."""
        self._drop(self._verdicts.pop(key, None))
        self._verdicts[key] = (verdict, self._clock() + verdict.lifetime)
        self._text += 0 if verdict.rules is None else verdict.rules.size
        while len(self._verdicts) > _MOST_ORIGINS or (self._text > _MOST_TEXT and len(self._verdicts) > 1):
            self._drop(self._verdicts.popitem(last=False)[1])

    def _drop(self, entry: tuple[Verdict, float] | None) -> None:
        if entry is not None and entry[0].rules is not None:
            self._text -= entry[0].rules.size

    def __len__(self) -> int:
        return len(self._verdicts)


class _Asking(msgspec.Struct, eq=False):
    """A robots.txt on its way, and how many hops wait for it."""

    task: asyncio.Task[Verdict]
    waiting: int = 0


class RobotsExchange:
    """Makes a hop if the robots.txt of its origin lets ``user_agent``.

    ``timeout``: seconds for one try to get a robots.txt, redirects and all. Raises FetchError of the kinds
    ``robots_disallowed`` and ``robots_unreachable``, before anything of the request was sent.
    """

    def __init__(
        self,
        inner: Exchange,
        user_agent: str,
        policy: RedirectPolicy,
        timeout: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._inner = inner
        self._token = product_token(user_agent)
        self._headers = [("User-Agent", user_agent), ("Accept", "*/*"), ("Accept-Encoding", ACCEPT_ENCODING)]
        self._policy = policy
        self._timeout = timeout
        self._memory = Memory(clock)
        self._asking: dict[_Key, _Asking] = {}

    async def send(self, hop: Hop, trace: HopTrace) -> Answer:
        """Make the hop if it is allowed."""
        key = _key(hop)
        verdict = self._memory.get(key)
        if verdict is None:
            with trace.hold(Phase.ROBOTS):
                verdict = await self._ask(key, hop)
        if verdict.rules is None:
            raise FetchError(verdict.kind, verdict.reason, sent=False)
        if not verdict.rules.allows(hop.url):
            message = f"{_origin(hop)}/robots.txt does not allow it for {self._token or '*'}"
            raise FetchError(ErrorKind.ROBOTS_DISALLOWED, message, sent=False)
        return await self._inner.send(hop, trace)

    def crawl_delay(self, hop: Hop) -> float | None:
        """Return the seconds between two requests that the origin asks for, if that is known."""
        rules = self._memory.latest(_key(hop))
        return None if rules is None else rules.crawl_delay

    async def close(self) -> None:
        """Give up what is on its way."""
        tasks = [asking.task for asking in self._asking.values()]
        self._asking.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, key: _Key, hop: Hop) -> Verdict:
        """Wait for the robots.txt of an origin, together with all others that do.

        Who is cancelled leaves the others waiting; the last one takes the request along.
        """
        asking = self._asking.get(key) or self._begin(key, hop)
        asking.waiting += 1
        try:
            return await asyncio.shield(asking.task)
        finally:
            asking.waiting -= 1
            if not asking.waiting and not asking.task.done():
                # At once, for who comes next must not wait for a task that is being cancelled.
                self._forget(key, asking)
                asking.task.cancel()

    def _begin(self, key: _Key, hop: Hop) -> _Asking:
        task = asyncio.create_task(self._learn(key, hop), name=f"robots.txt of {_origin(hop)}")
        asking = self._asking[key] = _Asking(task)
        task.add_done_callback(lambda _: self._forget(key, asking))
        return asking

    def _forget(self, key: _Key, asking: _Asking) -> None:
        if self._asking.get(key) is asking:
            del self._asking[key]

    async def _learn(self, key: _Key, hop: Hop) -> Verdict:
        """Fetch a robots.txt, if need be several times, and remember what it says."""
        first = Hop("GET", f"{_origin(hop)}/robots.txt", self._headers, None, hop.timeout, hop.lane)
        verdict = await self._try(first)
        for pause in _PAUSES:
            if verdict.rules is not None or verdict.kind in _NOT_THE_ORIGIN:
                break
            await asyncio.sleep(pause)
            verdict = await self._try(first)
        if verdict.kind in _NOT_THE_ORIGIN:
            return verdict
        earlier = self._memory.latest(key)
        if verdict.rules is None and earlier is not None:
            # What it said before holds for as long as it can not be had (section 2.4).
            verdict = Verdict(earlier, UNREACHABLE_FOR)
        self._memory.put(key, verdict)
        return verdict

    async def _try(self, hop: Hop) -> Verdict:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._fetch(hop)
        except FetchError as error:
            if error.kind in _NOT_THE_ORIGIN:
                return Verdict(None, 0.0, error.kind, error.message)
            reason = f"{error.kind}: {error.message}"
        except TimeoutError:
            reason = f"took longer than http.robots_timeout ({self._timeout:g} s)"
        return Verdict(None, UNREACHABLE_FOR, reason=f"no answer to be had from {hop.url}, {reason}")

    async def _fetch(self, hop: Hop) -> Verdict:
        """Follow the redirects to a robots.txt. It holds for the origin that was asked, wherever they lead."""
        following: Hop | None = hop
        for _ in range(MOST_REDIRECTS + 1):
            if following is None:
                break
            hop = following
            answer = await self._inner.send(hop, HopTrace())
            try:
                if answer.status not in REDIRECTS or answer.fields.get("Location") is None:
                    return await self._read(answer)
                following = self._next(hop, answer)
            finally:
                answer.close()
        return Verdict(ALL_ALLOWED, lifetime(None))

    def _next(self, hop: Hop, answer: Answer) -> Hop | None:
        try:
            return follow(hop, answer.status, location_of(answer.headers, answer.status), self._policy)
        except FetchError:
            return None

    async def _read(self, answer: Answer) -> Verdict:
        if answer.status >= _SERVER_ERROR:
            raise FetchError(ErrorKind.HTTP_5XX, f"the server answered {answer.status}")
        rules = ALL_ALLOWED
        if answer.status in _OK:
            data = await _body(answer)
            text = relevant(data[:MAX_SIZE], self._token, whole=len(data) <= MAX_SIZE)
            if len(text) > _PARSED_AT_ONCE:
                rules = await asyncio.to_thread(Rules, text, self._token)
            elif text:
                rules = Rules(text, self._token)
        else:
            await _drain(answer)
        return Verdict(rules, lifetime(answer.fields.get("Cache-Control")))


async def _body(answer: Answer) -> bytes:
    """Return the decoded body; of one that is longer than ``MAX_SIZE``, a byte more than that."""
    decoder = decoder_for(answer.fields.get("Content-Encoding"))
    data = bytearray()
    begun = False
    while len(data) <= MAX_SIZE and (chunk := await answer.read()):
        begun = True
        room = MAX_SIZE - len(data)
        data += (chunk if decoder is None else decoder.feed(chunk, room))[: room + 1]
    if decoder is not None and begun and len(data) <= MAX_SIZE:
        decoder.finish()
    return bytes(data)


async def _drain(answer: Answer) -> None:
    """Read a short body that nobody wants, so that the page is fetched by the same connection."""
    read = 0
    with suppress(FetchError, TimeoutError):
        async with asyncio.timeout(_DRAINED_FOR):
            while read <= _MOST_DRAINED and (chunk := await answer.read()):
                read += len(chunk)


def _key(hop: Hop) -> _Key:
    """Return what a robots.txt is known by: who accepts any certificate is told by anybody.

    The proxy is no part of it, which changes from hop to hop.
    """
    origin = _origin(hop)
    return origin if hop.lane is None or hop.lane.tls is None else (origin, hop.lane.tls)


def _origin(hop: Hop) -> str:
    """Return scheme, host and port of a hop as they begin a URL (section 2.3: a robots.txt is for one of these)."""
    return str(URL(hop.url, encoded=True).origin()).lower()
