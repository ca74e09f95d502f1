"""An authorization server of OAuth 2.0 for tests, and an API that takes its tokens.

The token endpoint can be down, slow, broken or strict; its port is its own even while nobody listens there.
"""

from __future__ import annotations

import asyncio
import socket
from base64 import b64decode
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLIENT, SECRET, REFRESH = "client", "secret@client", "secret-refresh-0"


class OAuthServer:
    """Gives out secret-access-1, secret-access-2, ... and notes every request.

    ``failures``: answers that go before that, a status with its headers; 0 is a connection that is reset. ``delay``:
    seconds before each answer.
    ``tokens``: those that the API takes. ``refresh``: the one refresh token that is worth something, which each use of
    it replaces if ``rotates``. ``served``: requests to the API by path; ``refused`` of them had no good token.
    """

    def __init__(self) -> None:
        self.forms: list[dict[str, str]] = []
        self.asked = asyncio.Event()
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.delay = 0.0
        self.expires_in = 3600
        self.tokens: set[str] = set()
        self.refresh = REFRESH
        self.rotates = False
        self.public = False
        self.served: Counter[str] = Counter()
        self.refused = 0
        self.token_port = self.api_port = 0
        self._given = 0
        self._token_site: web.BaseSite | None = None
        self._runner = web.AppRunner(self._application(), access_log=None)
        self._idle = _bound(0)
        self.token_port = self._idle.getsockname()[1]

    @property
    def token_url(self) -> str:
        return f"http://127.0.0.1:{self.token_port}/token"

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.api_port}{path}"

    async def start(self) -> None:
        """Serve the API, and nothing else yet."""
        await self._runner.setup()
        sock = _bound(0)
        self.api_port = sock.getsockname()[1]
        await web.SockSite(self._runner, sock, backlog=1024).start()

    async def up(self) -> None:
        """Let the token endpoint listen."""
        self._token_site = web.SockSite(self._runner, self._idle)
        await self._token_site.start()

    async def close(self) -> None:
        await self._runner.cleanup()
        self._idle.close()

    def revoke(self) -> None:
        """Take none of the tokens that were given out any more."""
        self.tokens.clear()

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/token", self._token)
        application.router.add_get("/{path:.*}", self._api)
        return application

    async def _api(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            self.refused += 1
            return web.Response(status=401, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        self.served[request.path_qs] += 1
        return web.json_response({"path": request.path})

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.forms.append(form)
        self.asked.set()
        await asyncio.sleep(self.delay)
        if self.failures:
            status, headers = self.failures.pop(0)
            if not status and request.transport is not None:
                request.transport.abort()
            return web.Response(status=status or 500, headers=headers)
        if not self._is_client(request, form):
            return web.json_response({"error": "invalid_client"}, status=401)
        if form["grant_type"] == "refresh_token" and form.get("refresh_token") != self.refresh:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response(self._give(form))

    def _is_client(self, request: web.Request, form: dict[str, str]) -> bool:
        given = request.headers.get("Authorization")
        if given is not None:
            name, _, secret = b64decode(given.removeprefix("Basic ")).decode().partition(":")
            return (unquote_plus(name), unquote_plus(secret)) == (CLIENT, SECRET)
        return form.get("client_id") == CLIENT and (self.public or form.get("client_secret") == SECRET)

    def _give(self, form: dict[str, str]) -> dict[str, object]:
        self._given += 1
        token = f"secret-access-{self._given}"
        self.tokens.add(token)
        answer: dict[str, object] = {"access_token": token, "token_type": "Bearer", "expires_in": self.expires_in}
        if form["grant_type"] == "refresh_token" and self.rotates:
            self.refresh = f"secret-refresh-{self._given}"
            answer["refresh_token"] = self.refresh
        return answer


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


@asynccontextmanager
async def oauth_server(*, up: bool = True) -> AsyncIterator[OAuthServer]:
    """Serve until the block ends; without ``up`` the token endpoint refuses connections until it is told."""
    server = OAuthServer()
    await server.start()
    if up:
        await server.up()
    try:
        yield server
    finally:
        await server.close()
