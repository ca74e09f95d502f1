"""The options of ``fetcher get`` that say what is asked, and the jobs that they make."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

PASSWORD = "FETCHER_PASSWORD"  # noqa: S105  where it is
_BODIES = ("data", "json", "hex", "form", "multipart")
_ENDS = ("until", "length", "quiet", "messages")
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
    """A request header, "name: value". May be given several times."""
    param: Texts = None
    """A name=value for the query of the URL, encoded. May be given several times."""
    data: Annotated[str | None, Parameter(name=["-d", "--data"], allow_leading_hyphen=True)] = None
    """A body: what a request has, a socket is sent, or the message for a websocket."""
    json: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None
    """A body that is JSON, or @ and the name of a file that has it."""
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
        for names, words in ((_BODIES, "a request has one body"), (_ENDS, "an answer ends in one way")):
            given = [name for name in names if getattr(self, name) is not None]
            if len(given) > 1:
                raise OptionError(f"--{given[0]} and --{given[1]}: {words}")
        return self._job(url)

    def _job(self, url: str) -> dict[str, Any]:
        given = {
            "method": self.method or self._usual_method(url),
            "headers": _headers(self.header),
            "params": _pairs("--param", self.param),
            "body": self.data if self.hex is None else {"hex": self.hex},
            "form": _pairs("--form", self.form),
            "multipart": None if self.multipart is None else [_part(part) for part in self.multipart],
            "auth": None if self.user is None else _auth(self.user),
            "receive": self._receive(),
        }
        job = {"url": url} | {key: value for key, value in given.items() if value is not None}
        return job if self.json is None else job | {"json": _json(self.json)}

    def _usual_method(self, url: str) -> str | None:
        has_body = any(getattr(self, name) is not None for name in _BODIES)
        return "POST" if has_body and url.lower().startswith(_HTTP) else None

    def _receive(self) -> dict[str, Any] | None:
        given = {
            "delimiter": None if self.until is None else {"hex": unescaped(self.until).hex()},
            "length": self.length,
            "quiet": self.quiet,
            "messages": self.messages,
        }
        return {key: value for key, value in given.items() if value is not None} or None


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


def _headers(headers: list[str] | None) -> dict[str, str] | None:
    if headers is None:
        return None
    split = [header.partition(":") for header in headers]
    return {name.strip(): value.strip() for name, _, value in split}


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


def _json(text: str) -> Any:
    """Return the JSON that a text is, or that is in the file which it names."""
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text("utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise OptionError(f"--json {text!r}: can not be read: {reason}") from None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise OptionError(f"--json: is no JSON: {error}") from None


def _auth(user: str) -> dict[str, str]:
    name, colon, password = user.partition(":")
    if not colon:
        password = os.environ.get(PASSWORD, "")
        if not password:
            raise OptionError(f"--user: has no password; write user:password, or put it into {PASSWORD}")
    return {"username": name, "password": password}
