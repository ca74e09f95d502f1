"""ws and wss: the handshake is right, and the number of a job is the message that its client sends."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from web_socket_frames import BINARY, TEXT, accepting, frame, header, receive_frame

from fetcher.model import Receive
from transport_partners.streams import PART, StreamPartner, StreamServer

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from raw_server import Peer

    from transport_partners import Server

_LONG = 1_000_000
_ENDLESS = Receive(messages=1_000_000)


class WebSocketServer(StreamServer):
    def path(self, number: int) -> str:
        return f"/{number}"

    def fields(self, number: int) -> dict[str, Any]:
        return {"method": "SEND", "body": str(number).encode(), "receive": self._receive}


class WebSocketPartner(StreamPartner):
    """A message is one frame. Of those that never end there are very many, or one that is very long."""

    jobs = 500

    def __init__(self, scheme: str = "ws") -> None:
        super().__init__(scheme)
        self.http: dict[str, Any] = {"tls": {"verify": False}} if scheme == "wss" else {}

    def context(self) -> Any:
        return self.certified() if self.scheme == "wss" else None

    async def read(self, peer: Peer) -> int:
        await peer.send(accepting(await peer.request()))
        opcode, payload = await receive_frame(peer)
        assert opcode == TEXT
        return int(payload)

    def head(self, size: int | None = None) -> bytes:
        return header(TEXT, _LONG if size is None else size)

    def server(self, receive: Receive | None = None) -> Server:
        # What a stream needs to know of its end, a message tells by itself.
        return WebSocketServer(self.scheme, receive if receive is not None and receive.messages else None)

    def endless(self) -> AbstractAsyncContextManager[Server]:
        return self.serve(partial(self._messages, message=frame(PART, BINARY)), _ENDLESS)

    async def _messages(self, peer: Peer, _: int, *, message: bytes) -> None:
        while True:
            await peer.send(message)
            await asyncio.sleep(0)
