"""A control connection: one command, one reply, and nothing in between that nobody asked for (RFC 959)."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import ssl
from typing import TYPE_CHECKING, Any

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.ftp.replies import CLOSING, Reply, read_reply, refusal
from fetcher.transports.http.faults import fetch_error

if TYPE_CHECKING:
    from fetcher.transports.dialing import Stream
    from fetcher.transports.ftp.logins import Login
    from fetcher.transports.http.tracing import HopTrace
    from fetcher.transports.watchdog import Watch

_MOST_OVERHEARD = 4096
_MOST_PRELIMINARY = 5
_FIRST_UNPRIVILEGED = 1024
_LAST_PORT = 65_535
# RFC 2428: the delimiter is any character, and most often |.
_EXTENDED = re.compile(rb"\((.)\1\1([0-9]{1,5})\1\)")
# RFC 959 does not say what stands around the six numbers.
_PASSIVE = re.compile(rb"([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3})")
_NEEDS_PASSWORD, _TLS_READY, _WRONG_LOGIN = 331, 234, 430


class DataContext(ssl.SSLContext):
    """TLS for data connections: goes on with the session of the control connection.

    Many servers want to see that both are one client's, so that nobody else takes the data (RFC 4217, section 15.4).
    """

    control: Control
    inner: ssl.SSLContext

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a handshake with the newest session there is."""
        return self.inner.wrap_bio(*args, **{**kwargs, "session": self.control.tls_session})


class Control:
    """A connection that commands go by. ``key`` tells whose it is.

    ``settled``: no reply is outstanding, so that it can be used again. ``answered``: replies since it was ``lent``.
    ``lacks``: commands that the server does not know.
    """

    def __init__(self, stream: Stream, key: object, host: str, login: Login) -> None:
        self.stream = stream
        self.key = key
        self.host = host
        self.login = login
        self.settled = False
        self.answered = 0
        self.lacks: set[str] = set()
        self._type: str | None = None
        self._speaks_utf8 = False
        self._context: ssl.SSLContext | None = None
        self._data_context: DataContext | None = None
        self._url = ""
        self._watch: Watch | None = None

    def lend(self, url: str, watch: Watch) -> None:
        """Work for a job from now on."""
        self.settled, self.answered = False, 0
        self._url, self._watch = url, watch

    def abort(self) -> None:
        """Close it at once."""
        self.stream.abort()

    async def overheard(self) -> Reply | None:
        """Return what the server has said unasked, None for no whole reply; raises FetchError as ``read_reply``."""
        try:
            async with asyncio.timeout(0):
                return await read_reply(self.stream.reader, self.login.secrets)
        except TimeoutError:
            return None
        except OSError as error:
            raise self._failure(error) from error

    async def is_quiet(self) -> bool:
        """Tell whether it is open, and not a byte has come unasked.

        A reply that was not asked for would be taken for the answer to the next command, and half of one would be the
        beginning of that answer.
        """
        # What has come this far is read by the event loop in the first turn, and is there in the second.
        for _ in range(2):
            await asyncio.sleep(0)
        reader = self.stream.reader
        return not self.stream.unread and not reader.at_eof() and reader.exception() is None

    async def ask(self, command: str, argument: bytes = b"") -> Reply:
        """Send a command and return the reply to it. Raises FetchError if none comes, or it is no FTP."""
        line = command.encode() + (b" " + argument if argument else b"")
        if b"\r" in line or b"\n" in line:
            raise FetchError(ErrorKind.INVALID_URL, "a command would contain the end of a line", sent=False)
        self.settled = False
        # Of one that was lost the reader tells how; to write to it is an error in some event loops.
        if not self.stream.writer.is_closing():
            self.stream.writer.write(line + b"\r\n")
        return await self.reply()

    async def reply(self) -> Reply:
        """Return the next reply. Raises FetchError, also for one that says that the server closes the connection."""
        try:
            reply = await read_reply(self.stream.reader, self.login.secrets)
        except OSError as error:
            raise self._failure(error) from error
        if self._watch is not None:
            self._watch.resume()
        if reply.code == CLOSING:
            raise refusal(reply, "the server closes the connection", self.login.secrets)
        self.answered += 1
        return reply

    async def demand(self, command: str, argument: bytes = b"") -> Reply:
        """Send a command that has to succeed. Raises FetchError if it does not."""
        reply = await self.ask(command, argument)
        if not reply.positive:
            raise self.refused(command, reply)
        return reply

    async def ask_if_known(self, command: str, argument: bytes = b"") -> Reply | None:
        """Send a command that a server may do without; None if it does."""
        if command in self.lacks:
            return None
        reply = await self.ask(command, argument)
        if reply.unknown:
            self.lacks.add(command)
            return None
        return reply

    def refused(self, command: str, reply: Reply) -> FetchError:
        """Return the failure that a reply to a command is."""
        return refusal(reply, f"{self.host} refuses {command}", self.login.secrets)

    # The beginning

    async def greeted(self) -> None:
        """Wait until the server is ready. Raises FetchError."""
        for _ in range(_MOST_PRELIMINARY):
            reply = await self.reply()
            if not reply.preliminary:
                break
        if not reply.positive:
            raise refusal(reply, f"{self.host} is not ready", self.login.secrets)

    async def secure(self, context: ssl.SSLContext, trace: HopTrace, within: float) -> None:
        """Ask for TLS and begin it (RFC 4217, section 4). Raises FetchError; there is no going on without."""
        reply = await self.ask("AUTH", b"TLS")
        if reply.code != _TLS_READY:
            message = f"{self.host} refuses TLS: {reply.shown(self.login.secrets)}"
            raise FetchError(ErrorKind.TLS_PROTOCOL, message, sent=False)
        await handshake(self.stream, context, self.host, self._url, trace, within)
        self.secured(context)
        if not await self.is_quiet() and self.stream.unread:
            raise FetchError(ErrorKind.BAD_ANSWER, f"{self.host} spoke when TLS had begun and was not asked")

    def secured(self, context: ssl.SSLContext) -> None:
        """Note that it speaks TLS, and make data connections do so, too."""
        self._context = context
        self._data_context = DataContext(ssl.PROTOCOL_TLS_CLIENT)
        self._data_context.inner, self._data_context.control = context, self

    async def log_in(self) -> None:
        """Say who is asking. Raises FetchError, of kind ``auth_failed`` if the server does not let them in."""
        login = self.login
        reply = await self.ask("USER", login.username)
        if reply.code == _NEEDS_PASSWORD:
            reply = await self.ask("PASS", login.password)
        if reply.positive:
            return
        who = "anonymous" if login.anonymous else "the user"
        error = refusal(reply, f"{self.host} does not let {who} in", login.secrets)
        if reply.code == _WRONG_LOGIN or error.kind in {ErrorKind.FTP_5XX, ErrorKind.BAD_ANSWER}:
            error.kind = ErrorKind.AUTH_FAILED
        raise error

    async def protect(self) -> None:
        """Ask for TLS on data connections (RFC 4217, section 9). Raises FetchError."""
        if self._context is None:
            return
        for command, argument in (("PBSZ", b"0"), ("PROT", b"P")):
            reply = await self.ask(command, argument)
            if not reply.positive:
                message = f"{self.host} refuses TLS for data: {reply.shown(self.login.secrets)}"
                raise FetchError(ErrorKind.TLS_PROTOCOL, message)

    # Before each transfer

    async def use_type(self, letter: str) -> None:
        """Have data sent as it is (``I``), or as lines of text (``A``)."""
        if self._type != letter:
            await self.demand("TYPE", letter.encode())
            self._type = letter

    async def use_utf8(self, path: bytes) -> None:
        """Tell servers that want to be told of it that paths are in UTF-8 (RFC 2640); the others always take them."""
        if not self._speaks_utf8 and not path.isascii():
            self._speaks_utf8 = True
            await self.ask("OPTS", b"UTF8 ON")

    async def passive_port(self) -> int:
        """Return the port that the server listens at for one transfer (RFC 2428, RFC 959). Raises FetchError.

        A reply to PASV has an address, too. Behind a NAT it is a wrong one, and with a hostile server that of somebody
        else; it is not looked at.
        """
        reply = await self.ask_if_known("EPSV")
        if reply is not None and reply.positive:
            found = _EXTENDED.search(reply.text)
            return self._usable(int(found[2]) if found is not None else 0, reply)
        if reply is not None:
            self.lacks.add("EPSV")
        reply = await self.demand("PASV")
        found = _PASSIVE.search(reply.text)
        numbers = [int(number) for number in found.groups()] if found is not None else [0]
        return self._usable(0 if max(numbers) > 255 else numbers[-2] * 256 + numbers[-1] if found else 0, reply)  # noqa: PLR2004

    @property
    def data_context(self) -> ssl.SSLContext | None:
        """What TLS of data connections is to be made with; None if there is none."""
        return self._data_context

    @property
    def tls_session(self) -> ssl.SSLSession | None:
        """The newest session of the TLS of this connection. With TLS 1.3 there is one once the server has sent it."""
        tls = self.stream.writer.get_extra_info("ssl_object")
        return None if tls is None else tls.session

    def _usable(self, port: int, reply: Reply) -> int:
        """Refuse what is no port, and one at which something else listens than an FTP server's data."""
        if not _FIRST_UNPRIVILEGED <= port <= _LAST_PORT:
            words = "names no port for the data" if not port else f"names port {port} for the data"
            message = f"{self.host} {words}: {reply.shown(self.login.secrets)}"
            raise FetchError(ErrorKind.BAD_ANSWER, message)
        return port

    def _failure(self, error: OSError) -> FetchError:
        return fetch_error(error, self._url, None)


async def handshake(
    stream: Stream, context: ssl.SSLContext, host: str, url: str, trace: HopTrace, within: float
) -> None:
    """Go on with TLS on a connection, within so many seconds. Raises FetchError in the kinds of any handshake.

    Whatever has arrived by then is refused: anybody on the way can have said it, and it would be believed as if it had
    come by TLS.
    """
    await trace.send_connection_create_start()
    trace.enter_tls()
    if stream.unread:
        message = f"{host} or somebody on the way spoke before TLS began"
        raise FetchError(ErrorKind.TLS_PROTOCOL, message)
    try:
        if stream.writer.is_closing():
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        async with asyncio.timeout(within):
            await stream.start_tls(context, host.rstrip("."))
    except (OSError, EOFError) as error:
        raise fetch_error(error, url, trace) from error
    await trace.send_connection_create_end()
