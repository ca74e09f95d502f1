"""The token endpoint of OAuth 2.0: one request for a token, and what its answer means (RFC 6749, sections 5 and 6).

What is in the way may pass (it can not be reached, has too much to do, is broken) or not: it refuses the credentials,
or is no token endpoint at all. Whoever waits for a token has to know which.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING
from urllib.parse import quote_plus, urlencode

import msgspec

from fetcher.errors import ErrorKind, FetchError
from fetcher.retry_after import parse_retry_after
from fetcher.transports.http.credentials.masking import Mask
from fetcher.transports.http.exchange import Hop
from fetcher.transports.http.origins import host_of
from fetcher.transports.http.tracing import HopTrace

if TYPE_CHECKING:
    from typing import Literal

    from aiohttp import ClientTimeout

    from fetcher.transports.http.exchange import Answer, Exchange, Lane

    ClientAuth = Literal["basic", "body", "none"]

_WITHIN = 30.0
_MOST_RECEIVED = 256 * 1024
_SUCCESS = 200
_TOO_MANY = 429
_SERVER_ERROR = 500
# What will be no other when it is asked again, unless somebody changes the config.
_LASTING = frozenset(
    {
        ErrorKind.BLOCKED,
        ErrorKind.INVALID_URL,
        ErrorKind.INVALID_ROW,
        ErrorKind.UNSUPPORTED_SCHEME,
        ErrorKind.TLS_SELF_SIGNED,
        ErrorKind.TLS_HOSTNAME,
        ErrorKind.TLS_UNTRUSTED,
        ErrorKind.PROXY_AUTH,
    }
)
# Of RFC 6749, section 5.2, which say the same whatever they were told.
_CODES = frozenset(
    {
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    }
)
# RFC 6749 allows for more, but what is a code looks like this, and what repeats a request may not.
_CODE = re.compile(r"[a-z0-9_.-]{1,40}")


class TokenError(Exception):
    """There is no token for now. ``passing``: there may be one later, though not within ``retry_after`` seconds."""

    def __init__(self, message: str, *, passing: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.passing = passing
        self.retry_after = retry_after


class Token(msgspec.Struct):
    """The answer of a token endpoint (RFC 6749, section 5.1). What is None, or an empty text, is not said."""

    access_token: str
    token_type: str | None = None
    expires_in: float | str | None = None
    refresh_token: str | None = None

    @property
    def lifetime(self) -> float | None:
        """For how many seconds it is good, None if that is not said."""
        try:
            seconds = float("nan" if self.expires_in is None else self.expires_in)
        except ValueError:
            return None
        return seconds if isfinite(seconds) else None

    def __repr__(self) -> str:
        return "Token()"


class _Refusal(msgspec.Struct):
    """An error of a token endpoint (RFC 6749, section 5.2)."""

    error: str = ""


def basic(username: str, password: str) -> str:
    """Return the ``Authorization`` of RFC 7617."""
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode("ascii")


class Client(msgspec.Struct, frozen=True):
    """Who asks for tokens, and how it says so (RFC 6749, section 2.3.1). ``none``: it has no secret."""

    id: str
    secret: str
    auth: ClientAuth

    def __repr__(self) -> str:
        return f"Client({self.id!r})"

    @property
    def fields(self) -> dict[str, str]:
        """What of it is in the form."""
        if self.auth == "basic":
            return {}
        return {"client_id": self.id} | ({"client_secret": self.secret} if self.auth == "body" else {})

    @property
    def secrets(self) -> list[str]:
        """What of it is told to the endpoint and to nobody else."""
        header = self.authorization
        return [secret for secret in (self.secret, header.partition(" ")[2] if header else "") if secret]

    @property
    def authorization(self) -> str | None:
        """What of it is in the header: both encoded as in a form before they are joined."""
        return basic(quote_plus(self.id), quote_plus(self.secret)) if self.auth == "basic" else None


class TokenEndpoint:
    """Asks for tokens at ``url`` by an exchange, in a lane of it; connecting may take ``timeout``."""

    def __init__(self, url: str, client: Client, exchange: Exchange, timeout: ClientTimeout, lane: Lane | None) -> None:
        self._url = url
        self._client = client
        self._exchange = exchange
        self._timeout = timeout
        self._lane = lane
        self._name = f"the token endpoint {host_of(url)}"

    async def ask(self, form: dict[str, str]) -> Token:
        """Return the token that is given for a form. Raises TokenError."""
        try:
            async with asyncio.timeout(_WITHIN):
                answer = await self._exchange.send(self._hop(form), HopTrace())
                try:
                    body = await _received(answer)
                finally:
                    answer.close()
        except TimeoutError:
            raise TokenError(f"{self._name} took longer than {_WITHIN:g} s", passing=True) from None
        except FetchError as error:
            # It may quote what the server said, which may be what it was told.
            said = error.message
            for mask in self._masks(form):
                said = mask.message(said)
            raise TokenError(f"{self._name} can not be reached: {said}", passing=error.kind not in _LASTING) from None
        if answer.status != _SUCCESS:
            raise self._refusal(answer, _why(answer.status, body, self._masks(form)))
        return self._read(body)

    def _masks(self, form: dict[str, str]) -> list[Mask]:
        """Return what finds the secrets that were sent with a form."""
        told = [*self._client.secrets, form.get("refresh_token", "")]
        return [Mask(secret) for secret in told if secret]

    def _hop(self, form: dict[str, str]) -> Hop:
        headers = [("Accept", "application/json"), ("Content-Type", "application/x-www-form-urlencoded")]
        if (authorization := self._client.authorization) is not None:
            headers.append(("Authorization", authorization))
        body = urlencode(form | self._client.fields).encode()
        return Hop("POST", self._url, headers, body, self._timeout, self._lane)

    def _refusal(self, answer: Answer, why: str) -> TokenError:
        status = answer.status
        if status != _TOO_MANY and status < _SERVER_ERROR:
            return TokenError(f"{self._name} refused: {why}")
        now, fields = datetime.now(UTC), answer.fields
        pause = parse_retry_after(fields.get("Retry-After"), now, fields.get("Date"))
        return TokenError(f"{self._name} answered {why}", passing=True, retry_after=pause)

    def _read(self, body: bytes) -> Token:
        """Read a token. Nothing of what came instead is shown: it may hold one."""
        try:
            token = msgspec.json.decode(body, type=Token, strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise TokenError(f"{self._name} answered without an access_token") from None
        text = token.access_token
        if not text or not (text.isascii() and text.isprintable()) or " " in text:
            raise TokenError(f"{self._name} gave a token that can not be sent")
        if (token.token_type or "bearer").lower() != "bearer":
            raise TokenError(f"{self._name} gave a token of another type than bearer")
        return token


async def _received(answer: Answer) -> bytes:
    body = b""
    while len(body) <= _MOST_RECEIVED and (chunk := await answer.read()):
        body += chunk
    return body


def _why(status: int, body: bytes, masks: list[Mask]) -> str:
    """Return the status, and the code of an error if there is one that has nothing of what was sent in it."""
    try:
        code = msgspec.json.decode(body, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return str(status)
    is_code = code in _CODES or (_CODE.fullmatch(code) is not None and not any(mask.repeats(code) for mask in masks))
    return f"{status} {code}" if is_code else str(status)
