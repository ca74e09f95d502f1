"""Which messages a job waits for, and the body that they become.

One message is the body as it is. Of several, the body is a JSON array: texts, and ``{"base64": "..."}`` for what is
binary. It is written as they arrive, so that it takes no memory if it goes into a file.
"""

from __future__ import annotations

from base64 import b64encode
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from fetcher.answers.expressions import compiled, is_true, json_of
from fetcher.conditions import finder
from fetcher.errors import ConfigError, ErrorKind, FetchError
from fetcher.model import Receive

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fetcher.model import Header, Response
    from fetcher.settings import BodySettings
    from fetcher.transports.watchdog import Watch
    from fetcher.transports.websocket.conversation import Conversation

    Message = str | bytes

_TEXT, _BINARY, _JSON = "text/plain; charset=utf-8", "application/octet-stream", "application/json"
_ONE = Receive(messages=1)


class Wanted:
    """What is waited for. Raises ConfigError for an expression or a pattern that is none."""

    def __init__(self, receive: Receive) -> None:
        self._met: list[Callable[[bytes], bool]] = []
        if receive.until is not None:
            self._met.append(_until(receive.until))
        if receive.matches is not None:
            self._met.append(_matches(receive.matches))
        self.most = receive.messages if receive.messages or self._met else 1

    @property
    def single(self) -> bool:
        """Whether it is one message, whatever that says."""
        return self.most == 1 and not self._met

    def is_last(self, message: Message, count: int) -> bool:
        """Tell whether the ``count``-th message is the last. Raises FetchError if it has to be and will not do."""
        if not self._met:
            return count == self.most
        data = message.encode() if isinstance(message, str) else message
        if all(met(data) for met in self._met):
            return True
        if count == self.most:
            raise FetchError(ErrorKind.BODY_INCOMPLETE, f"none of {count} messages is what was waited for")
        return False


def wanted(own: Receive | None, usual: Receive) -> Wanted:
    """Return what a job waits for: what it says itself, if it says anything of messages. Raises FetchError."""
    said = own is not None and (own.messages or own.until is not None or own.matches is not None)
    try:
        return _wanted(own if own is not None and said else usual)
    except ConfigError as error:
        raise FetchError(ErrorKind.INVALID_ROW, str(error), sent=False) from error


@lru_cache(256)
def _wanted(receive: Receive) -> Wanted:
    return Wanted(receive)


class Messages:
    """The body of ``response`` while its messages arrive (``bodies.reading.Arriving``)."""

    status: int | None = 101
    headers: Sequence[Header] = ()
    fields: Mapping[str, str] = MappingProxyType({})
    length_unknown = False

    def __init__(
        self,
        conversation: Conversation,
        wanted: Wanted,
        response: Response,
        settings: BodySettings,
        watch: Watch,
    ) -> None:
        self._conversation = conversation
        self._wanted = wanted
        self._response = response
        self._room = settings.max_size
        self._fails = settings.overflow == "fail"
        self._watch = watch
        self._count = 0
        self._done = False

    async def read(self) -> bytes:
        """Return what the next message adds to the body, nothing after the last. Raises FetchError."""
        if self._done:
            return b""
        message = await self._conversation.receive()
        self._count += 1
        piece = self._alone(message) if self._wanted.single else self._of_several(message)
        # The bytes on the wire are counted already; those of the body, their reader counts.
        self._watch.received -= len(piece)
        return piece

    def _alone(self, message: Message) -> bytes:
        self._done = True
        self._response.content_type = _TEXT if isinstance(message, str) else _BINARY
        return message.encode() if isinstance(message, str) else message

    def _of_several(self, message: Message) -> bytes:
        """Return the message as the next item of the array, within its bounds; one too many is left out whole."""
        self._response.content_type = _JSON
        item = (b"[" if self._count == 1 else b",") + _as_json(message)
        if len(item) >= self._room and not self._fails:
            self._done = self._response.truncated = True
            return b"[]" if self._count == 1 else b"]"
        self._room -= len(item)
        self._done = self._wanted.is_last(message, self._count)
        return item + b"]" if self._done else item


def _as_json(message: Message) -> bytes:
    plain = message if isinstance(message, str) else {"base64": b64encode(message).decode("ascii")}
    return msgspec.json.encode(plain)


def _until(expression: str) -> Callable[[bytes], bool]:
    apply = compiled(expression, "until")

    def met(data: bytes) -> bool:
        try:
            return is_true(apply(json_of(data)))
        except ValueError:  # not JSON, or not of a shape that the expression could be applied to
            return False

    return met


def _matches(pattern: str) -> Callable[[bytes], bool]:
    try:
        search: Callable[[bytes], Any] = finder(pattern)
    except ValueError as error:
        raise ConfigError(f"matches {error}") from None
    return lambda data: search(data) is not None
