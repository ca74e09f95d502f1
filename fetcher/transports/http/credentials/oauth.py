"""Tokens of OAuth 2.0 for a client's own account (RFC 6749, section 4.4): got once for all who wait."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import quote_plus, urlencode

import msgspec

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.exchange import Hop
from fetcher.transports.http.origins import host_of
from fetcher.transports.http.tracing import HopTrace

if TYPE_CHECKING:
    from aiohttp import ClientTimeout

    from fetcher.transports.http.exchange import Answer, Exchange, Lane

_WITHIN = 30.0
_MOST_RECEIVED = 256 * 1024
_SUCCESS = 200
_CLIENT_ERRORS = range(400, 500)
_TOO_MANY = 429
# A token is replaced this long before it ends, or earlier in its life if that is short.
_MARGIN = 60.0
_MARGIN_SHARE = 0.1
# A younger token is not replaced for a 401: what the new one would be refused for, this one is.
_YOUNG = 5.0
# Less would have each request get one of its own.
_SHORTEST = 1.0
_PAUSE_IF_DOWN = 1.0
_PAUSE_IF_REFUSED = 30.0
_CODE = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,80}")


def basic(username: str, password: str) -> str:
    """Return the ``Authorization`` of RFC 7617."""
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode("ascii")


class TokenRequest(msgspec.Struct, frozen=True):
    """What is sent to a token endpoint. ``in_body``: id and secret are fields of the form."""

    url: str
    client_id: str
    client_secret: str
    form: dict[str, str]
    in_body: bool = False

    def __repr__(self) -> str:
        return f"TokenRequest({self.url})"

    def hop(self, timeout: ClientTimeout, lane: Lane | None) -> Hop:
        """Return the request."""
        headers = [("Accept", "application/json"), ("Content-Type", "application/x-www-form-urlencoded")]
        form = dict(self.form)
        if self.in_body:
            form |= {"client_id": self.client_id, "client_secret": self.client_secret}
        else:
            # Encoded as in a form before they are joined (RFC 6749, section 2.3.1).
            credentials = basic(quote_plus(self.client_id), quote_plus(self.client_secret))
            headers.append(("Authorization", credentials))
        return Hop("POST", self.url, headers, urlencode(form).encode(), timeout, lane)


class _Token(msgspec.Struct):
    """The answer of a token endpoint (RFC 6749, section 5.1). ``expires_in`` is in seconds, None is not said."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105  no secret
    expires_in: float | None = None


class _Refusal(msgspec.Struct):
    """An error of a token endpoint (RFC 6749, section 5.2)."""

    error: str = ""


class OAuthScheme:
    """Gets a token when the first request needs one, and another before it ends or when it is refused.

    However many requests wait, the token endpoint is asked once. If it gives none, all of them fail with kind
    ``auth_failed``, as do those that come within a pause, in which it is left alone.
    """

    def __init__(
        self,
        request: TokenRequest,
        exchange: Exchange,
        timeout: ClientTimeout,
        lane: Lane | None = None,
    ) -> None:
        self._request = request
        self._exchange = exchange
        self._timeout = timeout
        self._lane = lane
        self._token: str | None = None
        self._since = 0.0
        self._until = 0.0
        self._failure: FetchError | None = None
        self._paused_until = 0.0
        self._getting: asyncio.Task[str] | None = None

    async def authorization(self, hop: Hop) -> str | None:  # noqa: ARG002
        """Return the token as RFC 6750 has it sent, after waiting for it if need be."""
        now = monotonic()
        if self._token is not None and now < self._until:
            return f"Bearer {self._token}"
        if self._getting is None:
            if self._failure is not None and now < self._paused_until:
                raise _copy(self._failure)
            self._getting = asyncio.create_task(self._get())
            self._getting.add_done_callback(self._got)
        try:
            # Whoever gives up must not take the token from the others who wait.
            return f"Bearer {await asyncio.shield(self._getting)}"
        except FetchError as error:
            raise _copy(error) from error

    def refused(self, hop: Hop, sent: str | None, answer: Answer) -> bool:  # noqa: ARG002
        """Throw a token away that was refused; one that is younger than the request was, or just got, is kept."""
        if sent != f"Bearer {self._token}":
            return True
        if monotonic() - self._since < _YOUNG:
            return False
        self._token = None
        return True

    async def close(self) -> None:
        """Stop getting a token."""
        getting = self._getting
        if getting is not None:
            getting.cancel()
            with suppress(asyncio.CancelledError, FetchError):
                await getting

    def _got(self, task: asyncio.Task[str]) -> None:
        self._getting = None
        if not task.cancelled():
            task.exception()  # that nobody waits any more is no news

    async def _get(self) -> str:
        try:
            token = await self._ask()
        except FetchError as error:
            self._failure = error
            # No pause is as long as a token lives: what is wrong may be mended at any time.
            pause = _PAUSE_IF_REFUSED if error.status in _CLIENT_ERRORS else _PAUSE_IF_DOWN
            error.status = None
            self._paused_until = monotonic() + pause
            raise
        self._failure = None
        self._token = token.access_token
        self._since = monotonic()
        lasts = float("inf") if token.expires_in is None else max(_SHORTEST, token.expires_in)
        self._until = self._since + lasts - min(_MARGIN, lasts * _MARGIN_SHARE)
        return token.access_token

    async def _ask(self) -> _Token:
        where = host_of(self._request.url)
        try:
            async with asyncio.timeout(_WITHIN):
                answer = await self._exchange.send(self._request.hop(self._timeout, self._lane), HopTrace())
                try:
                    body = await _received(answer)
                finally:
                    answer.close()
        except TimeoutError:
            raise _failed(f"the token endpoint {where} took longer than {_WITHIN:g} s") from None
        except FetchError as error:
            raise _failed(f"the token endpoint {where} can not be reached: {error.message}") from error
        if answer.status != _SUCCESS:
            raise _failed(f"the token endpoint {where} refused: {_why(answer.status, body)}", _lasting(answer.status))
        return _read(body, where)


async def _received(answer: Answer) -> bytes:
    body = b""
    while len(body) <= _MOST_RECEIVED and (chunk := await answer.read()):
        body += chunk
    return body


def _read(body: bytes, where: str) -> _Token:
    """Read a token. Nothing of what came instead is shown: it may hold one."""
    try:
        token = msgspec.json.decode(body, type=_Token, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _failed(f"the token endpoint {where} answered without an access_token") from None
    text = token.access_token
    if not text or not (text.isascii() and text.isprintable()) or " " in text:
        raise _failed(f"the token endpoint {where} gave a token that can not be sent")
    if token.token_type.lower() != "bearer":
        raise _failed(f"the token endpoint {where} gave a token of another type than bearer")
    return token


def _why(status: int, body: bytes) -> str:
    try:
        code = msgspec.json.decode(body, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        code = ""
    return f"{status} {code}" if _CODE.fullmatch(code) else str(status)


def _lasting(status: int) -> int | None:
    return None if status == _TOO_MANY else status


def _failed(message: str, status: int | None = None) -> FetchError:
    return FetchError(ErrorKind.AUTH_FAILED, message, sent=False, status=status)


def _copy(error: FetchError) -> FetchError:
    """Return the same for another job, whose fetch will write into it."""
    return FetchError(error.kind, error.message, sent=False)
