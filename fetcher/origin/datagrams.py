"""A server of datagrams: the echo of RFC 862."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

_FIRST_ORDINARY = 1024


class DatagramEcho(asyncio.DatagramProtocol):
    """Sends each datagram back to where it says that it comes from, which anybody can write there.

    So the answer is never longer than what was asked, ports of servers get none (two echoes would go on for ever), and
    what can not be sent at once is dropped, as datagrams may be.
    """

    _is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what answers are sent by."""
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Answer, unless that would do harm."""
        if addr[1] >= _FIRST_ORDINARY and not self._is_full:
            self._transport.sendto(data, addr)

    def pause_writing(self) -> None:
        """Drop what comes from now on: more waits to be sent than should be kept."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Answer again."""
        self._is_full = False

    def error_received(self, exc: Exception) -> None:
        """Ignore that somebody has gone who was answered."""


class DatagramServer:
    """Listens for datagrams until it is closed."""

    async def start(self, host: str, port: int) -> None:
        """Listen; a port of 0 is a free one. Raises OSError if it is not to be had."""
        loop = asyncio.get_running_loop()
        family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
        # Bound here: uvloop says less of why it could not, and leaves a transport behind.
        listening = socket.socket(family, kind, protocol)
        try:
            listening.bind(address)
            self._transport, _ = await loop.create_datagram_endpoint(DatagramEcho, sock=listening)
        except BaseException:
            listening.close()
            raise

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._transport.get_extra_info("sockname")[1])

    async def close(self) -> None:
        """Stop listening."""
        self._transport.close()
