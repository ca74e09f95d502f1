from __future__ import annotations

import builtins
import errno
import inspect
import socket
import ssl
import zlib
from typing import TYPE_CHECKING

import aiodns
import aiodns.error
import aiohttp
import brotli
import pytest
from aiohttp import http_exceptions
from aiohttp.client_reqrep import ConnectionKey

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.bodies.decoding import zstd
from fetcher.transports.http.faults import KINDS, fetch_error, kind_of
from fetcher.transports.http.tracing import HopTrace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

URL = "http://h.test:81/path"
KEY = ConnectionKey("h.test", 81, False, True, None, None, None)


def exceptions_of(module: ModuleType, names: list[str]) -> Iterator[type[BaseException]]:
    for name in names:
        found = getattr(module, name)
        if inspect.isclass(found) and issubclass(found, BaseException):
            yield found


DRIVER_ERRORS = sorted(
    {
        *exceptions_of(aiohttp, list(aiohttp.__all__)),
        *exceptions_of(http_exceptions, dir(http_exceptions)),
        *exceptions_of(aiodns, dir(aiodns)),
        *exceptions_of(aiodns.error, dir(aiodns.error)),
        *exceptions_of(ssl, dir(ssl)),
        *exceptions_of(socket, [name for name in dir(socket) if not name.startswith("_")]),
        *exceptions_of(zlib, dir(zlib)),
        *exceptions_of(brotli, dir(brotli)),
        *exceptions_of(zstd, dir(zstd)),
        *(found for found in vars(builtins).values() if inspect.isclass(found) and issubclass(found, OSError)),
    },
    key=lambda found: found.__name__,
)


def test_the_drivers_were_found():
    assert {aiohttp.ClientError, http_exceptions.LineTooLong, aiodns.error.DNSError} <= set(DRIVER_ERRORS)
    assert {ssl.SSLEOFError, socket.gaierror, zlib.error, brotli.error, zstd.ZstdError} <= set(DRIVER_ERRORS)


@pytest.mark.parametrize("error", DRIVER_ERRORS)
def test_every_error_of_a_driver_has_a_kind(error):
    assert [kind for known, kind in KINDS if issubclass(error, known)], f"{error} is in no row of KINDS"


def test_no_row_is_hidden_by_an_earlier_one():
    for index, (known, _) in enumerate(KINDS):
        assert not [earlier for earlier, _ in KINDS[:index] if issubclass(known, earlier)]


def connecting(**times: float) -> HopTrace:
    trace = HopTrace()
    for name, value in times.items():
        setattr(trace, name, value)
    return trace


def connected() -> HopTrace:
    trace = HopTrace()
    trace.connected = trace.sent = True
    return trace


def dns_error(code: int, text: str) -> aiohttp.ClientConnectorDNSError:
    inner = OSError(None, text)
    inner.__cause__ = aiodns.error.DNSError(code, text)
    return aiohttp.ClientConnectorDNSError(KEY, inner)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (aiodns.error.ARES_ENOTFOUND, ErrorKind.DNS_NOT_FOUND),
        (aiodns.error.ARES_ENODATA, ErrorKind.DNS_NOT_FOUND),
        (aiodns.error.ARES_ESERVFAIL, ErrorKind.DNS_FAILURE),
        (aiodns.error.ARES_ETIMEOUT, ErrorKind.DNS_FAILURE),
        (aiodns.error.ARES_ECONNREFUSED, ErrorKind.DNS_FAILURE),
    ],
)
def test_names(code, kind):
    outer = dns_error(code, "some reason")
    outer.__cause__ = outer.os_error
    error = fetch_error(outer, URL, connecting(dns_started=1.0))
    assert (error.kind, error.sent) == (kind, False)
    assert error.message == "no address for h.test:81: some reason"


@pytest.mark.parametrize(
    ("times", "kind"),
    [
        ({}, ErrorKind.CONNECT_TIMEOUT),
        ({"dns_started": 1.0}, ErrorKind.DNS_FAILURE),
        ({"dns_started": 1.0, "connect_started": 2.0}, ErrorKind.CONNECT_TIMEOUT),
        ({"dns_started": 1.0, "connect_started": 2.0, "tls_started": 3.0}, ErrorKind.TLS_TIMEOUT),
    ],
)
@pytest.mark.parametrize("error", [TimeoutError(), aiohttp.ConnectionTimeoutError("x")])
def test_a_timeout_belongs_to_the_phase_that_was_under_way(times, kind, error):
    found = fetch_error(error, URL, connecting(**times))
    assert (found.kind, found.sent) == (kind, False)
    assert "too long" in found.message


def test_a_timeout_behind_the_connection_is_one_of_reading():
    assert fetch_error(TimeoutError(), URL, connected()).kind is ErrorKind.READ_TIMEOUT


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (errno.ECONNREFUSED, ErrorKind.CONNECT_REFUSED, "h.test:81 refused the connection"),
        (errno.EHOSTUNREACH, ErrorKind.CONNECT_FAILED, "can not connect to h.test:81: no route to host"),
        (errno.EMFILE, ErrorKind.CONNECT_FAILED, "can not connect to h.test:81: too many open files"),
    ],
)
def test_connecting(code, kind, message):
    error = fetch_error(aiohttp.ClientConnectorError(KEY, OSError(code, "x")), URL, connecting())
    assert (error.kind, error.message, error.sent) == (kind, message, False)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (10, ErrorKind.TLS_EXPIRED),
        (18, ErrorKind.TLS_SELF_SIGNED),
        (19, ErrorKind.TLS_UNTRUSTED),
        (20, ErrorKind.TLS_UNTRUSTED),
        (62, ErrorKind.TLS_HOSTNAME),
        (64, ErrorKind.TLS_HOSTNAME),
    ],
)
def test_certificates(code, kind):
    inner = ssl.SSLCertVerificationError(1, "x")
    inner.verify_code, inner.verify_message = code, "some reason"
    error = fetch_error(aiohttp.ClientConnectorCertificateError(KEY, inner), URL, connecting(tls_started=1.0))
    assert (error.kind, error.sent) == (kind, False)
    assert error.message.startswith("the certificate of h.test:81 is not accepted: some reason")
    assert ("intermediate" in error.message) == (code == 20)


def test_a_handshake_with_no_tls_server():
    inner = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1000)")
    inner.reason = "WRONG_VERSION_NUMBER"
    error = fetch_error(aiohttp.ClientConnectorSSLError(KEY, inner), URL, connecting(tls_started=1.0))
    assert (error.kind, error.message) == (
        ErrorKind.TLS_PROTOCOL,
        "no TLS with h.test:81: wrong version number",
    )


def test_a_handshake_that_is_reset():
    inner = aiohttp.ClientConnectorError(KEY, ConnectionResetError(errno.ECONNRESET, "x"))
    error = fetch_error(inner, URL, connecting(tls_started=1.0))
    assert (error.kind, error.sent) == (ErrorKind.CONNECTION_RESET, False)


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ClientOSError(errno.ECONNRESET, "x"),
        ConnectionResetError(errno.ECONNRESET, "x"),
        BrokenPipeError(errno.EPIPE, "x"),
        OSError(errno.ETIMEDOUT, "x"),
        aiohttp.ClientConnectionResetError("Cannot write to closing transport"),
    ],
)
def test_a_broken_connection(error):
    head = fetch_error(error, URL, connected())
    assert head.sent
    assert head.kind in {ErrorKind.CONNECTION_RESET, ErrorKind.READ_TIMEOUT}
    body = fetch_error(error, URL, None, in_body=True, status=200)
    assert body.kind in {ErrorKind.BODY_INCOMPLETE, ErrorKind.READ_TIMEOUT}
    assert body.status == 200


def test_the_parsers_own_error_is_looked_up():
    vague = http_exceptions.HttpProcessingError(code=400, message="Got more than 9 bytes when reading: b'x'.")
    vague.__cause__ = http_exceptions.LineTooLong(b"x", 9)
    error = fetch_error(vague, URL, connected())
    assert (error.kind, error.message) == (
        ErrorKind.HEADERS_TOO_LARGE,
        "a header field is longer than 9 bytes",
    )


def test_a_message_is_one_short_line_of_text():
    error = fetch_error(http_exceptions.BadHttpMessage("a\n\n  b\udcff\n  ^" + "x" * 9999), URL, connected())
    assert "\n" not in error.message
    assert "^" not in error.message
    assert len(error.message) <= 300
    assert error.message.encode()


def test_what_is_a_fetch_error_already_stays_it():
    error = FetchError(ErrorKind.BAD_HTTP, "x")
    assert fetch_error(error, URL, None) is error


def test_the_unknown_is_ours():
    assert kind_of(LookupError("x")) is ErrorKind.INTERNAL
