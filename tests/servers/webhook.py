"""A receiver of webhooks for the tests, in a thread with a loop of its own, so that any test may talk to it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, cast

import msgspec
from aiohttp import web

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

SECRET = "shared secret"


class Posted(msgspec.Struct):
    """A request as it arrived, and what was answered."""

    headers: dict[str, str]
    body: bytes
    status: int = 0

    @property
    def records(self) -> list[dict[str, Any]]:
        if self.body.startswith(b"["):
            found: list[dict[str, Any]] = msgspec.json.decode(self.body)
            return found
        return [msgspec.json.decode(line) for line in self.body.splitlines()]


class WebhookServer:
    """A running receiver. ``answer`` decides: it returns a status, and headers if it likes.

    ``kept`` has what was answered with 2xx, each idempotency key once; ``requests`` has everything.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self.port = 0
        self._transports: set[asyncio.WriteTransport] = set()
        self.reset()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.start()

    def reset(self) -> None:
        """Forget what has arrived and take everything."""
        self.requests: list[Posted] = []
        self.kept: dict[str, Posted] = {}
        self.answer: Callable[[Posted], int | tuple[int, dict[str, str]]] = lambda _: 200
        self.gate: asyncio.Event | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}/records"

    @property
    def records(self) -> list[dict[str, Any]]:
        """What a receiver that minds idempotency keys has."""
        return [record for posted in self.kept.values() for record in posted.records]

    def start(self) -> None:
        """Answer from now on."""
        self._call(self._start())

    def stop(self) -> None:
        """Refuse connections."""
        self._call(self._stop())

    def close(self) -> None:
        """End for good."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def stall(self) -> None:
        """Answer nothing until ``flow``."""

        async def close() -> None:
            self.gate = asyncio.Event()

        self._call(close())

    def flow(self) -> None:
        """Answer again, also what has been waiting."""

        async def open_() -> None:
            gate, self.gate = self.gate, None
            if gate is not None:
                gate.set()

        self._call(open_())

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    async def _start(self) -> None:
        application = web.Application(client_max_size=2**28)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._context, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        await self._runner.cleanup()
        # Those whose client is still there; TLS would wait for its last word.
        for transport in self._transports:
            transport.abort()
        self._transports.clear()
        for _ in range(3):
            await asyncio.sleep(0)

    async def _handle(self, request: web.Request) -> web.Response:
        if request.transport is not None:
            self._transports.add(cast("asyncio.WriteTransport", request.transport))
        posted = Posted({name.lower(): value for name, value in request.headers.items()}, await request.read())
        self.requests.append(posted)
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answer(posted)
        posted.status, headers = answer if isinstance(answer, tuple) else (answer, {})
        if 200 <= posted.status < 300:
            self.kept[posted.headers["idempotency-key"]] = posted
        return web.Response(status=posted.status, text=f"said {posted.status}", headers=headers)


def webhook_server() -> Iterator[WebhookServer]:
    """Start a receiver that takes everything."""
    server = WebhookServer()
    try:
        yield server
    finally:
        server.close()
