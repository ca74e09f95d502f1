"""tcp and tls: send what the job has to send, receive until the answer is whole.

    job -> connection -> payload, while the answer is received -> end of the answer -> the connection is closed

There is no pool: nothing says what a server holds of a second question on one connection, so each job has its own.
Nothing is decoded either. Bytes go into the record as they came, and only whole bodies are ever read as text.
"""

from __future__ import annotations

import asyncio
import time
from math import inf
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError
from yarl import URL

from fetcher.errors import ErrorKind, FetchError
from fetcher.jobs.content import receive_of
from fetcher.model import Receive, Response, Timings
from fetcher.settings import BodySettings, Duration, RequestSettings, Settings
from fetcher.transports.http.faults import fetch_error
from fetcher.transports.http.tracing import HopTrace
from fetcher.transports.sockets.conversation import Conversation
from fetcher.transports.sockets.framing import ending_of
from fetcher.transports.sockets.watched import METHOD, SocketTransport

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fetcher.model import Header, Job
    from fetcher.transports.bodies.reading import BodyReader
    from fetcher.transports.dialing import Dialer
    from fetcher.transports.http.session import HttpSession
    from fetcher.transports.sockets.framing import Ending
    from fetcher.transports.sockets.watched import SocketFetch
    from fetcher.transports.watchdog import Watch


class ReceiveSettings(Settings):
    """When an answer is whole, where its job does not say: one of these. Without any, when the server closes."""

    delimiter: str | dict[Literal["hex", "base64"], str] | None = None
    """What it ends with, such as ``"\\r\\n"``, or bytes as ``{hex: 0d0a}``. It belongs to the answer."""
    length: int | None = None
    """How many bytes it has."""
    quiet: Duration | None = None
    """It is over when nothing has come for so long, once it has begun."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        self.receive()
        return self

    def receive(self) -> Receive | None:
        """Return it as jobs have it."""
        given = {name: value for name, value in self if value is not None}
        if len(given) > 1:
            words = f"has {' and '.join(given)}; one of them says when an answer is whole"
            raise PydanticCustomError("receive", "{words}", {"words": words})
        try:
            return receive_of(given) if given else None
        except ValueError as error:
            raise PydanticCustomError("receive", "{words}", {"words": str(error)}) from None


class TcpConfig(Settings):
    """How tcp and tls URLs are fetched. Names, guard and certificates are those of ``http``."""

    receive: ReceiveSettings = ReceiveSettings()
    """When the answer is whole, for jobs that do not say."""
    half_close: bool = True
    """Tell the server when all is sent, if the answer ends with the connection: many wait for that. TLS can not."""

    def build(self, request: RequestSettings, body: BodySettings, session: HttpSession) -> TcpTransport:
        """Return the transport, not yet open; the session is open before it is."""
        return TcpTransport(self, request, body, session)


class TcpTransport(SocketTransport):
    """Fetches tcp and tls URLs."""

    schemes: Sequence[str] = ("tcp", "tls")

    def __init__(self, config: TcpConfig, request: RequestSettings, body: BodySettings, session: HttpSession) -> None:
        super().__init__(request, body, session)
        self._half_close = config.half_close
        self._receive = config.receive.receive()

    def begin(self, job: Job, watch: Watch) -> SocketFetch:
        """Return the fetch of a job, not yet run."""
        ending = ending_of(job.receive or self._receive)
        half_close = self._half_close and ending.closes and ending.quiet is None
        return _Fetch(job, watch, ending, half_close=half_close, within=self.timeout.connect)


class _SilenceError(Exception):
    """Nothing has come for as long as has to be."""


class _Fetch:
    """The fetch of one job. ``response`` is there once there is a connection."""

    def __init__(self, job: Job, watch: Watch, ending: Ending, *, half_close: bool, within: float) -> None:
        self._job = job
        self._watch = watch
        self._ending = ending
        self._half_close = half_close
        self._within = within
        self._conversation = Conversation(self._taken)
        self.response: Response | None = None

    async def run(self, dialer: Dialer, bodies: BodyReader) -> Response:
        """Connect, send, and receive. Raises FetchError."""
        job, url, trace = self._job, URL(self._job.url), HopTrace(self._watch)
        started = time.perf_counter()
        secure = url.scheme == "tls"
        context, verified = dialer.tls(job.verify) if secure else (None, True)
        remote_ip = await dialer.dial(
            self._conversation,
            job.url,
            url.raw_host or "",
            url.port or 0,
            trace,
            within=self._within,
            tls=context,
        )
        response = self.response = Response(
            status=None,
            method=METHOD,
            final_url=job.url,
            headers=[],
            length_unknown=self._ending.closes,
            remote_ip=remote_ip,
            verified=verified,
            timings=Timings(trace.dns, trace.connect, trace.tls),
        )
        answer = _Answer(self._conversation, self._ending, self._watch, trace, response, started)
        self._conversation.begin(job.body or b"", half_close=self._half_close and not secure)
        await bodies.read(answer, response, self._watch, job)
        return response

    def told(self, error: BaseException) -> BaseException:
        """Return the error, with what is known of the fetch that it ended."""
        if not isinstance(error, FetchError):
            return error
        error.sent = self._conversation.sent
        error.response = self.response
        awaits_close = self._ending.closes and self._ending.quiet is None and self.response is not None
        if awaits_close and error.kind is ErrorKind.READ_TIMEOUT:
            hint = "the server has not closed the connection; `receive` can say when an answer is whole"
            error.message = f"{error.message}, and {hint}"
        return error

    def close(self) -> None:
        """Close the connection, if there is one."""
        self._conversation.abort()

    def _taken(self) -> None:
        """Note that some more was sent, which is no silence, nor the beginning of an answer."""
        if self._watch.received:
            self._watch.progress()
        else:
            self._watch.resume()


class _Answer:
    """An answer while it arrives: what the server sends, up to where it ends."""

    status: int | None = None
    headers: Sequence[Header] = ()
    fields: Mapping[str, str] = {}

    def __init__(
        self,
        conversation: Conversation,
        ending: Ending,
        watch: Watch,
        trace: HopTrace,
        response: Response,
        started: float,
    ) -> None:
        self.length_unknown = ending.closes
        self._conversation = conversation
        self._ending = ending
        self._watch = watch
        self._trace = trace
        self._response = response
        self._started = started
        self._received = 0
        self._whole = False

    async def read(self) -> bytes:
        """Return what has arrived, nothing at the end. Raises FetchError if it broke off before that."""
        data = b"" if self._whole else await self._next()
        if not data:
            return b""
        if not self._received:
            self._response.timings.first_byte = round(time.perf_counter() - self._started, 6)
        belonging = self._ending.take(data)
        if belonging is not None:
            self._whole = True
            data = data[:belonging]
        self._received += len(data)
        return data

    async def _next(self) -> bytes:
        quiet = self._ending.quiet if self._received else None
        try:
            data = await (self._conversation.receive() if quiet is None else self._receive_until(quiet))
        except _SilenceError:
            return b""
        except OSError as error:
            raise fetch_error(error, self._response.final_url, self._trace, in_body=self._received > 0) from error
        if not data:
            self._check_end()
        return data

    async def _receive_until(self, quiet: float) -> bytes:
        while True:
            # As long as something is to be sent, silence is none; then it is what is waited for, and no fault.
            if sent := not self._conversation.sending:
                self._watch.quiet_until = inf
            try:
                async with asyncio.timeout(quiet) as silence:
                    return await self._conversation.receive()
            except TimeoutError:
                # A connection may time out, too.
                if not silence.expired():
                    raise
                if sent:
                    raise _SilenceError from None

    def _check_end(self) -> None:
        """Raise FetchError if the end of the connection is not that of the answer."""
        if not self._received:
            raise FetchError(ErrorKind.SERVER_DISCONNECTED, "the server closed the connection without an answer")
        ended = f"the connection ended after {self._received} bytes"
        if not self._ending.closes:
            raise FetchError(ErrorKind.BODY_INCOMPLETE, f"{ended} of the answer, before {self._ending.missing()}")
        if self._conversation.refused:
            message = f"{ended} of the answer, and the server had not taken all that was to be sent"
            raise FetchError(ErrorKind.BODY_INCOMPLETE, message)
        if self._conversation.cut_off:
            message = f"{ended}, and TLS was not closed: anybody can have cut it off (RFC 8446, section 6.1)"
            raise FetchError(ErrorKind.BODY_INCOMPLETE, message)
