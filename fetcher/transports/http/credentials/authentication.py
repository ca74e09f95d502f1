"""Credentials for hosts that the config names: which request gets them, and what a 401 changes.

    hop -> entry of its host? -> Authorization -> exchange -> 401? -> learn from the challenge, once more

Credentials are added to each hop by itself and are gone with it, so that a redirect takes none along: the host that it
leads to gets what its own entry says, or nothing. A job that brings its own ``Authorization`` is left alone.

A host has many ports, which may be those of other people's servers. An entry that names no port is for the usual one of
http or https, and for that of the job's own URL; a redirect to any other gets nothing.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Self

from pydantic import Field, PlainValidator, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from fetcher.errors import FetchError, suggestion
from fetcher.settings import Secret, Settings
from fetcher.transports.http.credentials.digest import DigestScheme
from fetcher.transports.http.credentials.oauth import OAuthScheme, TokenRequest, basic
from fetcher.transports.http.origins import host_of, origin_and_target
from fetcher.transports.http.redirects import RedirectedHop, origin_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import ClientTimeout

    from fetcher.transports.http.exchange import Answer, Exchange, Hop, Lane
    from fetcher.transports.http.tracing import HopTrace

_UNAUTHORIZED = 401
_MOST_DRAINED = 64 * 1024
_MOST_ORIGINS = 4096
_USUAL_PORTS = {"http": 80, "https": 443}
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LAST_PORT = 65_535
_BRACKETED = re.compile(r"\[([^\]]*:[^\]]*)\](?::(.*))?")


class Scheme(Protocol):
    """How one entry proves who is asking."""

    async def authorization(self, hop: Hop) -> str | None:
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

    async def authorization(self, hop: Hop) -> str | None:  # noqa: ARG002
        return self._value

    def refused(self, hop: Hop, sent: str | None, answer: Answer) -> bool:  # noqa: ARG002
        return False

    async def close(self) -> None:
        pass


class AuthSettings(Settings):
    """Credentials, and the hosts that they are for."""

    hosts: list[str] = Field(min_length=1)
    """Names or patterns (``*.example.org``), with a port (``example.org:8443``, ``*:*``) or without one, which is for
    the usual port and for the one in a job's own URL, but for no other that a redirect leads to. The first entry that
    matches is the one; ``*`` is every host there is. IPv6 addresses with a port stand in brackets."""
    insecure: bool = False
    """``true`` sends them over http, too, where everybody on the way can read them. Otherwise such a request goes
    without."""

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, hosts: list[str]) -> list[str]:
        for host in hosts:
            if not _is_host(host):
                words = f"{host[:60]!r} is no host; write its name, or name:port, without scheme and path"
                raise PydanticCustomError("host", "{words}", {"words": words})
        return [host.lower() for host in hosts]


def _host_and_port(entry: str) -> tuple[str, str | None]:
    """Split an entry of ``hosts``. A port of None is none; more than one colon without brackets is IPv6."""
    if (bracketed := _BRACKETED.fullmatch(entry)) is not None:
        return bracketed[1], bracketed[2]
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return host, port
    return entry, None


def _is_host(entry: str) -> bool:
    host, port = _host_and_port(entry)
    usable = port is None or port == "*" or (_PORT.fullmatch(port) is not None and int(port) <= _LAST_PORT)
    return bool(host) and "/" not in host and "]:" not in host and usable


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


class OAuth2Settings(AuthSettings):
    """A token that is got with the credentials of a client (RFC 6749, section 4.4)."""

    type: Literal["oauth2"] = "oauth2"
    token_url: str = Field(pattern=r"^https?://[^\s/?#@]+[^\s#]*$")
    client_id: str
    client_secret: Secret
    scope: str | None = None
    parameters: dict[str, str] = Field(default={})
    """What else the token endpoint wants to be sent, such as ``audience``."""
    client_auth: Literal["basic", "body"] = "basic"
    """Where id and secret stand in the request for a token (RFC 6749, section 2.3.1)."""

    @model_validator(mode="after")
    def _secret_is_not_sent_in_the_clear(self) -> Self:
        if not self.insecure and not self.token_url.startswith("https://"):
            raise PydanticCustomError("token_url", "has a token_url without TLS; write https://, or insecure: true")
        return self

    def scheme(self, exchange: Exchange, timeout: ClientTimeout, lane: Lane | None) -> Scheme:
        """Return what gets tokens by the given exchange, and makes headers of them."""
        form = {"grant_type": "client_credentials"} | ({"scope": self.scope} if self.scope else {}) | self.parameters
        secret = self.client_secret.get_secret_value()
        in_body = self.client_auth == "body"
        request = TokenRequest(self.token_url, self.client_id, secret, form, in_body=in_body)
        return OAuthScheme(request, exchange, timeout, lane)


_TYPES: dict[str, type[BasicSettings | BearerSettings | DigestSettings | OAuth2Settings]] = {
    "basic": BasicSettings,
    "bearer": BearerSettings,
    "digest": DigestSettings,
    "oauth2": OAuth2Settings,
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
    PlainValidator(_entry, json_schema_input_type=BasicSettings | BearerSettings | DigestSettings | OAuth2Settings),
]
"""One entry of ``http.auth``."""


class _Entry:
    def __init__(self, settings: AuthSettings, scheme: Scheme) -> None:
        self._patterns = [_host_and_port(host) for host in settings.hosts]
        self.insecure = settings.insecure
        self.scheme = scheme

    def matches(self, url: str, *, own: bool) -> bool:
        """Return whether it is for a URL; ``own`` if that is of the origin that the job asks for."""
        scheme, _, port = origin_of(url)
        host = host_of(url)
        usual = own or port == _USUAL_PORTS.get(scheme)
        return any(
            fnmatchcase(host, pattern) and (usual if wanted is None else wanted in {"*", str(port)})
            for pattern, wanted in self._patterns
        )


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
        if (
            entry is None
            or not (entry.insecure or hop.url.startswith("https://"))
            or any(name.lower() == "authorization" for name, _ in hop.headers)
        ):
            return await self._inner.send(hop, trace)
        scheme = entry.scheme
        sent = await scheme.authorization(hop)
        answer = await self._send(hop, trace, sent)
        if answer.status == _UNAUTHORIZED and scheme.refused(hop, sent, answer):
            await _drain(answer)
            answer = await self._send(hop, trace, await scheme.authorization(hop))
        return answer

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
