"""One table from the errors of aiohttp, ssl, sockets and resolvers to our kinds."""

from __future__ import annotations

import errno
import ssl
from typing import TYPE_CHECKING

import aiodns.error
import aiohttp
from aiohttp import http_exceptions

from fetcher.errors import ErrorKind, FetchError

if TYPE_CHECKING:
    from fetcher.transports.http.tracing import HopTrace

# First match wins, so a class stands before those that it inherits from.
KINDS: list[tuple[type[BaseException], ErrorKind]] = [
    (aiohttp.ClientConnectorDNSError, ErrorKind.DNS_FAILURE),
    (aiohttp.ClientConnectorCertificateError, ErrorKind.TLS_UNTRUSTED),
    (aiohttp.ClientConnectorSSLError, ErrorKind.TLS_PROTOCOL),
    (aiohttp.ServerFingerprintMismatch, ErrorKind.TLS_UNTRUSTED),
    (aiohttp.ClientProxyConnectionError, ErrorKind.CONNECT_FAILED),
    (aiohttp.ClientConnectorError, ErrorKind.CONNECT_FAILED),
    (aiohttp.ConnectionTimeoutError, ErrorKind.CONNECT_TIMEOUT),
    (aiohttp.SocketTimeoutError, ErrorKind.READ_TIMEOUT),
    (aiohttp.ServerTimeoutError, ErrorKind.READ_TIMEOUT),
    (aiohttp.ServerDisconnectedError, ErrorKind.SERVER_DISCONNECTED),
    (aiohttp.ClientPayloadError, ErrorKind.BODY_INCOMPLETE),
    (aiohttp.ClientConnectionResetError, ErrorKind.CONNECTION_RESET),
    (aiohttp.ClientOSError, ErrorKind.CONNECTION_RESET),
    (aiohttp.ClientConnectionError, ErrorKind.CONNECT_FAILED),
    (http_exceptions.LineTooLong, ErrorKind.HEADERS_TOO_LARGE),
    (http_exceptions.ContentLengthError, ErrorKind.BODY_INCOMPLETE),
    (http_exceptions.TransferEncodingError, ErrorKind.BAD_HTTP),
    (http_exceptions.HttpProcessingError, ErrorKind.BAD_HTTP),
    (aiohttp.ClientResponseError, ErrorKind.BAD_HTTP),
    (aiohttp.InvalidURL, ErrorKind.INVALID_URL),
    (aiohttp.ClientError, ErrorKind.INTERNAL),
    (ssl.SSLError, ErrorKind.TLS_PROTOCOL),
    (TimeoutError, ErrorKind.CONNECT_TIMEOUT),
    (ConnectionError, ErrorKind.CONNECTION_RESET),
    (OSError, ErrorKind.CONNECT_FAILED),
]

_CERTIFICATE = {
    10: ErrorKind.TLS_EXPIRED,  # X509_V_ERR_CERT_HAS_EXPIRED
    18: ErrorKind.TLS_SELF_SIGNED,  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
    62: ErrorKind.TLS_HOSTNAME,  # X509_V_ERR_HOSTNAME_MISMATCH
    64: ErrorKind.TLS_HOSTNAME,  # X509_V_ERR_IP_ADDRESS_MISMATCH
}
_DNS_NOT_FOUND = frozenset({aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA})
# What a broken connection means depends on whether a body was under way.
_BROKEN = frozenset({ErrorKind.CONNECTION_RESET, ErrorKind.SERVER_DISCONNECTED})


def fetch_error(
    error: BaseException, url: str, trace: HopTrace | None, *, in_body: bool = False, status: int | None = None
) -> FetchError:
    """Return the FetchError for what a driver raised while ``url`` was fetched."""
    if isinstance(error, FetchError):
        return error
    kind = kind_of(error)
    connected = trace is None or trace.sent
    if not connected:
        kind = _while_connecting(kind, error, trace)
    elif kind is ErrorKind.CONNECT_TIMEOUT:
        kind = ErrorKind.READ_TIMEOUT
    if in_body and kind in _BROKEN:
        kind = ErrorKind.BODY_INCOMPLETE
    if kind is ErrorKind.BAD_HTTP and not in_body and "Expected HTTP/" in str(error):
        kind = ErrorKind.NOT_HTTP
    return FetchError(kind, _message(error, url), sent=connected, status=status)


def kind_of(error: BaseException) -> ErrorKind:
    """Look a driver's error up in the table, and look into those that wrap another."""
    inner = getattr(error, "os_error", None) or getattr(error, "certificate_error", None)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return _dns_kind(error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return _CERTIFICATE.get(inner.verify_code, ErrorKind.TLS_UNTRUSTED)
    if isinstance(error, OSError) and (error.errno or getattr(inner, "errno", None)) == errno.ECONNREFUSED:
        return ErrorKind.CONNECT_REFUSED
    return next((kind for known, kind in KINDS if isinstance(error, known)), ErrorKind.INTERNAL)


def _while_connecting(kind: ErrorKind, error: BaseException, trace: HopTrace | None) -> ErrorKind:
    in_handshake = trace is not None and trace.tls_started is not None
    if isinstance(error, TimeoutError):
        return ErrorKind.TLS_TIMEOUT if in_handshake else ErrorKind.CONNECT_TIMEOUT
    if kind in _BROKEN:
        return ErrorKind.TLS_PROTOCOL if in_handshake else ErrorKind.CONNECT_FAILED
    return kind


def _dns_kind(error: aiohttp.ClientConnectorDNSError) -> ErrorKind:
    cause: BaseException | None = error
    while cause is not None:
        code = cause.args[0] if cause.args else None
        if isinstance(cause, aiodns.error.DNSError) and code in _DNS_NOT_FOUND:
            return ErrorKind.DNS_NOT_FOUND
        cause = cause.__cause__ or cause.__context__
    return ErrorKind.DNS_FAILURE


def _message(error: BaseException, url: str) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, aiohttp.ServerDisconnectedError):
        text = "the server closed the connection without an answer"
    if isinstance(error, TimeoutError):
        text = "timed out"
    host = url.partition("://")[2].partition("/")[0]
    return f"{host}: {text}"[:500]
