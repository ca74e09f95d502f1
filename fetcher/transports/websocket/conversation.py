"""A web socket that is open: messages both ways, and the frames that nobody asked for (RFC 6455, section 5)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from aiohttp import EofStream, WebSocketError, WSCloseCode, WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.client_exceptions import ClientError, ServerDisconnectedError
from aiohttp.http_websocket import WebSocketReader, WebSocketWriter

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.exchange import uploading
from fetcher.transports.http.faults import fetch_error
from fetcher.transports.websocket.frames import FrameHeads

if TYPE_CHECKING:
    from fetcher.transports.http.tracing import HopTrace
    from fetcher.transports.http.upgrading import UpgradeAnswer
    from fetcher.transports.watchdog import Watch
    from fetcher.transports.websocket.handshake import Agreed

_MOST_WAITING = 64 * 1024
_LONGEST_GOODBYE = 1.0
_NORMAL, _NO_CODE = 1000, 1005
_TOO_BIG = 1009
_SHOWN = 100
_DATA = frozenset({WSMsgType.TEXT, WSMsgType.BINARY})


class Conversation:
    """What goes on after the handshake that ``answer`` is the end of. ``most``: the bytes that a message may have.

    ``bound`` is how the message of a failure names that.
    """

    def __init__(
        self, answer: UpgradeAnswer, agreed: Agreed, watch: Watch, trace: HopTrace, url: str, *, most: int, bound: str
    ) -> None:
        self._transport = answer.transport
        self._protocol = answer.protocol
        self._loop = asyncio.get_running_loop()
        self._trace = trace
        self._watch = watch
        self._url = url
        self._most = most
        self._bound = bound
        self._messages = WebSocketDataQueue(answer.protocol, _MOST_WAITING, loop=self._loop)
        # The library refuses what is as long as its limit.
        reader = WebSocketReader(self._messages, most + 1, bool(agreed.window), True)  # noqa: FBT003  theirs
        self._writer = WebSocketWriter(
            answer.protocol, answer.transport, use_mask=True, compress=agreed.window, notakeover=agreed.fresh_context
        )
        self._meter = _Meter(reader, self._messages, watch)
        answer.hand_over(self._meter, self._messages)

    @property
    def received(self) -> int:
        """Bytes that have arrived since the handshake, of whatever frames."""
        return self._meter.received

    async def send(self, data: bytes, *, text: bool) -> None:
        """Send a message; returns when most of it has left. Raises FetchError."""
        try:
            with uploading(self._transport, self._trace, self._loop):
                await self._writer.send_frame(data, WSMsgType.TEXT if text else WSMsgType.BINARY)
        except (ClientError, OSError) as error:
            raise fetch_error(self._reset() or error, self._url, self._trace) from error

    async def receive(self) -> str | bytes:
        """Return the next message, answering pings meanwhile. Raises FetchError if there is none."""
        try:
            while True:
                # Between messages nothing has to come at any rate; within one, what comes is a body.
                self._watch.resume()
                message = await self._messages.read()
                if message.type in _DATA:
                    return cast("str | bytes", message.data)
                await self._control(message)
        except WebSocketError as error:
            raise await self._refuse(error) from None
        except (EofStream, ClientError, OSError) as error:
            raise self._broken_off() from error

    async def goodbye(self) -> None:
        """Close as RFC 6455, section 7 has it, waiting no longer than a second. Never fails."""
        with suppress(ClientError, OSError, EofStream, WebSocketError):
            async with asyncio.timeout(_LONGEST_GOODBYE):
                await self._writer.close(_NORMAL)
                while (await self._messages.read()).type is not WSMsgType.CLOSE:
                    pass

    async def _control(self, message: Any) -> None:
        if message.type is WSMsgType.PING:
            # A server that has gone may have said before what is waited for.
            with suppress(ClientError, OSError):
                await self._writer.send_frame(message.data, WSMsgType.PONG)
        elif message.type is WSMsgType.CLOSE:
            code, reason = message.data or _NO_CODE, message.extra
            with suppress(ClientError, OSError):
                await self._writer.close(code if message.data else _NORMAL)
            said = f"with {code}" + (f" ({_escaped(reason)})" if reason else "")
            raise FetchError(ErrorKind.BODY_INCOMPLETE, f"the server closed the web socket {said}")

    async def _refuse(self, error: WebSocketError) -> FetchError:
        """Tell the server what is wrong with its frames, and return what the job ends with."""
        with suppress(ClientError, OSError):
            await self._writer.close(error.code)
        if error.code == _TOO_BIG:
            return FetchError(ErrorKind.BODY_TOO_LARGE, f"a message is longer than {self._bound} ({self._most} bytes)")
        return FetchError(ErrorKind.BAD_ANSWER, f"not a frame of a web socket: {_escaped(str(error))}")

    def _broken_off(self) -> FetchError:
        reset = self._reset()
        if not self._meter.received:
            return fetch_error(reset or ServerDisconnectedError("without an answer"), self._url, self._trace)
        how = "ended" if reset is None else "was reset"
        return FetchError(ErrorKind.BODY_INCOMPLETE, f"the connection {how} without the close of the web socket")

    def _reset(self) -> OSError | None:
        """Return what the socket said when the connection was lost, of which queue and writer know nothing."""
        lost = self._protocol.exception()
        return lost if isinstance(lost, OSError) else None


class _Meter:
    """Counts what arrives, message or not, as progress, and hands it on. ``received`` is in bytes."""

    def __init__(self, reader: WebSocketReader, messages: WebSocketDataQueue, watch: Watch) -> None:
        self._reader = reader
        self._messages = messages
        self._heads = FrameHeads()
        self._watch = watch
        self.received = 0

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take what has arrived; the first of what is returned tells whether it can not be gone on with."""
        self.received += len(data)
        self._watch.progress(len(data))
        if self._heads.masked(data):
            self._messages.set_exception(WebSocketError(WSCloseCode.PROTOCOL_ERROR, "it is masked"))
            return True, b""
        return self._reader.feed_data(data)

    def feed_eof(self) -> None:
        """Note the end of the connection."""
        self._reader.feed_eof()


def _escaped(text: str) -> str:
    return ascii(text[:_SHOWN])[1:-1]
