"""Credentials for hosts that the config names: which request gets them, and what a 401 changes.

    hop -> entry of its host? -> Authorization -> exchange -> 401? -> learn from the challenge, once more

Credentials are added to each hop by itself and are gone with it, so that a redirect takes none along: the host that it
leads to gets what its own entry says, or nothing. A job that brings its own ``Authorization`` is left alone.

Which hosts an entry is for says `fetcher.transports.http.credentials.hosts`; an API key is no Authorization, and has
its own ways (`fetcher.transports.http.credentials.api_key`).
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import Field, PlainValidator, SecretStr, field_validator
from pydantic_core import PydanticCustomError

from fetcher.errors import FetchError, suggestion
from fetcher.references import origin_of
from fetcher.settings import Secret, Settings
from fetcher.transports.http.credentials.api_key import ApiKey, ApiKeySettings
from fetcher.transports.http.credentials.digest import DigestScheme
from fetcher.transports.http.credentials.hosts import AuthSettings, HostPatterns
from fetcher.transports.http.credentials.oauth import OAuthScheme
from fetcher.transports.http.credentials.oauth_settings import OAuth2Settings
from fetcher.transports.http.credentials.tokens import basic
from fetcher.transports.http.origins import origin_and_target
from fetcher.transports.http.redirects import RedirectedHop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import ClientTimeout

    from fetcher.transports.http.exchange import Answer, Exchange, Hop, Lane
    from fetcher.transports.http.tracing import HopTrace

_UNAUTHORIZED = 401
_MOST_DRAINED = 64 * 1024
_MOST_ORIGINS = 4096


class Scheme(Protocol):
    """How one entry proves who is asking."""

    async def authorization(self, hop: Hop, trace: HopTrace) -> str | None:
        """Return the value of ``Authorization``; None as long as it takes a challenge to know it. Raises FetchError."""
        ...

    def refused(self, hop: Hop, sent: str | None, answer: Answer) -> bool:
        """Learn from a 401 to what was sent; return whether it is worth another try."""
        ...

    async def close(self) -> None:
        """Give up what is under way."""
        ...


class _Constant:
    """What is sent is always the same."""

    def __init__(self, value: str) -> None:
        self._value = value

    async def authorization(self, hop: Hop, trace: HopTrace) -> str | None:  # noqa: ARG002
        return self._value

    def refused(self, hop: Hop, sent: str | None, answer: Answer) -> bool:  # noqa: ARG002
        return False

    async def close(self) -> None:
        pass


class BasicSettings(AuthSettings):
    """User and password in every request (RFC 7617)."""

    type: Literal["basic"] = "basic"
    username: str = Field(pattern=r"^[^:\x00-\x1f\x7f]*$")
    password: Secret

    def scheme(self, exchange: Exchange, timeout: ClientTimeout, lane: Lane | None) -> Scheme:  # noqa: ARG002
        """Return what makes the header."""
        return _Constant(basic(self.username, self.password.get_secret_value()))


class BearerSettings(AuthSettings):
    """A token in every request (RFC 6750)."""

    type: Literal["bearer"] = "bearer"
    token: Secret

    @field_validator("token")
    @classmethod
    def _is_sendable(cls, token: SecretStr) -> SecretStr:
        text = token.get_secret_value()
        if not (text.isascii() and text.isprintable()) or " " in text:
            raise PydanticCustomError("token", "has a space, a control character or another alphabet in it")
        return token

    def scheme(self, exchange: Exchange, timeout: ClientTimeout, lane: Lane | None) -> Scheme:  # noqa: ARG002
        """Return what makes the header."""
        return _Constant(f"Bearer {self.token.get_secret_value()}")


class DigestSettings(AuthSettings):
    """User and password, of which only a hash is sent, as the answer to a challenge (RFC 7616)."""

    type: Literal["digest"] = "digest"
    username: str
    password: Secret

    def scheme(self, exchange: Exchange, timeout: ClientTimeout, lane: Lane | None) -> Scheme:  # noqa: ARG002
        """Return what answers challenges."""
        return DigestScheme(self.username, self.password.get_secret_value())


_AnyEntry = BasicSettings | BearerSettings | DigestSettings | OAuth2Settings | ApiKeySettings
_TYPES: dict[str, type[_AnyEntry]] = {
    "basic": BasicSettings,
    "bearer": BearerSettings,
    "digest": DigestSettings,
    "oauth2": OAuth2Settings,
    "api_key": ApiKeySettings,
}


def _entry(value: Any) -> Settings:
    """Validate an entry as its type says. In a union, the type would be a step in the path of an error."""
    if isinstance(value, Settings):
        return value
    if not isinstance(value, dict):
        raise PydanticCustomError("auth", "should be a mapping with hosts and a type")
    name = value.get("type")
    found = _TYPES.get(name) if isinstance(name, str) else None
    if found is None:
        hint = "has no type" if name is None else f"no such type {str(name)[:30]!r}{suggestion(name, _TYPES)}"
        raise PydanticCustomError("auth", "{words}", {"words": f"{hint} ({', '.join(_TYPES)})"})
    return found.model_validate(value)


# Any, so that an entry is written out as its own class says.
AuthEntry = Annotated[
    Any,
    PlainValidator(_entry, json_schema_input_type=_AnyEntry),
]
"""One entry of ``http.auth``."""


class _Entry:
    def __init__(self, settings: AuthSettings, scheme: Scheme | ApiKey) -> None:
        self.matches = HostPatterns(settings.hosts).match
        self.insecure = settings.insecure
        self.scheme = scheme


class AuthenticatingExchange:
    """Adds the credentials of its host to each hop, and answers a challenge with one more.

    ``tokens``: the exchange by which tokens are got, in ``lane``, connecting within ``timeout``.
    """

    def __init__(
        self,
        inner: Exchange,
        entries: Sequence[AuthEntry],
        *,
        tokens: Exchange,
        timeout: ClientTimeout,
        lane: Lane | None,
    ) -> None:
        self._inner = inner
        self._entries = [_Entry(entry, entry.scheme(tokens, timeout, lane)) for entry in entries]
        self._of_origin: OrderedDict[tuple[str, bool], _Entry | None] = OrderedDict()

    async def send(self, hop: Hop, trace: HopTrace) -> Answer:
        """Make the hop. Raises FetchError; of kind ``auth_failed`` if there is no token to be had."""
        entry = self._entry(hop)
        if entry is None or not (entry.insecure or hop.url.startswith("https://")):
            return await self._inner.send(hop, trace)
        scheme = entry.scheme
        if isinstance(scheme, ApiKey):
            return await scheme.send(hop, trace, self._inner)
        if any(name.lower() == "authorization" for name, _ in hop.headers):
            return await self._inner.send(hop, trace)
        sent = await scheme.authorization(hop, trace)
        answer = await self._send(hop, trace, sent)
        if answer.status == _UNAUTHORIZED and scheme.refused(hop, sent, answer):
            await _drain(answer)
            authorization = await scheme.authorization(hop, trace)
            trace.resent += 1
            answer = await self._send(hop, trace, authorization)
        return answer

    async def open(self) -> None:
        """Get ready. Raises ConfigError or StateError if something can not be kept."""
        for entry in self._entries:
            if isinstance(entry.scheme, OAuthScheme):
                await entry.scheme.open()

    async def close(self) -> None:
        """Give up what is under way."""
        for entry in self._entries:
            await entry.scheme.close()

    async def _send(self, hop: Hop, trace: HopTrace, authorization: str | None) -> Answer:
        if authorization is None:
            return await self._inner.send(hop, trace)
        # The hop stays the same, as layers below note in it which way it went; its headers are the next hop's.
        kept = hop.headers
        hop.headers = [*kept, ("Authorization", authorization)]
        try:
            return await self._inner.send(hop, trace)
        finally:
            hop.headers = kept

    def _entry(self, hop: Hop) -> _Entry | None:
        known = self._of_origin
        own = not isinstance(hop, RedirectedHop) or origin_of(hop.url) == origin_of(hop.first)
        key = origin_and_target(hop.url)[0], own
        if key not in known:
            known[key] = next((entry for entry in self._entries if entry.matches(hop.url, own=own)), None)
            if len(known) > _MOST_ORIGINS:
                known.popitem(last=False)
        return known[key]


async def _drain(answer: Answer) -> None:
    """Read the short body of a refusal, so that its connection can be used again, and close it."""
    read = 0
    try:
        # Whether it is whole does not matter.
        with suppress(FetchError):
            while read <= _MOST_DRAINED and (chunk := await answer.read()):
                read += len(chunk)
    finally:
        answer.close()
