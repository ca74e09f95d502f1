"""The answers by path, and the table that names them."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs

from fetcher.origin import listings
from fetcher.origin.bodies import SMALL, compressed, content, pieces, stream
from fetcher.origin.parsing import KEPT_BODY, BadRequestError, Request, decimal, number
from fetcher.origin.replies import DROPPED, Answer, Reply
from fetcher.origin.tables import remember
from fetcher.origin.weather import Weather

if TYPE_CHECKING:
    from fetcher.origin.server import OriginConfig

STATE_SIZE = 100_000

_BREAKS_HEADER = re.compile(r"[\x00\r\n]")
Handler = Callable[["Routes", Request, str], Answer]


class Routes:
    """The answers; their state is bounded, and kept per host and full target."""

    def __init__(self, config: OriginConfig, closing: asyncio.Event) -> None:
        self._config = config
        self._closing = closing
        self._random = random.Random(config.seed)
        self._attempts: dict[tuple[str, bytes, str], int] = {}
        self._buckets: dict[tuple[str, float], tuple[float, float]] = {}
        self._slots: dict[tuple[str, int, float], asyncio.Semaphore] = {}
        self._under_way: dict[tuple[str, int, float], int] = {}
        self._weather = Weather()

    def answer(self, request: Request, path: str) -> Answer:
        """Answer as `path`, which has no leading slash, would."""
        name, _, rest = path.partition("/")
        route = ROUTES.get(name)
        if route is None:
            return Reply(404, b"no such route\n")
        try:
            return route.handler(self, request, rest)
        except BadRequestError as error:
            return Reply(400, f"{route.usage}: {error}\n".encode())

    def _then(self, request: Request, rest: str) -> Answer:
        return self.answer(request, rest) if rest else Reply()

    def _early(self, request: Request, rest: str, times: int) -> bool:
        """Whether this is among the first `times` attempts; `rest` tells nested routes apart."""
        key = (request.head.host, request.target, rest)
        attempt = self._attempts.get(key, 0)
        remember(self._attempts, key, attempt + 1, STATE_SIZE)
        return attempt < times

    def sized(self, _: Request, rest: str) -> Answer:
        """Send N bytes, each 16 of them naming their offset."""
        size = number(rest)
        body = content(size) if size <= SMALL else stream(pieces(size))
        return Reply(body=body, length=size, kind="application/octet-stream")

    def chunked(self, _: Request, rest: str) -> Answer:
        """Send N bytes in chunked coding."""
        return Reply(body=stream(pieces(number(rest))), kind="application/octet-stream")

    def close(self, _: Request, rest: str) -> Answer:
        """Send N bytes without Content-Length, ended by closing."""
        return Reply(body=stream(pieces(number(rest))), kind="application/octet-stream", close=True)

    def once(self, _: Request, rest: str) -> Answer:
        """Send N bytes and close the connection, as announced."""
        size = number(rest)
        body = content(size) if size <= SMALL else stream(pieces(size))
        return Reply(body=body, length=size, kind="application/octet-stream", close=True)

    def truncated(self, _: Request, rest: str) -> Answer:
        """Declare N bytes, send half of them and close."""
        size = number(rest)
        return Reply(body=stream(pieces(size // 2)), length=size, kind="application/octet-stream", close=True)

    def gzip(self, _: Request, rest: str) -> Answer:
        """Send a gzip body that decodes to N bytes."""
        return _encoded(number(rest), "gzip", 31)

    def deflate(self, _: Request, rest: str) -> Answer:
        """Send a zlib body that decodes to N bytes."""
        return _encoded(number(rest), "deflate", 15)

    def drip(self, _request: Request, rest: str) -> Answer:
        """Send N bytes spread over SECONDS."""
        text, _, seconds = rest.partition("/")
        size = number(text)
        return Reply(body=self._drops(size, decimal(seconds)), length=size)

    @staticmethod
    async def _drops(size: int, seconds: float) -> AsyncGenerator[bytes, None]:
        step = max(1, -(-size // 100))
        for sent in range(0, size, step):
            await asyncio.sleep(seconds * step / size)
            yield content(min(step, size - sent))

    def delay(self, request: Request, rest: str) -> Answer:
        """Wait, then answer as /REST."""
        seconds, _, rest = rest.partition("/")
        jitter = 1 + self._config.delay_jitter * self._random.uniform(-1, 1)
        return partial(self._later, request, rest, decimal(seconds) * jitter)

    async def _later(self, request: Request, rest: str, seconds: float) -> Reply:
        await asyncio.sleep(seconds)
        answer = self._then(request, rest)
        return answer if isinstance(answer, Reply) else await answer()

    def slots(self, request: Request, rest: str) -> Answer:
        """Answer as /REST after SECONDS, at most N at once per host; the others wait their turn."""
        text, _, rest = rest.partition("/")
        seconds, _, rest = rest.partition("/")
        key = (request.head.host, number(text), decimal(seconds))
        if not key[1]:
            raise BadRequestError("there has to be a slot")
        slots = self._slots.get(key) or asyncio.Semaphore(key[1])
        remember(self._slots, key, slots, STATE_SIZE)
        return partial(self._in_turn, slots, request, rest, key[2])

    async def _in_turn(self, slots: asyncio.Semaphore, request: Request, rest: str, seconds: float) -> Reply:
        async with slots:
            return await self._later(request, rest, seconds)

    def at_most(self, request: Request, rest: str) -> Answer:
        """Answer as /REST after SECONDS, or 429 at once while N are under way for the host."""
        text, _, rest = rest.partition("/")
        seconds, _, rest = rest.partition("/")
        return partial(self._among, (request.head.host, number(text), decimal(seconds)), request, rest)

    async def _among(self, key: tuple[str, int, float], request: Request, rest: str) -> Reply:
        if self._under_way.get(key, 0) >= key[1]:
            return Reply(429, b"too many at once\n")
        self._under_way[key] = self._under_way.get(key, 0) + 1
        try:
            return await self._later(request, rest, key[2])
        finally:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]

    def hang(self, _request: Request, _rest: str) -> Answer:
        """Send nothing; drop the connection when the origin closes."""
        return self._hung

    async def _hung(self) -> Reply:
        await self._closing.wait()
        return DROPPED

    def status(self, _: Request, rest: str) -> Answer:
        """Answer with that status, 200 to 999."""
        code = number(rest, 999)
        if code < HTTPStatus.OK:
            raise BadRequestError("not a final status")
        return Reply(code, b"" if code in {204, 304} else b"status %d\n" % code)

    def redirect(self, _: Request, rest: str) -> Answer:
        """Redirect to /redirect/N-1 and so on; 200 at 0."""
        left = number(rest)
        return Reply(302, b"", (f"Location: /redirect/{left - 1}",)) if left else Reply()

    def redirect_to(self, request: Request, _: str) -> Answer:
        """Redirect to URL as it is given, with 302 unless said."""
        args = parse_qs(request.query)
        url, status = args.get("url", [""])[0], number(args.get("status", ["302"])[0], 999)
        if not url or _BREAKS_HEADER.search(url) or status < HTTPStatus.OK:
            raise BadRequestError("no usable url or status")
        return Reply(status, b"", (f"Location: {url}",))

    def flaky(self, request: Request, rest: str) -> Answer:
        """Answer 503 the first K times for a host and target, then as /REST."""
        times, _, rest = rest.partition("/")
        return Reply(503, b"flaky\n") if self._early(request, rest, number(times)) else self._then(request, rest)

    def reset(self, request: Request, rest: str) -> Answer:
        """Reset the connection the first K times for a host and target, then answer as /REST."""
        times, _, rest = rest.partition("/")
        return DROPPED if self._early(request, rest, number(times)) else self._then(request, rest)

    def retry_after(self, request: Request, rest: str) -> Answer:
        """Answer 503 with Retry-After the first K times for a host and target, then as /REST."""
        seconds, times, rest = (*rest.split("/", 2), "", "")[:3]
        headers = (f"Retry-After: {number(seconds)}",)
        early = self._early(request, rest, number(times))
        return Reply(503, b"retry later\n", headers) if early else self._then(request, rest)

    def limited(self, request: Request, rest: str) -> Answer:
        """Answer 429 past RATE a second per host (a burst of RATE is free), else as /REST."""
        text, _, rest = rest.partition("/")
        rate = decimal(text) if text else self._config.limited_rate
        key, now, burst = (request.head.host, rate), monotonic(), max(1.0, rate)
        tokens, then = self._buckets.get(key, (burst, now))
        tokens = min(burst, tokens + (now - then) * rate)
        allowed = tokens >= 1
        remember(self._buckets, key, (tokens - allowed, now), STATE_SIZE)
        return self._then(request, rest) if allowed else Reply(429, b"slow down\n", ("Retry-After: 1",))

    def json(self, request: Request, _: str) -> Answer:
        """Show the request as JSON: method path query args headers body body_size."""
        names = dict.fromkeys(name.lower() for name, _ in request.head.fields)
        document = {
            "method": request.method.decode("latin-1"),
            "path": request.path,
            "query": request.query,
            "args": parse_qs(request.query, keep_blank_values=True),
            "headers": {name: request.head.get(name) for name in names},
            "body": request.body.kept.decode("utf-8", "replace"),
            "body_size": request.body.size,
        }
        return _json(document)

    def items(self, request: Request, _: str) -> Answer:
        """Send a page of a list, with Link: items page pages total next_cursor next; or by offset=N, cursor=C."""
        return listings.page(request)

    def headers(self, request: Request, _: str) -> Answer:
        """Show the request's header fields in order, as JSON."""
        return _json({"headers": request.head.fields})

    def echo(self, request: Request, _: str) -> Answer:
        """Send back the request's body and content type."""
        if request.body.size > KEPT_BODY:
            return Reply(413, b"too large to echo\n")
        return Reply(body=bytes(request.body.kept), kind=request.head.get("content-type") or "application/octet-stream")

    def cookies(self, request: Request, rest: str) -> Answer:
        """Set each cookie of the query; /cookies alone shows the Cookie header."""
        pairs = request.query.split("&") if rest == "set" and request.query else ()
        reply = _json({"cookie": request.head.get("cookie")})
        return Reply(200, reply.body, tuple(f"Set-Cookie: {pair}; Path=/" for pair in pairs), reply.kind)

    def weather(self, request: Request, _: str) -> Answer:
        """Show the weather of a CITY; 401 without a key, 429 past N a second for that key."""
        return self._weather.answer(request, monotonic())

    def robots(self, _request: Request, _rest: str) -> Answer:
        """Disallow /private to all robots."""
        return Reply(body=b"User-agent: *\nDisallow: /private\n")

    def private(self, request: Request, rest: str) -> Answer:
        """Answer as /REST, which robots.txt does not allow."""
        return self._then(request, rest)

    def health(self, _request: Request, _rest: str) -> Answer:
        """Say ok."""
        return Reply(body=b"ok")


def _encoded(size: int, coding: str, wbits: int) -> Reply:
    source, headers = compressed(size, wbits), (f"Content-Encoding: {coding}",)
    return Reply(body=b"".join(source) if size <= SMALL else stream(source), headers=headers)


def _json(document: Mapping[str, object]) -> Reply:
    return Reply(body=json.dumps(document).encode(), kind="application/json")


class Route(NamedTuple):
    """A row of the table; the answers of a `fixed` route depend on the path alone and may be remembered."""

    usage: str
    handler: Handler  # its docstring is the help
    fixed: bool = False


_TABLE = (
    Route("/bytes/N", Routes.sized, fixed=True),
    Route("/chunked/N", Routes.chunked),
    Route("/close/N", Routes.close),
    Route("/once/N", Routes.once),
    Route("/truncated/N", Routes.truncated),
    Route("/gzip/N", Routes.gzip, fixed=True),
    Route("/deflate/N", Routes.deflate, fixed=True),
    Route("/drip/N/SECONDS", Routes.drip),
    Route("/delay/SECONDS/REST...", Routes.delay),
    Route("/slots/N/SECONDS/REST...", Routes.slots),
    Route("/at-most/N/SECONDS/REST...", Routes.at_most),
    Route("/hang", Routes.hang),
    Route("/status/CODE", Routes.status, fixed=True),
    Route("/redirect/N", Routes.redirect, fixed=True),
    Route("/redirect-to?url=URL&status=CODE", Routes.redirect_to),
    Route("/flaky/K/REST...", Routes.flaky),
    Route("/reset/K/REST...", Routes.reset),
    Route("/retry-after/SECONDS/K/REST...", Routes.retry_after),
    Route("/limited/RATE/REST...", Routes.limited),
    Route("/json/...", Routes.json),
    Route("/items?total=N&size=N&page=N", Routes.items),
    Route("/headers", Routes.headers),
    Route("/echo", Routes.echo),
    Route("/cookies/set?k=v", Routes.cookies),
    Route("/weather?q=CITY&appid=KEY&limit=N", Routes.weather),
    Route("/robots.txt", Routes.robots, fixed=True),
    Route("/private/REST...", Routes.private),
    Route("/health", Routes.health, fixed=True),
)
ROUTES = {route.usage[1:].partition("/")[0].partition("?")[0]: route for route in _TABLE}
