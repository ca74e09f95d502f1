"""One job: a connection that is logged in, a port for the data, the transfer, and what of it can be gone on with."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import msgspec

from fetcher.errors import ErrorKind, FetchError
from fetcher.model import Job, Response, Timings
from fetcher.transports.bodies.ranges import Partial
from fetcher.transports.bodies.reading import BodyReader
from fetcher.transports.bodies.storing import BodyStore
from fetcher.transports.dialing import Dialer
from fetcher.transports.ftp.connecting import Connecting, Key
from fetcher.transports.ftp.control import Control, handshake
from fetcher.transports.ftp.data import Transfer
from fetcher.transports.ftp.listings import Listing
from fetcher.transports.ftp.logins import Logins
from fetcher.transports.ftp.pool import Pool
from fetcher.transports.ftp.replies import NOT_LOGGED_IN
from fetcher.transports.ftp.resuming import size_of, to_go_on_with, validator_of
from fetcher.transports.ftp.targets import LISTING, RETRIEVE
from fetcher.transports.http.tracing import HopTrace

if TYPE_CHECKING:
    from fetcher.transports.dialing import Stream
    from fetcher.transports.ftp.replies import Reply
    from fetcher.transports.ftp.targets import Target
    from fetcher.transports.watchdog import Watch

_CONFIRMED = frozenset({226, 250})
_GO_ON = 350
_REFUSED = 400
_ANNOUNCED = re.compile(rb"\(([0-9]{1,18}) bytes\)\.?\s*$", re.IGNORECASE)
# How a connection shows that its server has given it up since it was last used.
_STALE = frozenset({ErrorKind.SERVER_DISCONNECTED, ErrorKind.CONNECTION_RESET, ErrorKind.FTP_4XX})


class Means(msgspec.Struct):
    """What all fetches of a transport have in common. ``within`` is how many seconds a connection may take."""

    dialer: Dialer
    connecting: Connecting
    pool: Pool
    logins: Logins
    bodies: BodyReader
    store: BodyStore | None
    max_size: int
    within: float


class FtpFetch:
    """The fetch of one job. ``response`` is there once the server has begun to answer."""

    def __init__(self, means: Means, job: Job, target: Target, watch: Watch) -> None:
        self._means = means
        self._job = job
        self._target = target
        self._watch = watch
        self._started = time.perf_counter()
        self._timings = Timings()
        self.response: Response | None = None

    async def run(self) -> Response:
        """Fetch it, on a connection that is there or else on a new one. Raises FetchError."""
        means, target = self._means, self._target
        context, verified = means.connecting.way(target, self._job.verify)
        login = means.logins.of(self._job.headers, target)
        key = Key(target.host, target.port, target.tls, verified, login)
        while (control := await self._idle(key)) is not None:
            try:
                return await self._use(control)
            except FetchError as error:
                if control.answered or error.kind not in _STALE:
                    raise
        door = means.logins.door(key)
        control, self._timings = await means.connecting.open(key, self._job.url, context, door, self._watch)
        return await self._use(control)

    def told(self, error: BaseException) -> BaseException:
        """Return the error, with what is known of the fetch that it ended."""
        if isinstance(error, FetchError):
            error.response = self.response
        return error

    async def _idle(self, key: Key) -> Control | None:
        """Return a connection of the pool on which nothing was said since it was last used."""
        while (control := self._means.pool.take(key)) is not None:
            control.lend(self._job.url, self._watch)
            try:
                if await control.is_quiet():
                    return control
            except BaseException:
                control.abort()
                raise
            control.abort()
        return None

    async def _use(self, control: Control) -> Response:
        """Make the transfer, and keep the connection if it can be used again."""
        try:
            await control.use_utf8(self._target.path)
            return await (self._list(control) if self._target.listing else self._retrieve(control))
        finally:
            if control.settled:
                self._means.pool.put(control)
            else:
                control.abort()

    # A file

    async def _retrieve(self, control: Control) -> Response:
        target = self._target
        await control.use_type(target.type)
        size = await self._size(control) if target.type == "I" else None
        partial = await self._partial(control, size)
        transfer, partial = await self._transfer(control, target.path, size, partial)
        try:
            response = self._begin(control, RETRIEVE, transfer.size)
            await self._means.bodies.read(transfer, response, self._watch, self._job, partial)
        finally:
            transfer.abort()
        return response

    async def _size(self, control: Control) -> int | None:
        return size_of(await control.ask_if_known("SIZE", self._target.path))

    async def _partial(self, control: Control, size: int | None) -> Partial | None:
        """Return what is gone on with, or what can be if it breaks off; None if nothing can."""
        store = self._means.store
        if store is None or not store.resuming or size is None:
            return None
        validator = await self._validator(control, size)
        if validator is None:
            return None
        url = self._job.url
        beginning = Partial(url, validator, size, verified=control.stream.verified)
        # How long our own disk takes is no silence of the server's.
        self._watch.pause()
        known = await store.find(self._job, url)
        self._watch.resume()
        return to_go_on_with(known, beginning, self._means.max_size)

    async def _validator(self, control: Control, size: int) -> str | None:
        return validator_of(size, await control.ask_if_known("MDTM", self._target.path), time.time())

    async def _check_unchanged(self, control: Control, partial: Partial) -> None:
        """Raise FetchError if the file is another one by now than the beginning that was there is of."""
        size = await self._size(control)
        if size is None or await self._validator(control, size) != partial.validator:
            message = "the file was changed while the rest of it was fetched"
            raise FetchError(ErrorKind.BODY_INCOMPLETE, message, sound=False)

    async def _transfer(
        self, control: Control, path: bytes, size: int | None, partial: Partial | None
    ) -> tuple[Transfer, Partial | None]:
        """Begin to retrieve a file, from where ``partial`` ends if the server can. Raises FetchError."""
        stream = await self._data_connection(control)
        try:
            if partial is not None and partial.size:
                partial = await self._restart(control, partial)
            start = 0 if partial is None else partial.size
            reply = await self._command(control, stream, RETRIEVE, path)
        except BaseException:
            stream.abort()
            raise
        if size is None and self._target.type == "I":
            size = _announced(reply, path)
        transfer = Transfer(control, stream, self._job.url, start=start, size=size, confirmed=reply.code in _CONFIRMED)
        if partial is not None and start:
            going_on = partial
            transfer.check = lambda: self._check_unchanged(control, going_on)
        return transfer, partial

    async def _restart(self, control: Control, partial: Partial) -> Partial:
        reply = await control.ask("REST", str(partial.size).encode())
        return partial if reply.code == _GO_ON else msgspec.structs.replace(partial, size=0)

    # A listing

    async def _list(self, control: Control) -> Response:
        await control.use_type(self._target.type)
        transfer = None if "MLSD" in control.lacks else await self._listing(control, "MLSD")
        standard = transfer is not None
        if transfer is None:
            transfer = await self._listing(control, "LIST")
        if transfer is None:
            raise FetchError(ErrorKind.FTP_5XX, f"{self._target.host} knows neither MLSD nor LIST")
        listing = Listing(transfer, self._watch, standard=standard)
        response = self._begin(control, LISTING, None)
        try:
            await listing.begin()
            response.content_type = listing.content_type
            await self._means.bodies.read(listing, response, self._watch, self._job)
        finally:
            response.wire_size = transfer.received
            transfer.abort()
        return response

    async def _listing(self, control: Control, command: str) -> Transfer | None:
        """Begin to receive a listing; None if the server does not know the command. Raises FetchError."""
        stream = await self._data_connection(control)
        try:
            reply = await self._command(control, stream, command, self._target.argument)
        except FetchError:
            stream.abort()
            if command in control.lacks:
                return None
            raise
        except BaseException:
            stream.abort()
            raise
        return Transfer(control, stream, self._job.url, confirmed=reply.code in _CONFIRMED)

    # Both

    async def _data_connection(self, control: Control) -> Stream:
        port = await control.passive_port()
        means = self._means
        trace = HopTrace(self._watch)
        return await means.dialer.connect_beside(control.stream, self._job.url, port, trace, within=means.within)

    async def _command(self, control: Control, stream: Stream, command: str, argument: bytes) -> Reply:
        """Have the server begin to send, and begin TLS as it does then. Raises FetchError."""
        reply = await control.ask(command, argument)
        if not reply.preliminary and reply.code not in _CONFIRMED:
            # Who is no longer logged in will not be so for the next file either.
            control.settled = reply.code >= _REFUSED and reply.code != NOT_LOGGED_IN
            if reply.unknown:
                control.lacks.add(command)
            raise control.refused(command, reply)
        if control.data_context is None:
            return reply
        try:
            await handshake(
                stream,
                control.data_context,
                self._target.host,
                self._job.url,
                HopTrace(self._watch),
                self._means.within,
            )
        except FetchError as error:
            raise await self._explained(control, error) from error
        return reply

    async def _explained(self, control: Control, error: FetchError) -> FetchError:
        """Return what the server says of a handshake that failed, if it does: most want the session resumed."""
        try:
            said = await control.overheard()
        except FetchError:
            said = None
        return error if said is None or said.code < _REFUSED else control.refused("TLS for data", said)

    def _begin(self, control: Control, method: str, size: int | None) -> Response:
        """Note what is known now that the server begins to send."""
        self._timings.first_byte = round(time.perf_counter() - self._started, 6)
        self.response = Response(
            status=None,
            method=method,
            final_url=self._job.url,
            headers=[],
            content_length=size,
            remote_ip=control.stream.remote_ip,
            verified=control.stream.verified,
            timings=self._timings,
        )
        return self.response


def _announced(reply: Reply, path: bytes) -> int | None:
    """Return how many bytes come by the end of the reply that opens a transfer; None if that may be the file's name."""
    found = _ANNOUNCED.search(reply.text)
    return None if found is None or _ANNOUNCED.search(path) else int(found[1])
