"""API keys: put into each hop below everything that makes records, and masked in what a server says of them.

A key is no part of a job. It goes with the hop that needs it and is gone with it, so that URLs in records, redirects
and messages never have it. A server may give it away again, most of all in a Location that repeats the whole query: it
is masked wherever that is shown. What is followed is what the server has said, but for the value of that parameter:
following such a redirect to a host of the entry puts the right one in its place.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, Self
from urllib.parse import quote, unquote_plus

from multidict import CIMultiDict
from pydantic import AfterValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from fetcher.errors import ErrorKind, FetchError
from fetcher.jobs.intake import mask_userinfo
from fetcher.references import BadReferenceError
from fetcher.settings import Secret
from fetcher.transports.http.credentials.hosts import AuthSettings
from fetcher.transports.http.credentials.masking import MASK, Mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aiohttp import ClientTimeout

    from fetcher.model import Header
    from fetcher.transports.http.exchange import Answer, Exchange, Hop, Lane
    from fetcher.transports.http.tracing import HopTrace

_SHOWN = 200
_TARGET = re.compile(r"(<[^>]*>)")
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _is_sendable(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not text or not text.isprintable() or text != text.strip():
        raise PydanticCustomError("key", "is empty, or has a control character or a space around it")
    return key


class ApiKeySettings(AuthSettings):
    """A key in every request, as a header or as a parameter of the query."""

    model_config = ConfigDict(serialize_by_alias=True)

    type: Literal["api_key"] = "api_key"
    name: str = Field(min_length=1, pattern=r"^[^\x00-\x20\x7f]+$")
    """What the header or the parameter is called. A parameter of that name in a URL is replaced; a header of that name
    that a job brings itself is left as it is."""
    place: Literal["header", "query"] = Field(default="header", alias="in")
    """Where it stands: in a ``header``, or in the ``query`` of the URL."""
    key: Annotated[Secret, AfterValidator(_is_sendable)]
    """The key. Records, logs and messages have ``***`` in its place; only what a server writes into a body is its own
    business."""

    @model_validator(mode="after")
    def _fits_into_a_header(self) -> Self:
        if self.place == "query":
            return self
        if not _FIELD_NAME.fullmatch(self.name):
            raise PydanticCustomError("key", "should have the name of a header such as x-api-key")
        if not self.key.get_secret_value().isascii():
            raise PydanticCustomError("key", "has another alphabet in its key, which no header takes")
        return self

    def scheme(self, exchange: Exchange, timeout: ClientTimeout, lane: Lane | None) -> ApiKey:  # noqa: ARG002
        """Return what puts the key into hops."""
        return ApiKey(self.name, self.key.get_secret_value(), in_query=self.place == "query")


class ApiKey:
    """Puts a key into hops and takes it out of what comes back."""

    def __init__(self, name: str, key: str, *, in_query: bool) -> None:
        self._name = name
        self._key = key
        self._in_query = in_query
        self.parameter = name if in_query else None
        self._mask = Mask(key)

    async def send(self, hop: Hop, trace: HopTrace, exchange: Exchange) -> Answer:
        """Make a hop with the key. Raises FetchError, which does not have it."""
        # The hop stays the same, as layers below note in it which way it went; the key is gone with the request.
        kept = hop.url, hop.headers
        if self._in_query:
            hop.url = with_parameter(hop.url, self._name, self._key)
        elif not any(name.lower() == self._name.lower() for name, _ in hop.headers):
            hop.headers = [*hop.headers, (self._name, self._key)]
        try:
            answer = await exchange.send(hop, trace)
        except FetchError as error:
            self.clean(error)
            raise
        except Exception as error:  # noqa: BLE001  it becomes a message, and may quote the URL
            raise FetchError(ErrorKind.INTERNAL, self._mask.message(f"{type(error).__name__}: {error}")) from None
        finally:
            hop.url, hop.headers = kept
        return MaskedAnswer(answer, self)

    async def close(self) -> None:
        """Do nothing: there is nothing under way."""

    def mask(self, text: str) -> str:
        """Return a text without the key, in whatever way it is encoded."""
        return self._mask.shown(text)

    def headers(self, headers: list[Header]) -> list[Header]:
        """Return response headers without the key; the same list if none has it."""
        if not any(self._mask.is_in(name) or self._mask.is_in(value) for name, value in headers):
            return headers
        return [(self.mask(name), self._value(name, value)) for name, value in headers]

    def fields(self, fields: Mapping[str, str]) -> Mapping[str, str]:
        """Return the same of what finds them by their names."""
        if not any(map(self._mask.is_in, [*fields, *fields.values()])):
            return fields
        return CIMultiDict((self.mask(name), self._value(name, value)) for name, value in fields.items())

    def _value(self, name: str, value: str) -> str:
        if name.lower() != "link":
            return self.mask(value)
        # Next pages are looked for in what is shown, and a word of their URLs may be a short key by chance.
        pieces = _TARGET.split(value)
        pieces[::2] = map(self.mask, pieces[::2])
        pieces[1::2] = map(self._target, pieces[1::2])
        return "".join(pieces)

    def _target(self, target: str) -> str:
        target = _without_value(target, self._name, self._mask) if self._in_query else target
        return self.mask(target) if self._mask.is_surely_in(target) else target

    def followed(self, reference: str) -> str:
        """Return where to follow a reference to: the same, with no key in its parameter.

        Raises BadReferenceError if the key is elsewhere in it, where a record would show it. A short one may be there
        by chance, and is left.
        """
        address, sign, fragment = reference.partition("#")
        if self._in_query:
            address = _without_value(address, self._name, self._mask)
        if self._mask.is_surely_in(mask_userinfo(address)):
            shown = self._mask.message(mask_userinfo(reference))[:_SHOWN]
            raise BadReferenceError(f"points to {shown!r}, which has the API key where records would show it")
        return address + sign + self.mask(fragment)

    def clean(self, error: FetchError) -> None:
        """Take the key, and pieces of it, out of a message."""
        error.message = self._mask.message(error.message)
        error.args = (error.message,)


class MaskedAnswer:
    """An answer in whose head the key does not show. ``key`` and ``told`` are what it was, for where it leads."""

    __slots__ = ("_answer", "close", "fields", "headers", "http_version", "key", "remote_ip", "status", "told")

    def __init__(self, answer: Answer, key: ApiKey) -> None:
        self._answer = answer
        self.key = key
        self.told = answer.headers
        self.status = answer.status
        self.headers = key.headers(answer.headers)
        self.fields = key.fields(answer.fields)
        self.http_version = answer.http_version
        self.remote_ip = answer.remote_ip
        self.close = answer.close

    @property
    def length_unknown(self) -> bool:
        """Whether the body ends with its connection."""
        return self._answer.length_unknown

    async def read(self) -> bytes:
        """Return what has arrived of the body. Raises FetchError, without the key."""
        try:
            return await self._answer.read()
        except FetchError as error:
            self.key.clean(error)
            raise


def following(entries: Iterable[AuthSettings]) -> Callable[[str], str] | None:
    """Return what makes references that can be followed of those in answers, as `ApiKey.followed` does.

    None if none of the credentials is an API key.
    """
    keys = [
        ApiKey(entry.name, entry.key.get_secret_value(), in_query=entry.place == "query")
        for entry in entries
        if isinstance(entry, ApiKeySettings)
    ]
    return partial(_followed, keys) if keys else None


def _followed(keys: Sequence[ApiKey], reference: str) -> str:
    for key in keys:
        reference = key.followed(reference)
    address, _, query = reference.partition("#")[0].partition("?")
    names = {key.parameter for key in keys}
    others = [part for part in query.split("&") if unquote_plus(part.partition("=")[0]) not in names]
    if MASK in address or any(MASK in part for part in others):
        # It stood in a header, from which it was taken out.
        raise BadReferenceError(f"points to {mask_userinfo(reference)[:_SHOWN]!r}, which had the API key there")
    return reference


def _without_value(address: str, name: str, mask: Mask) -> str:
    """Return a reference whose parameter of that name has no key any more."""
    base, sign, query = address.partition("?")
    parts = query.split("&")
    for index, part in enumerate(parts):
        written, _, value = part.partition("=")
        if unquote_plus(written) == name and (mask.is_all_of(value) or mask.is_surely_in(value)):
            parts[index] = f"{written}={MASK}"
    return f"{base}{sign}{'&'.join(parts)}"


def with_parameter(url: str, name: str, value: str) -> str:
    """Return a URL with one parameter of that name: in the place of the first that it has, or as the last one.

    What else is in the query stays byte for byte as it is.
    """
    url, _, fragment = url.partition("#")
    address, _, query = url.partition("?")
    wanted = f"{quote(name, safe='')}={quote(value, safe='')}"
    parts = query.split("&") if query else []
    found = [index for index, part in enumerate(parts) if unquote_plus(part.partition("=")[0]) == name]
    if found:
        parts[found[0]] = wanted
        parts = [part for index, part in enumerate(parts) if index not in found[1:]]
    else:
        parts.append(wanted)
    if address.count("/") == 2:  # noqa: PLR2004  those of ://, so that it has no path
        address += "/"
    return f"{address}?{'&'.join(parts)}" + (f"#{fragment}" if fragment else "")
