"""A transfer: the data come by a connection of their own, and whether they are whole is said on the other one.

The end of a data connection proves nothing: it is the same for the end of a file and for a server that died. A transfer
is whole if the server confirms it (226, RFC 959) and as much has arrived as the file has bytes, where that is known.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.faults import fetch_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from fetcher.model import Header
    from fetcher.transports.dialing import Stream
    from fetcher.transports.ftp.control import Control

_PIECE = 256 * 1024
_NOTHING: Mapping[str, str] = {}


class Transfer:
    """The data of one command, as they come (``bodies.reading.Arriving``).

    ``start``: bytes of the file that were there already; ``size``: how many it has, None if that is not known.
    ``confirmed``: the server has said already that all of it was sent. ``check`` has the last word before the end; what
    it does not approve of, and what is longer than the file, is nothing to be gone on with.
    """

    status: int | None = None
    headers: Sequence[Header] = ()
    fields = _NOTHING
    length_unknown = False

    def __init__(
        self, control: Control, stream: Stream, url: str, *, start: int = 0, size: int | None = None, confirmed: bool
    ) -> None:
        self._control = control
        self._stream = stream
        self._url = url
        self.size = size
        self._confirmed = confirmed
        self._position = start
        self.received = 0
        self.ended = False
        self.check: Callable[[], Awaitable[None]] | None = None

    async def read(self) -> bytes:
        """Return what has arrived, nothing at the end. Raises FetchError if it does not arrive whole."""
        if self.ended:
            return b""
        try:
            piece = await self._stream.reader.read(_PIECE)
        except OSError as error:
            raise fetch_error(error, self._url, None, in_body=True) from error
        if piece:
            self._position += len(piece)
            self.received += len(piece)
            if self.size is not None and self._position > self.size:
                # Another file by now, or one that does not begin where it was asked to (REST).
                message = f"more has arrived than the {self.size} bytes that the file has"
                raise FetchError(ErrorKind.BODY_INCOMPLETE, message, sound=False)
            return piece
        await self._end()
        return b""

    def abort(self) -> None:
        """Close the data connection at once."""
        self._stream.abort()

    async def _end(self) -> None:
        """Take the end of the data for that of the file if the server says so, and nothing speaks against it."""
        cut_off = self.size is None and _is_cut_off(self._stream.writer)
        self._stream.writer.close()
        if not self._confirmed:
            await self._confirmation()
        self._stream.abort()
        self.ended = self._control.settled = True
        if self.check is not None:
            await self._checked(self.check)
        if self.size is not None and self._position != self.size:
            message = f"the transfer ended at byte {self._position} of {self.size}"
            raise FetchError(ErrorKind.BODY_INCOMPLETE, message)
        if cut_off:
            message = "the data connection ended without an end of TLS, and the size of the file is not known"
            raise FetchError(ErrorKind.BODY_INCOMPLETE, message)

    async def _checked(self, check: Callable[[], Awaitable[None]]) -> None:
        try:
            await check()
        except FetchError as error:
            error.sound = False
            raise
        self._control.settled = True

    async def _confirmation(self) -> None:
        try:
            reply = await self._control.reply()
        except FetchError as error:
            message = f"the transfer was not confirmed: {error.message}"
            raise FetchError(ErrorKind.BODY_INCOMPLETE, message) from error
        if not reply.positive:
            message = f"the transfer broke off: {reply.shown(self._control.login.secrets)}"
            raise FetchError(ErrorKind.BODY_INCOMPLETE, message)


def _is_cut_off(writer: Any) -> bool:
    """Return whether TLS was not closed on a connection that has ended (RFC 8446, section 6.1).

    Such an end proves nothing: anybody on the way can bring it about. After the alert OpenSSL has nothing left to read;
    without it there is something missing.
    """
    tls = writer.get_extra_info("ssl_object")
    try:
        return tls is not None and bool(tls.read(1))
    except ssl.SSLZeroReturnError:
        return False
    except (ssl.SSLError, ValueError):
        return True
