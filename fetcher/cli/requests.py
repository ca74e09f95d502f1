"""The options of ``fetcher get`` that say what is asked, and the jobs that they make."""

from __future__ import annotations

import os
import re
import sys
from base64 import b64encode
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from fetcher.jobs.content import receive_of
from fetcher.jobs.intake import SCHEMES, RowError

PASSWORD = "FETCHER_PASSWORD"  # noqa: S105  where it is
_BODIES = ("data", "data_raw", "json", "hex", "form", "multipart")
_ENDS = {"until": ("tcp", "tls"), "length": ("tcp", "tls"), "quiet": ("tcp", "tls"), "messages": ("ws", "wss")}
_RECEIVE = {"receive.delimiter": "--until", "receive.length": "--length", "receive.quiet": "--quiet"}
_RECEIVE |= {"receive.messages": "--messages"}
_STDIN = "-"
_LARGEST = 64 * 2**20
_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "0": b"\0", "\\": b"\\"}
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|.?)", re.DOTALL)
_HTTP = ("http:", "https:")

Texts = Annotated[list[str] | None, Parameter(negative="")]


class OptionError(ValueError):
    """An option can not be meant as it is; the message begins with its name."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of each URL; every scheme takes what it has a use for, and refuses the rest."""

    method: Annotated[str | None, Parameter(name=["-X", "--method"])] = None
    """The request method; GET, or POST with a body."""
    header: Annotated[Texts, Parameter(name=["-H", "--header"])] = None
    """A request header, "name: value". May be given several times, also with the same name."""
    param: Texts = None
    """A name=value for the query of the URL, encoded. May be given several times."""
    data: Annotated[str | None, Parameter(name=["-d", "--data"], allow_leading_hyphen=True)] = None
    """A body: what a request has, a socket is sent, or the message for a websocket. @ and the name of a file stand for
    the bytes of that file, all of them, and - (or @-) for what comes on standard input."""
    data_raw: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """A body as it is written, also with an @ at its beginning."""
    json: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """A body that is JSON, or @ and the name of a file that has it; @- is standard input."""
    hex: str | None = None
    """A body in hexadecimal digits."""
    form: Texts = None
    """A name=value of a form, which is the body. May be given several times."""
    multipart: Annotated[Texts, Parameter(name=["-F", "--multipart"])] = None
    """A name=value, or name=@file, of a multipart form, which is the body. May be given several times."""
    user: Annotated[str | None, Parameter(name=["-u", "--user"])] = field(default=None, repr=False)
    """A user:password for Basic authentication or a login. Everybody on a machine can read command lines: leave out
    the password (and the colon), and it is taken from the variable FETCHER_PASSWORD."""
    until: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    r"""The answer of a socket ends with this text, in which \n, \r, \t, \0, \\\\ and \xNN stand for a byte."""
    length: int | None = None
    """The answer of a socket has so many bytes."""
    quiet: str | None = None
    """The answer of a socket has ended when nothing more has come for this long (500ms)."""
    messages: int | None = None
    """The answer of a websocket has so many messages; 1 by default."""

    def job(self, url: str) -> dict[str, Any]:
        """Return the job of a URL. Raises OptionError."""
        for names, words in ((_BODIES, "a request has one body"), (tuple(_ENDS), "an answer ends in one way")):
            given = [name.replace("_", "-") for name in names if getattr(self, name) is not None]
            if len(given) > 1:
                raise OptionError(f"--{given[0]} and --{given[1]}: {words}")
        return self._job(url)

    def _job(self, url: str) -> dict[str, Any]:
        given = {
            "method": self.method or self._usual_method(url),
            "headers": _headers(self.header),
            "params": _pairs("--param", self.param),
            "body": self._body,
            "form": _pairs("--form", self.form),
            "multipart": None if self.multipart is None else [_part(part) for part in self.multipart],
            "auth": None if self.user is None else _auth(self.user),
            "receive": self._receive(url.partition(":")[0].lower()),
        }
        job = {"url": url} | {key: value for key, value in given.items() if value is not None}
        return job if self.json is None else job | {"json": self._json}

    # Once for all URLs: standard input can be read but once.
    @cached_property
    def _body(self) -> str | dict[str, str] | None:
        if self.hex is not None:
            return {"hex": self.hex}
        if self.data is None or not (self.data == _STDIN or self.data.startswith("@")):
            return self.data_raw if self.data is None else self.data
        return {"base64": b64encode(_read("--data", self.data.removeprefix("@"))).decode("ascii")}

    @cached_property
    def _json(self) -> Any:
        return _json(self.json or "")

    def _usual_method(self, url: str) -> str | None:
        has_body = any(getattr(self, name) is not None for name in _BODIES)
        return "POST" if has_body and url.lower().startswith(_HTTP) else None

    def _receive(self, scheme: str) -> dict[str, Any] | None:
        options = {
            "delimiter": None if self.until is None else {"hex": unescaped(self.until).hex()},
            "length": self.length,
            "quiet": self.quiet,
            "messages": self.messages,
        }
        given = {key: value for key, value in options.items() if value is not None}
        if not given:
            return None
        try:
            receive_of(given)
        except RowError as error:
            raise OptionError(_by_option(str(error))) from None
        name = next(name for name in _ENDS if getattr(self, name) is not None)
        if scheme in SCHEMES and scheme not in _ENDS[name]:
            schemes = " and ".join(f"{known}:" for known in _ENDS[name])
            raise OptionError(f"--{name}: means nothing for {scheme}: URLs; it is for {schemes}")
        return given


def _by_option(message: str) -> str:
    """Return what is wrong with a key of a job in the words of whoever typed an option."""
    key, space, rest = message.partition(" ")
    return f"{_RECEIVE[key]}:{space}{rest}" if key in _RECEIVE else message


def unescaped(text: str) -> bytes:
    r"""Return the bytes of a text in which ``\n``, ``\r``, ``\t``, ``\0``, ``\\`` and ``\xNN`` stand for one.

    Raises OptionError for any other.
    """

    def byte(match: re.Match[bytes]) -> bytes:
        name = match[1].decode("utf-8", "replace")
        if name.startswith("x") and len(name) > 1:
            return bytes.fromhex(name[1:])
        if name not in _ESCAPES:
            raise OptionError(f"--until: \\{name} stands for nothing; there are \\n, \\r, \\t, \\0, \\\\ and \\xNN")
        return _ESCAPES[name]

    return re.sub(_ESCAPE.pattern.encode(), byte, text.encode("utf-8", "surrogateescape"), flags=re.DOTALL)


def _headers(headers: list[str] | None) -> dict[str, list[str]] | None:
    """Return the values of each name, which is the same in whatever case, as it is written first."""
    if headers is None:
        return None
    found: dict[str, tuple[str, list[str]]] = {}
    for header in headers:
        name, colon, value = (piece.strip() for piece in header.partition(":"))
        if not colon or not name:
            # Not all of it: what is no name may be a token.
            first = next(iter(header.split()), "")
            raise OptionError(f'--header {first!r}: should be "name: value"')
        found.setdefault(name.lower(), (name, []))[1].append(value)
    return dict(found.values())


def _pairs(option: str, pairs: list[str] | None) -> dict[str, list[str]] | None:
    """Return the values of each name, in the order in which the names came first."""
    if pairs is None:
        return None
    found: dict[str, list[str]] = {}
    for pair in pairs:
        name, value = _split(option, pair)
        found.setdefault(name, []).append(value)
    return found


def _split(option: str, pair: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if not equals or not name:
        raise OptionError(f"{option} {pair!r}: should be name=value")
    return name, value


def _part(pair: str) -> dict[str, str]:
    name, value = _split("--multipart", pair)
    if not value.startswith("@"):
        return {"name": name, "value": value}
    # Whoever calls this may read whatever they can, so it is from the root that files are named.
    path = Path(value[1:]).absolute()
    if not path.is_file():
        raise OptionError(f"--multipart {pair!r}: there is no such file")
    return {"name": name, "path": os.fspath(path)}


def _read(option: str, name: str) -> bytes:
    """Return the bytes of a file, or of standard input. Raises OptionError."""
    try:
        if name == _STDIN:
            content = sys.stdin.buffer.read(_LARGEST + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(_LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OptionError(f"{option} {f'@{name}'!r}: can not be read: {reason}") from None
    if len(content) > _LARGEST:
        raise OptionError(f"{option} {f'@{name}'!r}: is larger than {_LARGEST // 2**20} MiB")
    return content


def _json(text: str) -> Any:
    """Return the JSON that a text is, or that is in the file which it names."""
    try:
        return msgspec.json.decode(_read("--json", text[1:]) if text.startswith("@") else text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise OptionError(f"--json: is no JSON: {error}") from None


def _auth(user: str) -> dict[str, str]:
    name, colon, password = user.partition(":")
    if not colon:
        password = os.environ.get(PASSWORD, "")
        if not password:
            raise OptionError(f"--user: has no password; write user:password, or put it into {PASSWORD}")
    return {"username": name, "password": password}
