"""The API and the page, served by aiohttp.

connections     how many, for how long
tell_problems   what is raised becomes an answer
keep_time       a crowd gets none
access          by which name, from which page, with which token
operations      what can be asked for
"""

from __future__ import annotations

import json
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from fetcher.errors import ConfigError
from fetcher.service.api import openapi, pages
from fetcher.service.api.access import Names
from fetcher.service.api.connections import Runner, keep_time
from fetcher.service.api.operations import register
from fetcher.service.api.problems import tell_problems
from fetcher.service.api.reception import Reception
from fetcher.service.api.reference.page import addressed, render
from fetcher.service.api.routes import batches, health, results, state, submitting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fetcher.service.api.desk import Desk
    from fetcher.service.api.operations import Operation
    from fetcher.service.settings import ServiceSettings

BACKLOG = 1024
_FRAMES = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_NO_CONTENT = f"default-src 'none'; {_FRAMES}"
_OWN_CONTENT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    # No text becomes an element, whatever a script of ours does with it (Trusted Types).
    f"require-trusted-types-for 'script'; {_FRAMES}"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def create_app(desk: Desk) -> web.Application:
    """Return the application that answers for the service."""
    settings = desk.config.service
    reception = Reception(Path(settings.state_dir) / "incoming")
    app = web.Application(middlewares=[tell_problems, keep_time, _checking(desk)], client_max_size=settings.max_config)
    known = operations(desk, reception)
    register(app, known, lambda: desk.config.service.tokens)
    _add_pages(app, openapi.document(known, secured=bool(settings.tokens)))
    app.on_response_prepare.append(_add_headers)
    app.on_startup.append(_opening(reception))
    return app


def operations(desk: Desk, reception: Reception) -> list[Operation]:
    """Return everything that can be asked for, in the order in which people read about it."""
    return [
        submitting.operation(desk, reception),
        *batches.operations(desk),
        results.operation(desk),
        *state.operations(desk),
        *health.operations(desk),
    ]


def _opening(reception: Reception) -> Callable[[web.Application], Awaitable[None]]:
    async def open_reception(_: web.Application) -> None:
        reception.open()

    return open_reception


def _checking(desk: Desk) -> Callable[..., Awaitable[web.StreamResponse]]:
    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        Names(desk.config.service).check(request)
        return await handler(request)

    return check


def _add_pages(app: web.Application, document: dict[str, object]) -> None:
    """Serve what takes no token: the page, the document of the API, and the page that is made of it."""
    dashboard, styles = pages.load(pages.DASHBOARD), pages.load(pages.REFERENCE)
    fixed = {
        "/openapi.json": pages.page(json.dumps(document, indent=1).encode(), ".json"),
    }
    fixed |= {f"/docs/{name}": style for name, style in styles.items()}
    fixed |= {f"/static/{name}": file for name, file in dashboard.items()}
    if "index.html" in dashboard:
        fixed["/"] = dashboard["index.html"]

    reference = render(document)

    async def answer(request: web.Request) -> web.Response:
        return fixed[request.path].answer(request)

    async def explain(request: web.Request) -> web.Response:
        # It shows what to type, with the address that has led here.
        text = addressed(reference, f"{request.scheme}://{request.host}")
        return pages.page(text.encode(), ".html").answer(request)

    app.router.add_get("/docs", explain)
    for path in fixed:
        app.router.add_get(path, answer)


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Say to browsers what an answer may do: nothing, but for our own pages."""
    response.headers.update(_HEADERS)
    response.headers["Server"] = "fetcher"
    # The fields of a 304 take the place of those that the browser has of the page (RFC 9111, section 3.2).
    if response.status != HTTPStatus.NOT_MODIFIED:
        is_page = response.content_type == "text/html"
        response.headers["Content-Security-Policy"] = _OWN_CONTENT if is_page else _NO_CONTENT
    response.headers.setdefault("Cache-Control", "no-store")


class Listening(NamedTuple):
    """A service that listens."""

    runner: Runner
    url: str
    """The root of its URLs, without a slash at the end."""

    async def stop(self) -> None:
        """Listen no more, and let requests end that are being answered."""
        await self.runner.cleanup()


async def listen(app: web.Application, settings: ServiceSettings, *, shutdown_timeout: float = 5.0) -> Listening:
    """Listen where the settings say. Raises ConfigError if that can not be."""
    runner = Runner(app, settings.max_connections, shutdown_timeout)
    await runner.setup()
    site = web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        where = f"{settings.host}:{settings.port}"
        raise ConfigError(f"service: can not listen on {where}: {error.strerror or error}") from error
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return Listening(runner, f"http://{host}:{site.port}")
