"""From one row of input to one Job. A row that can not be fetched becomes a job that says why.

URLs are checked here, once, so that nothing behind the queue has to doubt them: scheme, host, port, no
control characters. What is plain ASCII is kept byte for byte; anything else goes through yarl, which applies
IDNA to the host and percent-encodes the rest (RFC 3986). A host that is a number (``0x7f.1``) is written as the
IPv4 address that it means, so that a record, a Host field and a limit name what is connected to. A user and
password in a URL move into an ``Authorization`` header, so that they appear in no record; what is shown of a
rejected row has them masked.
"""

from __future__ import annotations

import math
import re
from base64 import b64encode
from functools import lru_cache
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import msgspec
from yarl import URL

from fetcher.errors import ErrorKind
from fetcher.hosts import ends_in_number, ipv4_address
from fetcher.model import Job, Rejection
from fetcher.settings import parse_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fetcher.model import Header

SCHEMES = {
    "http": 80,
    "https": 443,
    "ws": 80,
    "wss": 443,
    "ftp": 21,
    "ftps": 21,
    "tcp": None,
    "tls": None,
    "udp": None,
}
"""What can be fetched, and the port that a URL means which names none; None has to be named."""
COMMANDS = {"tcp": ("SEND",), "tls": ("SEND",), "udp": ("SEND",), "ftp": ("RETR", "LIST"), "ftps": ("RETR", "LIST")}
"""What stands for the method where there is no http; the first by default, and LIST of what ends with a slash."""
_SOCKETS = frozenset({"tcp", "tls", "udp"})
MAX_URL_LENGTH = 65_536
MAX_DEPTH = 100
"""How deep JSON may nest: far below where encoders run out of stack, which would stop a batch, not a row."""
MAX_PRIORITY = 2**31 - 1
CHECKSUMS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
"""The algorithms that a job's checksum may be of, and how many hexadecimal digits they give."""
_DIGEST_SIZES = {size: algorithm for algorithm, size in CHECKSUMS.items()}
_HEX = re.compile(r"[0-9a-f]+")
_HOST = r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)"
_PLAIN = re.compile(
    rf"https?://({_HOST}(?:\.{_HOST})*\.?)(?::([0-9]{{1,5}}))?(?:[/?][\x21\x23-\x5b\x5d\x5f\x61-\x7a\x7e]*)?"
)
# ``example.org:80/x`` would be a URL of the scheme ``example.org``, which nobody means.
_HOST_AND_PORT = re.compile(r"[^:/?#]+:\d{1,5}(?:[/?#]|$)")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
# What ends a user and password, or was meant to: @, its full-width and small forms (also as UTF-8 that is read as
# ISO-8859-1, which is how header fields are kept), and those percent-encoded.
_AT = "(?:@|\uff20|\ufe6b|\xef(?:\xbc\xa0|\xb9\xab)|%40|%[Ee][Ff]%(?:[Bb][Cc]%[Aa]0|[Bb]9%[Aa][Bb]))"
_AT_SIGN = re.compile(_AT)
# A user and password before the host. A password that was not percent-encoded may itself contain / ? or #, so
# that what looks like the port of another host is taken for a password unless it is a number.
_USERINFO = re.compile(
    rf"(//|^(?![A-Za-z][A-Za-z0-9+.-]*://))(?:[^/?#]*{_AT}|[^@/?#:]*:(?!\d+[/?#])(?:[^@]*@|.*?{_AT}))", re.DOTALL
)
FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer"})
"""Header fields that belong to the connection; a request that could set them could hide another in itself."""
# No DNS name has these, and nobody means them: percent-escapes and spaces of a host are not decoded (RFC 9110,
# section 4.2.3, and what browsers refuse).
_BAD_HOST = re.compile(r"[\x00-\x20\x7f\"#%/<>?@\[\\\]^`{|}]")
# The name of an interface behind the address, as RFC 6874 and as RFC 4007 write it.
_ZONE = re.compile(r"%(?:25)?[A-Za-z0-9._~-]{1,64}")
_DIGITS = frozenset("0123456789")
_MAX_PORT = 65_535
_MAX_HOST = 253
_MAX_LABEL = 63
_SHOWN = 200
_SEARCHED = 2_048  # of a rejected row; bounds what the masking can cost


class RowError(ValueError):
    """A row can not be a job; carries the kind that its record will have."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        """Describe what is wrong with the row."""
        super().__init__(message)
        self.kind = kind


def make_job(job_id: str, url: str, meta: dict[str, Any] | None = None) -> Job:
    """Build the job for one URL; one that is not usable gives a rejected job, never an exception."""
    match = _PLAIN.fullmatch(url)
    if (
        match is not None
        and len(url) <= MAX_URL_LENGTH
        and len(match[1]) <= _MAX_HOST
        and (match[2] is None or 0 < int(match[2]) <= _MAX_PORT)
    ):
        host = match[1].lower().rstrip(".")
        url = url.partition("#")[0]
        if host[host.rfind(".") + 1] in _DIGITS:
            try:
                meant = _meant(match[1])
            except RowError as error:
                return rejected_job(job_id, url, error, meta)
            if meant != match[1]:
                url = url[: match.start(1)] + meant + url[match.end(1) :]
                host = meant
        return Job(id=job_id, url=url, host=host, meta=meta)
    try:
        address, authorization = _normalise(url)
    except RowError as error:
        return rejected_job(job_id, url, error, meta)
    job = Job(id=job_id, url=str(address), host=(address.raw_host or "").lower().rstrip("."), meta=meta)
    if (commands := COMMANDS.get(address.scheme)) is not None:
        job.method = commands[-1] if address.raw_path.endswith("/") or not address.raw_path else commands[0]
    if authorization is not None:
        job.headers = [authorization]
    return job


def rejected_job(job_id: str, shown: str, error: RowError, meta: dict[str, Any] | None = None) -> Job:
    """Build the job of a row that can not be fetched; it will end as ``skipped`` with this reason."""
    text = shown[:_SEARCHED].encode("utf-8", "backslashreplace").decode()
    text = mask_userinfo(text)
    text = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return Job(id=job_id, url=text, host="", meta=meta, rejected=Rejection(error.kind, str(error)))


def mask_userinfo(text: str) -> str:
    """Return a URL, or what was meant as one, with a user and password in it replaced: ``http://***@host/``."""
    # Only what ends at an @ can match, so that a long text without one behind it costs one look.
    end = max((sign.end() for sign in _AT_SIGN.finditer(text)), default=0)
    return _USERINFO.sub(r"\1***@", text[:end], count=1) + text[end:] if end else text


def may_have_userinfo(text: str) -> bool:
    """Return whether a user and password could be in a text, so that it must not be quoted as it is."""
    return _AT_SIGN.search(text) is not None


def check_headers(headers: Mapping[str, str | list[str]]) -> list[Header]:
    """Return headers that are safe to send; raises RowError for what could split or reframe a request.

    A list has the values of several fields of the same name (RFC 9110, section 5.2).
    """
    found: list[Header] = []
    for name, given in headers.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise RowError(ErrorKind.INVALID_ROW, f"header name {name!r} is not a token (RFC 9110, section 5.1)")
        if name.lower() in FRAMING:
            raise RowError(ErrorKind.INVALID_ROW, f"header {name!r} belongs to the connection and can not be set")
        for value in given if isinstance(given, list) else [given]:
            _check_value(name, value)
            found.append((name, value))
    return found


def _check_value(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise RowError(ErrorKind.INVALID_ROW, f"the value of header {name!r} is not text; put it in quotes")
    if _BAD_IN_VALUE.search(value):
        raise RowError(
            ErrorKind.INVALID_ROW,
            f"the value of header {name!r} contains CR, LF, NUL or another control character",
        )


def check_method(method: str) -> str:
    """Return the method as it is sent; raises RowError if it is not a token."""
    if not _TOKEN.fullmatch(method):
        raise RowError(ErrorKind.INVALID_ROW, f"method {method!r} is not a token (RFC 9110, section 9.1)")
    return method.upper()


def check_text(name: str, value: object) -> str:
    """Return a value that is text and can be written as UTF-8; raises RowError otherwise."""
    if value is None:
        raise RowError(ErrorKind.INVALID_ROW, f"has no {name}")
    if not isinstance(value, str):
        raise RowError(ErrorKind.INVALID_ROW, f"{name} is not text but {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RowError(ErrorKind.INVALID_ROW, f"{name} contains a lone surrogate, which UTF-8 can not write") from error
    return value


def check_priority(value: object) -> int:
    """Return a priority that every queue can store; raises RowError otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MAX_PRIORITY:
        raise RowError(ErrorKind.INVALID_ROW, f"priority is not a whole number of at most {MAX_PRIORITY}")
    return value


def check_timeout(value: object) -> float:
    """Return a timeout in seconds, from a number or from text such as ``10s``; raises RowError otherwise."""
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise RowError(ErrorKind.INVALID_ROW, f"timeout {error}") from error
    if not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
        raise RowError(ErrorKind.INVALID_ROW, "timeout is not more than 0 seconds")
    return float(seconds)


def check_switch(name: str, value: object) -> bool:
    """Return true or false; raises RowError for what only looks like one, as that may be the wrong one."""
    if not isinstance(value, bool):
        raise RowError(ErrorKind.INVALID_ROW, f"{name} is not true or false")
    return value


def check_checksum(value: object) -> str:
    """Return a checksum as ``sha256:9f8...``; digits alone are told apart by their number. Raises RowError."""
    text = check_text("checksum", value).strip().lower()
    named, colon, digits = text.rpartition(":")
    algorithm = _DIGEST_SIZES.get(len(digits))
    if algorithm is None or not _HEX.fullmatch(digits) or (named if colon else algorithm) != algorithm:
        raise RowError(
            ErrorKind.INVALID_ROW,
            f"checksum {text[:_SHOWN]!r} is not one such as sha256:9f86d0...; there are {', '.join(CHECKSUMS)}",
        )
    return f"{algorithm}:{digits}"


def check_meta(value: object) -> dict[str, Any] | None:
    """Return ``meta`` if it can be stored as JSON, so that nothing behind the queue can fail on it."""
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise RowError(ErrorKind.INVALID_ROW, "meta is not an object whose keys are text")
    encode_json("meta", value)
    return value


def encode_json(name: str, value: object) -> bytes:
    """Return a value as JSON; raises RowError if it has none, or nests deeper than ``MAX_DEPTH``."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for node in level if isinstance(node, dict | list | tuple) for item in _items(node)]
        if not level:
            break
    else:
        raise RowError(ErrorKind.INVALID_ROW, f"{name} is nested deeper than {MAX_DEPTH} levels")
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RowError(ErrorKind.INVALID_ROW, f"{name} can not be written as JSON: {error}") from error


def _items(node: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node


def _normalise(url: str) -> tuple[URL, Header | None]:
    """Parse what is not plain: other alphabets, escapes, IPv6, credentials."""
    if not url:
        raise RowError(ErrorKind.INVALID_URL, "is empty")
    if len(url) > MAX_URL_LENGTH:
        raise RowError(ErrorKind.INVALID_URL, f"longer than {MAX_URL_LENGTH} characters")
    if _CONTROL.search(url):
        raise RowError(ErrorKind.INVALID_URL, "contains a space or a control character")
    try:
        parsed = URL(url)
        port = parsed.port
        host = parsed.raw_host
    except (ValueError, UnicodeError) as error:
        # The message may quote the URL; where that could be a password it is not passed on.
        reason = str(error) if str(error) and not may_have_userinfo(url) else "is not a URL"
        raise RowError(ErrorKind.INVALID_URL, reason) from None
    _check_scheme(parsed.scheme, url)
    port = SCHEMES[parsed.scheme] if port is None else port
    if not host or not port:
        raise RowError(ErrorKind.INVALID_URL, "has no host" if not host else "has no usable port")
    check_host(host, url)
    if parsed.scheme in _SOCKETS:
        _check_socket(parsed)
    if (meant := _meant(host)) != host:
        parsed = parsed.with_host(meant)
    if parsed.raw_user is None and parsed.raw_password is None:
        return parsed.with_fragment(None), None
    credentials = unquote_to_bytes(parsed.raw_user or "") + b":" + unquote_to_bytes(parsed.raw_password or "")
    header = ("Authorization", "Basic " + b64encode(credentials).decode("ascii"))
    return parsed.with_user(None).with_fragment(None), header


def _check_scheme(scheme: str, url: str) -> None:
    """Raise RowError for what nothing here fetches."""
    if not scheme or _HOST_AND_PORT.match(url):
        raise RowError(ErrorKind.INVALID_URL, "has no scheme; write http:// or https:// before it")
    if scheme not in SCHEMES:
        known = ", ".join(f"{known}:" for known in SCHEMES)
        raise RowError(ErrorKind.UNSUPPORTED_SCHEME, f"nothing here fetches {scheme}: URLs; it takes {known}")


def _check_socket(parsed: URL) -> None:
    """Raise RowError for what a socket has no use for."""
    if parsed.raw_user is not None or parsed.raw_password is not None:
        raise RowError(ErrorKind.INVALID_URL, f"has a user, which {parsed.scheme}: does not know")
    if parsed.raw_path not in {"", "/"} or parsed.raw_query_string:
        raise RowError(ErrorKind.INVALID_URL, f"has a path or query; write {parsed.scheme}://host:port")


@lru_cache(1024)
def _meant(host: str) -> str:
    """Return the IPv4 address that a host is if it ends in a number, and any other host as it is."""
    if ":" in host or not ends_in_number(host):
        return host
    try:
        return ipv4_address(host)
    except ValueError as error:
        raise RowError(ErrorKind.INVALID_URL, str(error)) from None


def check_host(host: str, url: str) -> None:
    """Raise RowError for what yarl took for the host of a URL, if it can not be one.

    What has a colon in it stood in brackets, and has to be IPv6.
    """
    if ":" in host:
        _check_ipv6(host, url)
        return
    if bad := _BAD_HOST.search(host):
        raise RowError(ErrorKind.INVALID_URL, f"its host contains {bad[0]!r}")
    if len(host) > _MAX_HOST or any(not 0 < len(label) <= _MAX_LABEL for label in host.rstrip(".").split(".")):
        raise RowError(ErrorKind.INVALID_URL, "a label of its host is empty or longer than 63 characters (RFC 1035)")


def _check_ipv6(host: str, url: str) -> None:
    """Raise RowError for what is no IPv6 address; yarl takes anything with a colon for one, and then loses the [ ]."""
    if not url.partition("[")[2].partition("]")[0].isascii():
        raise RowError(ErrorKind.INVALID_URL, "its host in brackets is not ASCII")
    address, percent, zone = host.partition("%")
    try:
        IPv6Address(address)
    except ValueError:
        raise RowError(ErrorKind.INVALID_URL, "its host in brackets is no IPv6 address") from None
    if percent and not _ZONE.fullmatch(percent + zone):
        raise RowError(ErrorKind.INVALID_URL, "the zone of its IPv6 address is no name of an interface (RFC 6874)")
