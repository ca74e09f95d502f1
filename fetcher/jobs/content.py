"""What a job object says of its request, checked and encoded: params, form, multipart, body, auth, receive.

All of it is data. Names and values are encoded as the place where they go has it, whatever stands in them, so that none
can become another parameter, field, part or header. What is wrong is a RowError that says what to write.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import re2

from fetcher.answers.expressions import compiled
from fetcher.errors import ConfigError, ErrorKind
from fetcher.jobs.intake import RowError, check_text
from fetcher.model import FormPart, Receive
from fetcher.settings import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fetcher.model import Header

FORM = "application/x-www-form-urlencoded"
"""The content type of a form (WHATWG URL, section 5)."""
MOST_RECEIVED = 2**31 - 1
"""The largest length, and number of messages, that can be asked for."""
_PART_KEYS = frozenset({"name", "value", "path", "filename", "content_type"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*;[ \t\x21-\x7e]*)?")
_TOKEN68 = re.compile(r"[\x21-\x7e]+")


def query_of(params: object) -> str:
    """Return the query of ``params``: percent-encoded, a list as several pairs, null as none."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in _pairs("params", params))


def form_of(form: object) -> bytes:
    """Return a body of the type ``FORM``, a list as several pairs, null as none."""
    return "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in _pairs("form", form)).encode()


def parts_of(multipart: object) -> list[FormPart]:
    """Return the parts of a ``multipart/form-data`` body."""
    if not isinstance(multipart, list) or not multipart:
        raise _wrong("multipart is not a list of parts such as {name: file, path: a.pdf}")
    return [_part(f"multipart.{index}", part) for index, part in enumerate(multipart)]


def body_of(body: object) -> bytes:
    """Return a body that is text, ``{hex: ...}`` or ``{base64: ...}``."""
    if not isinstance(body, dict):
        return check_text("body", body).encode()
    return _bytes_of("body", body, {"hex": _unhexed, "base64": _unbased})


def authorization_of(auth: object) -> Header:
    """Return the header of ``{username, password}`` (RFC 7617) or ``{token}`` (RFC 6750)."""
    if not isinstance(auth, dict) or set(auth) not in ({"username", "password"}, {"token"}):
        raise _wrong("auth is not {username: ..., password: ...} or {token: ...}")
    if "token" in auth:
        token = check_text("auth.token", auth["token"])
        if not _TOKEN68.fullmatch(token):
            raise _wrong("auth.token is empty, or has a space, a control character or another alphabet")
        return "Authorization", f"Bearer {token}"
    username, password = check_text("auth.username", auth["username"]), check_text("auth.password", auth["password"])
    if ":" in username:
        raise _wrong("auth.username has a colon, which no user of Basic authentication has (RFC 7617, section 2)")
    if _CONTROL.search(username) or _CONTROL.search(password):
        raise _wrong("auth has a control character (RFC 7617, section 2)")
    return "Authorization", "Basic " + b64encode(f"{username}:{password}".encode()).decode("ascii")


def receive_of(receive: object) -> Receive:
    """Return when an answer is whole: exactly one of the ways that a ``Receive`` has."""
    given = {k: v for k, v in receive.items() if v is not None} if isinstance(receive, dict) else {}
    if len(given) > 1:
        raise _wrong(f"receive has {' and '.join(given)}; one of them says when an answer is whole")
    if not given:
        raise _wrong(f"receive is not one of {', '.join(_RECEIVE)}, such as {{length: 4}}")
    ((name, value),) = given.items()
    if name not in _RECEIVE:
        raise _wrong(f"receive has the unknown key {name!r}; there are {', '.join(_RECEIVE)}")
    return Receive(**{name: _RECEIVE[name](f"receive.{name}", value)})


def plain_text(name: str, value: object) -> str:
    """Return text, a number, true or false as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if not isinstance(value, str):
        raise _wrong(f"{name} is neither text nor a number but {_kind(value)}")
    return check_text(name, value)


def _pairs(name: str, given: object) -> Iterator[tuple[str, str]]:
    """Yield names and values as text."""
    if not isinstance(given, dict):
        raise _wrong(f"{name} is not an object")
    for key, value in given.items():
        check_text(f"a name in {name}", key)
        for item in value if isinstance(value, list | tuple) else [value]:
            if item is not None:
                yield key, plain_text(f"{name}.{key}", item)


def _part(where: str, given: object) -> FormPart:
    if not isinstance(given, dict) or not _PART_KEYS.issuperset(given):
        raise _wrong(f"{where} is not an object of name, value or path, filename and content_type")
    name = check_text(f"{where}.name", given.get("name"))
    value, path = given.get("value"), given.get("path")
    if (value is None) == (path is None):
        raise _wrong(f"{where} has {'neither' if value is None else 'both'} value and path; a part has one of them")
    part = FormPart(name)
    if value is not None:
        part.value = plain_text(f"{where}.value", value)
    if path is not None:
        part.path = check_text(f"{where}.path", path)
        if not part.path or "\0" in part.path:
            raise _wrong(f"{where}.path is no path")
    if (filename := given.get("filename")) is not None:
        part.filename = check_text(f"{where}.filename", filename)
    if (content_type := given.get("content_type")) is not None:
        part.content_type = check_text(f"{where}.content_type", content_type)
        if not _MEDIA_TYPE.fullmatch(part.content_type):
            raise _wrong(f"{where}.content_type {part.content_type[:60]!r} is no media type such as image/png")
    return part


def _delimiter(name: str, value: object) -> bytes:
    found = _bytes_of(name, value, {"hex": _unhexed}) if isinstance(value, dict) else check_text(name, value).encode()
    if not found:
        raise _wrong(f"{name} is empty")
    return found


def _bytes_of(name: str, given: Mapping[str, Any], ways: Mapping[str, Callable[[str], bytes]]) -> bytes:
    way = next(iter(given), "")
    if len(given) != 1 or way not in ways:
        raise _wrong(f"{name} is neither text nor {' or '.join(f'{{{way}: ...}}' for way in ways)}")
    try:
        return ways[way](check_text(f"{name}.{way}", given[way]))
    except ValueError as error:
        if isinstance(error, RowError):
            raise
        raise _wrong(f"{name}.{way} is not {way}") from None


def _unhexed(text: str) -> bytes:
    return bytes.fromhex(text)


def _unbased(text: str) -> bytes:
    try:
        return b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST_RECEIVED:
        raise _wrong(f"{name} is not a whole number of at least 1")
    return value


def _quiet(name: str, value: object) -> float:
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise _wrong(f"{name} {error}") from error
    if not isinstance(seconds, int | float) or not 0 < seconds <= MOST_RECEIVED:
        raise _wrong(f"{name} is not more than 0 seconds")
    return float(seconds)


def _until(name: str, value: object) -> str:
    text = check_text(name, value)
    if (why := _no_condition(name, text)) is not None:
        raise _wrong(why)
    return text


def _matches(name: str, value: object) -> str:
    text = check_text(name, value)
    if (why := _no_pattern(text)) is not None:
        raise _wrong(f"{name} is no regular expression of RE2: {why}")
    return text


# Most jobs of a batch have the same.
@lru_cache(256)
def _no_condition(name: str, text: str) -> str | None:
    try:
        compiled(text, name)
    except ConfigError as error:
        return str(error)
    return None


@lru_cache(256)
def _no_pattern(pattern: str) -> str | None:
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    return None


_RECEIVE: dict[str, Callable[[str, object], Any]] = {
    "delimiter": _delimiter,
    "length": _count,
    "quiet": _quiet,
    "messages": _count,
    "until": _until,
    "matches": _matches,
}
OF_STREAMS = frozenset({"delimiter", "length", "quiet"})
"""The ways of ``receive`` that tcp and tls have; the others are those of ws and wss."""


def _kind(value: object) -> str:
    return "null" if value is None else "binary" if isinstance(value, bytes) else type(value).__name__


def _wrong(message: str) -> RowError:
    return RowError(ErrorKind.INVALID_ROW, message)
