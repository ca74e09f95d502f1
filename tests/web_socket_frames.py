"""Frames of web sockets, byte by byte (RFC 6455, section 5.2), for servers that say what no real one says."""

from __future__ import annotations

import hashlib
import struct
from base64 import b64encode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from raw_server import Peer, Script

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MORE = 0
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_FIN = 0x80
_MASKED = 0x80


def header(opcode: int, size: int, *, fin: bool = True, reserved: int = 0) -> bytes:
    """Return the beginning of a frame as a server sends it; ``reserved`` are the three bits, 4 the one of deflate."""
    first = (_FIN if fin else 0) | reserved << 4 | opcode
    if size < 126:
        return bytes((first, size))
    if size < 65_536:
        return struct.pack("!BBH", first, 126, size)
    return struct.pack("!BBQ", first, 127, size)


def frame(payload: bytes | str, opcode: int = TEXT, *, fin: bool = True, reserved: int = 0) -> bytes:
    """Return a whole frame."""
    data = payload.encode() if isinstance(payload, str) else payload
    return header(opcode, len(data), fin=fin, reserved=reserved) + data


def close(code: int, reason: bytes = b"") -> bytes:
    """Return a frame that closes."""
    return frame(struct.pack("!H", code) + reason, CLOSE)


def accepting(request: bytes, *fields: str) -> bytes:
    """Return the answer to a handshake that a client has sent."""
    sent = [line.partition(b":") for line in request.split(b"\r\n")]
    key = next(value.strip() for name, _, value in sent if name.lower() == b"sec-websocket-key")
    accept = b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest()).decode()
    lines = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}", *fields)
    head = "".join(f"{line}\r\n" for line in ("HTTP/1.1 101 Switching Protocols", *lines, ""))
    return head.encode("latin-1")


async def receive_frame(peer: Peer) -> tuple[int, bytes]:
    """Return opcode and payload of the next frame of a client."""
    first, second = await peer.receive(2)
    assert second & _MASKED, "a client masks what it sends (RFC 6455, section 5.1)"
    size = second & 127
    if size == 126:
        size = int.from_bytes(await peer.receive(2), "big")
    elif size == 127:
        size = int.from_bytes(await peer.receive(8), "big")
    mask = await peer.receive(4)
    payload = await peer.receive(size)
    return first & 15, bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def talking(talk: Callable[[Peer], Awaitable[None]], *fields: str) -> Script:
    """Return the script of a server that shakes hands as it should, and then talks."""

    async def script(peer: Peer) -> None:
        await peer.send(accepting(await peer.request(), *fields))
        await talk(peer)

    return script


async def closed(peer: Peer) -> None:
    """Wait until the client closes, and answer that."""
    while (await receive_frame(peer))[0] != CLOSE:
        pass
    await peer.send(close(1000))


def saying(*frames: bytes) -> Script:
    """Return the script of a server that shakes hands, sends these, and waits for the client to close."""

    async def talk(peer: Peer) -> None:
        await peer.send(b"".join(frames))
        await closed(peer)

    return talking(talk)
