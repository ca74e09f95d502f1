"""One job: handshake, payload, messages, and what is known of it if it fails on the way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import msgspec
from aiohttp import ServerDisconnectedError

from fetcher.errors import ErrorKind, FetchError
from fetcher.model import Receive, Response, Timings
from fetcher.settings import BodySettings
from fetcher.transports.bodies.reading import BodyReader
from fetcher.transports.http.exchange import Exchange, Hop
from fetcher.transports.http.faults import fetch_error
from fetcher.transports.http.fetch import head_of
from fetcher.transports.http.tracing import HopTrace
from fetcher.transports.http.upgrading import SWITCHING, UpgradeAnswer
from fetcher.transports.websocket.conversation import Conversation
from fetcher.transports.websocket.handshake import Offer
from fetcher.transports.websocket.receiving import Messages, Wanted, wanted

if TYPE_CHECKING:
    from fetcher.model import Job
    from fetcher.transports.watchdog import Watch

_KIND_OF_CLASS = {3: ErrorKind.HTTP_3XX, 4: ErrorKind.HTTP_4XX, 5: ErrorKind.HTTP_5XX}


class Means(msgspec.Struct):
    """What all fetches of a transport have in common. ``most``: bytes of a message, which ``bound`` is the name of."""

    exchange: Exchange
    bodies: BodyReader
    body: BodySettings
    receive: Receive
    compress: bool
    payload: Literal["auto", "text", "binary"]
    most: int
    bound: str


class WebSocketFetch:
    """The fetch of one job. ``response`` is there from the end of the handshake on."""

    def __init__(self, means: Means, job: Job, watch: Watch) -> None:
        self._means = means
        self._job = job
        self._watch = watch
        self._answer: UpgradeAnswer | None = None
        self._conversation: Conversation | None = None
        self._has_spoken = False
        self.response: Response | None = None

    async def run(self, hop: Hop) -> Response:
        """Shake hands, say what there is to be said, and listen. Raises FetchError."""
        waited_for = wanted(self._job.receive, self._means.receive)
        is_text = self._is_text()
        trace = HopTrace(self._watch)
        conversation, response = await self._open(hop, trace)
        if self._job.body is not None:
            self._has_spoken = True
            await conversation.send(self._job.body, text=is_text)
        await self._listen(conversation, waited_for, response)
        return response

    async def goodbye(self) -> None:
        """Close the web socket as it should be, within a second."""
        if self._conversation is not None:
            await self._conversation.goodbye()

    def close(self) -> None:
        """Close the connection. May be called twice."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def told(self, error: BaseException) -> BaseException:
        """Return the error, with what is known of the fetch that it ended."""
        if isinstance(error, FetchError):
            # A handshake changes nothing; what is sent after it may.
            error.sent = self._has_spoken
            error.response = self.response
            if error.status is None and self.response is not None:
                error.status = self.response.status
        return error

    async def _open(self, hop: Hop, trace: HopTrace) -> tuple[Conversation, Response]:
        started = time.perf_counter()
        offer = Offer(hop.headers, compress=self._means.compress)
        hop.headers = offer.headers
        answer = await self._means.exchange.send(hop, trace)
        if not isinstance(answer, UpgradeAnswer):
            raise TypeError("a handshake was made by an exchange that knows no upgrades")
        self._answer = answer
        self._watch.progress()
        first_byte = round(time.perf_counter() - started - trace.held, 6)
        response = self.response = head_of(hop, answer, Timings(trace.dns, trace.connect, trace.tls, first_byte), [])
        response.final_url = self._job.url
        response.method = self._job.method or ("GET" if self._job.body is None else "SEND")
        if answer.status != SWITCHING:
            await self._refused(answer, response)
        agreed, means = offer.agreed(answer), self._means
        try:
            conversation = Conversation(answer, agreed, self._watch, trace, hop.url, most=means.most, bound=means.bound)
        except ServerDisconnectedError as error:
            raise fetch_error(error, hop.url, trace) from error
        self._conversation = conversation
        return conversation, response

    async def _refused(self, answer: UpgradeAnswer, response: Response) -> None:
        """Read what a server says instead of shaking hands, and raise the FetchError for it."""
        await self._means.bodies.read(answer, response, self._watch, self._job)
        status = answer.status
        kind = _KIND_OF_CLASS.get(status // 100)
        if kind is None:
            message = f"the server answered {status} instead of switching to websocket"
            raise FetchError(ErrorKind.BAD_ANSWER, message, status=status)
        raise FetchError(kind, f"the server answered {status}", status=status)

    async def _listen(self, conversation: Conversation, waited_for: Wanted, response: Response) -> None:
        messages = Messages(conversation, waited_for, response, self._means.body, self._watch)
        try:
            await self._means.bodies.read(messages, response, self._watch, self._job)
        finally:
            response.wire_size = conversation.received

    def _is_text(self) -> bool:
        """Tell what kind of message the body goes as. Raises FetchError for what is to be text and is none."""
        body, payload = self._job.body, self._means.payload
        if body is None or payload == "binary":
            return False
        try:
            body.decode()
        except UnicodeDecodeError:
            if payload == "auto":
                return False
            message = "its body is not UTF-8, and websocket.payload is text"
            raise FetchError(ErrorKind.INVALID_ROW, message, sent=False) from None
        return True
