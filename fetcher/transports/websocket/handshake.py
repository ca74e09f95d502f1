"""The opening handshake of a web socket (RFC 6455, section 4). Pure: headers in, headers out."""

from __future__ import annotations

import hashlib
import os
import re
from base64 import b64encode
from typing import TYPE_CHECKING

import msgspec
from aiohttp.http_websocket import WS_KEY, WSHandshakeError, ws_ext_gen, ws_ext_parse

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.fields import merged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fetcher.model import Header
    from fetcher.transports.http.exchange import Answer

_COMMA = re.compile(r"[ \t]*,[ \t]*")
_OF_HANDSHAKE = frozenset({"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions"})
_PROTOCOL = "sec-websocket-protocol"
_SHOWN = 60


class Agreed(msgspec.Struct, frozen=True):
    """What both sides have agreed on. ``window``: that of permessage-deflate in bits, 0 without (RFC 7692)."""

    protocol: str | None = None
    window: int = 0
    fresh_context: bool = False
    """Whether each message of ours is compressed by itself (``client_no_context_takeover``)."""


class Offer:
    """One handshake: its key is used once. ``headers`` are those of its request."""

    def __init__(self, headers: Sequence[Header], *, compress: bool) -> None:
        key = b64encode(os.urandom(16))
        self._accept = b64encode(hashlib.sha1(key + WS_KEY, usedforsecurity=False).digest()).decode("ascii")
        self._protocols = {name for value in _values(headers, _PROTOCOL) for name in _COMMA.split(value.strip())}
        self._compress = compress
        self.headers: list[Header] = [
            *((name, value) for name, value in headers if name.lower() not in _OF_HANDSHAKE),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", key.decode("ascii")),
        ]
        if compress:
            self.headers.append(("Sec-WebSocket-Extensions", ws_ext_gen()))

    def agreed(self, answer: Answer) -> Agreed:
        """Return what a server that answered 101 agrees to. Raises FetchError if that is not what was offered."""
        headers = answer.headers
        if "websocket" not in _tokens(headers, "upgrade") or "upgrade" not in _tokens(headers, "connection"):
            raise _bad("the server switches to something that is not websocket")
        if [value.strip() for value in _values(headers, "sec-websocket-accept")] != [self._accept]:
            raise _bad("Sec-WebSocket-Accept is not that of the key; who answers may be a cache")
        protocols = list(_values(headers, _PROTOCOL))
        if len(protocols) > 1 or not self._protocols.issuperset(protocols):
            raise _bad(f"the server chooses a subprotocol that was not offered: {', '.join(protocols)[:_SHOWN]!a}")
        window, fresh = self._extensions(headers)
        return Agreed(protocols[0] if protocols else None, window, fresh)

    def _extensions(self, headers: Sequence[Header]) -> tuple[int, bool]:
        text = ", ".join(_values(headers, "sec-websocket-extensions"))
        if not text:
            return 0, False
        if not self._compress:
            raise _bad(f"the server uses an extension that was not offered: {text[:_SHOWN]!a}")
        try:
            return ws_ext_parse(text)
        except WSHandshakeError:
            raise _bad(f"the server uses an extension in a way that was not offered: {text[:_SHOWN]!a}") from None


def handshake_headers(own: Sequence[Header], usual: Sequence[Header], protocols: Sequence[str]) -> list[Header]:
    """Return what a request has beside what every handshake has; a job's own go before the usual ones."""
    offered = [("Sec-WebSocket-Protocol", ", ".join(protocols))] if protocols else []
    return merged(own, [*usual, *offered])


def _values(headers: Sequence[Header], wanted: str) -> Iterator[str]:
    return (value for name, value in headers if name.lower() == wanted)


def _tokens(headers: Sequence[Header], wanted: str) -> set[str]:
    return {token for value in _values(headers, wanted) for token in _COMMA.split(value.strip().lower())}


def _bad(message: str) -> FetchError:
    return FetchError(ErrorKind.BAD_ANSWER, message, status=101)
