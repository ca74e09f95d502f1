"""Web sockets (RFC 6455) on aiohttp's server, which is built for them: the rest of the origin is not.

/echo          sends back each message
/count/N       sends {"n": 1, "last": false} and so on up to N, and closes
/close/CODE    closes at once, with a code from 1000 on
/silent        says nothing
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from fetcher.origin.parsing import BadRequestError, number

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fetcher.origin.streams import Limits

    Talk = Callable[[web.WebSocketResponse, str], Awaitable[None]]

_MOST_MESSAGE = 1024 * 1024
_MOST_MESSAGES = 100_000
_FIRST_CODE, _LAST_CODE = 1000, 4999
_CLOSE_SECONDS = 1.0


async def _echo(socket: web.WebSocketResponse, _: str) -> None:
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)


async def _count(socket: web.WebSocketResponse, text: str) -> None:
    most = number(text, _MOST_MESSAGES)
    for index in range(1, most + 1):
        await socket.send_str(json.dumps({"n": index, "last": index == most}))


async def _close(socket: web.WebSocketResponse, text: str) -> None:
    code = number(text, _LAST_CODE)
    await socket.close(code=max(code, _FIRST_CODE), message=b"as asked")


async def _silent(socket: web.WebSocketResponse, _: str) -> None:
    async for _message in socket:
        pass


TALKS: dict[str, Talk] = {"echo": _echo, "count": _count, "close": _close, "silent": _silent}


class WebSocketServer:
    """Serves web sockets until it is closed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: set[web.WebSocketResponse] = set()
        self._port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; a port of 0 is a free one."""
        app = web.Application()
        app.router.add_get("/{talk}", self._serve)
        app.router.add_get("/{talk}/{text}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSE_SECONDS)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self._port = int(self._runner.addresses[0][1])

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    async def close(self) -> None:
        """Stop listening, and drop every web socket."""
        for socket in list(self._open):
            with suppress(OSError, TimeoutError):
                await socket.close(code=1001)
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        talk, text = TALKS.get(request.match_info["talk"]), request.match_info.get("text", "")
        if talk is None:
            return web.Response(status=404, text=f"there are {', '.join(f'/{name}' for name in TALKS)}\n")
        if len(self._open) >= self._limits.connections:
            return web.Response(status=503, text="as many as there may be\n")
        socket = web.WebSocketResponse(
            timeout=_CLOSE_SECONDS, max_msg_size=_MOST_MESSAGE, protocols=("echo",), compress=True
        )
        if not socket.can_prepare(request):
            return web.Response(status=426, text="a web socket is here\n", headers={"Upgrade": "websocket"})
        await socket.prepare(request)
        self._open.add(socket)
        try:
            async with asyncio.timeout(self._limits.seconds):
                await talk(socket, text)
        except BadRequestError as error:
            await socket.close(code=1008, message=str(error).encode())
        except (ConnectionError, TimeoutError):
            pass  # the client has gone, or has had enough
        finally:
            self._open.discard(socket)
        return socket
