"""A server that shows the page with scenes of a test's own, and keeps what the page asks for."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager
from importlib.resources import files
from typing import TYPE_CHECKING

from aiohttp import web

from fetcher.service.api.events import Events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fetcher.service.models import History, Snapshot

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)


class Stage:
    """What the page is shown: `scene` makes the snapshot of each beat."""

    def __init__(self, scene: Callable[[], Snapshot], history: History, beat: float) -> None:
        self.scene = scene
        self.history = history
        self.beat = beat
        self.events = Events()
        self.asked: list[tuple[str, str]] = []
        self.url = ""

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application()
        app.router.add_get("/", self._file)
        app.router.add_get("/static/{name}", self._file)
        app.router.add_get("/v1/events", self._events)
        app.router.add_route("*", "/v1/batches{rest:.*}", self._batches)
        return app

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        kind = {"html": "text/html", "css": "text/css", "js": "text/javascript"}[name.rpartition(".")[2]]
        text = (files("fetcher.service") / "dashboard" / name).read_text(encoding="utf-8")
        return web.Response(text=text, content_type=kind, headers={"Content-Security-Policy": CSP})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        return await self.events.handle(request, self.scene, lambda: self.history)

    async def publish(self) -> None:
        """Send a snapshot on every beat."""
        while True:
            self.events.publish(self.scene)
            await asyncio.sleep(self.beat)

    async def _batches(self, request: web.Request) -> web.Response:
        self.asked.append((request.method, request.path))
        view = json.loads(self.scene().model_dump_json())["batches"][0]
        return web.json_response(view)


@contextmanager
def stage(scene: Callable[[], Snapshot], history: History, beat: float = 1.0) -> Iterator[Stage]:
    """Serve a stage from a thread of its own."""
    shown = Stage(scene, history, beat)
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(shown.app(), shutdown_timeout=1.0)

    publishing: list[asyncio.Task[None]] = []

    async def begin() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        publishing.append(asyncio.create_task(shown.publish()))
        shown.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"

    async def end() -> None:
        for task in publishing:
            task.cancel()
        shown.events.end()
        await runner.cleanup()

    # In the thread, too: where Playwright is in use, this one has a loop that runs.
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(begin(), loop).result(5)
        yield shown
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
