"""One table from the errors of aiohttp, ssl, sockets and resolvers to our kinds, and what is said of each."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from typing import TYPE_CHECKING

import aiodns.error
import aiohttp
from aiohttp import http_exceptions

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.bodies.decoding import DAMAGED

if TYPE_CHECKING:
    from fetcher.transports.http.tracing import HopTrace

# First match wins, so a class stands before those that it inherits from.
KINDS: list[tuple[type[BaseException], ErrorKind]] = [
    (aiohttp.ClientConnectorDNSError, ErrorKind.DNS_FAILURE),
    (aiodns.error.DNSError, ErrorKind.DNS_FAILURE),
    (aiohttp.ClientConnectorCertificateError, ErrorKind.TLS_UNTRUSTED),
    (aiohttp.ClientSSLError, ErrorKind.TLS_PROTOCOL),
    (aiohttp.ServerFingerprintMismatch, ErrorKind.TLS_UNTRUSTED),
    (aiohttp.ClientConnectorError, ErrorKind.CONNECT_FAILED),
    (aiohttp.ConnectionTimeoutError, ErrorKind.CONNECT_TIMEOUT),
    (aiohttp.ServerTimeoutError, ErrorKind.READ_TIMEOUT),
    (aiohttp.ServerDisconnectedError, ErrorKind.SERVER_DISCONNECTED),
    (aiohttp.ClientPayloadError, ErrorKind.BODY_INCOMPLETE),
    (aiohttp.ClientConnectionResetError, ErrorKind.CONNECTION_RESET),
    (aiohttp.ClientOSError, ErrorKind.CONNECTION_RESET),
    (aiohttp.ClientConnectionError, ErrorKind.CONNECT_FAILED),
    (http_exceptions.LineTooLong, ErrorKind.HEADERS_TOO_LARGE),
    (http_exceptions.ContentLengthError, ErrorKind.BODY_INCOMPLETE),
    (http_exceptions.HttpProcessingError, ErrorKind.BAD_HTTP),
    (aiohttp.WSServerHandshakeError, ErrorKind.BAD_ANSWER),
    (aiohttp.ClientResponseError, ErrorKind.BAD_HTTP),
    (aiohttp.InvalidURL, ErrorKind.INVALID_URL),
    (ssl.SSLError, ErrorKind.TLS_PROTOCOL),
    (socket.gaierror, ErrorKind.DNS_FAILURE),
    (socket.herror, ErrorKind.DNS_FAILURE),
    (TimeoutError, ErrorKind.CONNECT_TIMEOUT),
    (ConnectionError, ErrorKind.CONNECTION_RESET),
    (OSError, ErrorKind.CONNECT_FAILED),
    *((error, ErrorKind.BAD_ENCODING) for error in DAMAGED),
    (aiohttp.WebSocketError, ErrorKind.BAD_ANSWER),
    (aiohttp.WSMessageTypeError, ErrorKind.BAD_ANSWER),
    # Nothing that is done here can raise these: aiohttp's own redirects, uploads, multipart.
    (aiohttp.ClientError, ErrorKind.INTERNAL),
    (aiohttp.EofStream, ErrorKind.INTERNAL),
    (aiohttp.BadContentDispositionHeader, ErrorKind.INTERNAL),
    (aiohttp.BadContentDispositionParam, ErrorKind.INTERNAL),
]

_CERTIFICATE = {
    10: ErrorKind.TLS_EXPIRED,  # X509_V_ERR_CERT_HAS_EXPIRED
    18: ErrorKind.TLS_SELF_SIGNED,  # X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
    62: ErrorKind.TLS_HOSTNAME,  # X509_V_ERR_HOSTNAME_MISMATCH
    64: ErrorKind.TLS_HOSTNAME,  # X509_V_ERR_IP_ADDRESS_MISMATCH
}
# X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY and X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
_ISSUER_UNKNOWN = frozenset({20, 21})
_NO_ISSUER = "; its authority is not known here, or the server does not send an intermediate certificate"
_DNS_NOT_FOUND = frozenset({aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA})
# What a broken connection means depends on whether a body was under way.
_BROKEN = frozenset({ErrorKind.CONNECTION_RESET, ErrorKind.SERVER_DISCONNECTED})
_NO_ADDRESS = frozenset({ErrorKind.DNS_NOT_FOUND, ErrorKind.DNS_FAILURE})
_NO_CONNECTION = frozenset({ErrorKind.CONNECT_FAILED, ErrorKind.TLS_PROTOCOL, ErrorKind.TLS_UNTRUSTED})
_SENTENCES = {
    ErrorKind.CONNECT_REFUSED: "{host} refused the connection",
    ErrorKind.CONNECT_TIMEOUT: "connecting to {host} took too long",
    ErrorKind.TLS_TIMEOUT: "the TLS handshake with {host} took too long",
    ErrorKind.CONNECTION_RESET: "{host} reset the connection",
}
_RECEIVED = re.compile(r"received (\d+) of (\d+) bytes")
_LIMIT = re.compile(r"more than (\d+) bytes")
_NOT_HTTP = "Expected HTTP/"
_TOO_MANY_HEADERS = "Too many headers"
_LONGEST = 300
_WHERE = ("in the middle of a response head", "without an answer")


def fetch_error(
    error: BaseException,
    url: str,
    trace: HopTrace | None,
    *,
    in_body: bool = False,
    status: int | None = None,
) -> FetchError:
    """Return the FetchError for what a driver raised while ``url`` was fetched."""
    if isinstance(error, FetchError):
        return error
    error = _wrapped(error)
    kind = kind_of(error)
    if trace is not None and trace.at_proxy is not None and not trace.connected:
        message = _message(_while_connecting(kind, error, trace), error, trace.at_proxy, in_body=False)
        return FetchError(ErrorKind.PROXY_UNREACHABLE, f"the proxy can not be used: {message}", sent=trace.sent)
    if trace is None or trace.connected:
        kind = _while_talking(kind, error, in_body=in_body)
    else:
        kind = _while_connecting(kind, error, trace)
    message = _message(kind, error, url, in_body=in_body)
    return FetchError(kind, message, sent=trace is None or trace.sent, status=status)


def kind_of(error: BaseException) -> ErrorKind:
    """Look a driver's error up in the table, and look into those that wrap another."""
    if isinstance(error, aiohttp.ClientConnectorDNSError | aiodns.error.DNSError):
        return _dns_kind(error)
    inner = _inner(error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return _CERTIFICATE.get(inner.verify_code, ErrorKind.TLS_UNTRUSTED)
    if isinstance(inner, OSError) and inner.errno == errno.ECONNREFUSED:
        return ErrorKind.CONNECT_REFUSED
    return next((kind for known, kind in KINDS if isinstance(error, known)), ErrorKind.INTERNAL)


def _wrapped(error: BaseException) -> BaseException:
    """Return the parser's own error, of which aiohttp keeps no more than the text."""
    cause = error.__cause__
    vague = type(error) in {http_exceptions.HttpProcessingError, aiohttp.ClientResponseError}
    if vague and isinstance(cause, http_exceptions.HttpProcessingError):
        return _wrapped(cause)
    return error


def _inner(error: BaseException) -> BaseException:
    """Return the error of the socket or of the handshake that a connector's error is about."""
    for name in ("os_error", "certificate_error"):
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException):
            return inner
    return error


def _while_connecting(kind: ErrorKind, error: BaseException, trace: HopTrace) -> ErrorKind:
    in_handshake = trace.tls_started is not None
    if isinstance(_inner(error), TimeoutError):
        if in_handshake:
            return ErrorKind.TLS_TIMEOUT
        resolving = trace.dns_started is not None and trace.connect_started is None
        return ErrorKind.DNS_FAILURE if resolving else ErrorKind.CONNECT_TIMEOUT
    if in_handshake and isinstance(_inner(error), ConnectionError):
        return ErrorKind.CONNECTION_RESET
    return kind


def _while_talking(kind: ErrorKind, error: BaseException, *, in_body: bool) -> ErrorKind:
    if kind is ErrorKind.CONNECT_TIMEOUT:
        return ErrorKind.READ_TIMEOUT
    if kind is ErrorKind.CONNECT_FAILED and isinstance(error, OSError):
        kind = ErrorKind.CONNECTION_RESET
    if in_body:
        return ErrorKind.BODY_INCOMPLETE if kind in _BROKEN else kind
    if kind is ErrorKind.BAD_HTTP and _NOT_HTTP in str(error):
        return ErrorKind.NOT_HTTP
    if kind is ErrorKind.BAD_HTTP and _TOO_MANY_HEADERS in str(error):
        return ErrorKind.HEADERS_TOO_LARGE
    return kind


def _dns_kind(error: BaseException) -> ErrorKind:
    reason = _dns_reason(error)
    not_found = reason is not None and bool(reason.args) and reason.args[0] in _DNS_NOT_FOUND
    return ErrorKind.DNS_NOT_FOUND if not_found else ErrorKind.DNS_FAILURE


def _dns_reason(error: BaseException | None) -> aiodns.error.DNSError | None:
    while error is not None and not isinstance(error, aiodns.error.DNSError):
        error = error.__cause__ or error.__context__
    return error


def _message(kind: ErrorKind, error: BaseException, url: str, *, in_body: bool) -> str:
    host = url.partition("://")[2].partition("/")[0]
    text = _sentence(kind, error, host, in_body=in_body) or _plain(error)
    return text.encode("utf-8", "backslashreplace").decode()[:_LONGEST]


def _sentence(kind: ErrorKind, error: BaseException, host: str, *, in_body: bool) -> str | None:
    if kind in _SENTENCES:
        return _SENTENCES[kind].format(host=host)
    if kind in _NO_ADDRESS:
        return f"no address for {host}: {_dns_text(error)}"
    if kind in _NO_CONNECTION or isinstance(_inner(error), ssl.SSLError):
        return _no_connection(error, host)
    if kind is ErrorKind.SERVER_DISCONNECTED:
        return _disconnected(error)
    return _broken_off(error) if in_body else _bad_head(kind, error)


def _dns_text(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "the name server took too long"
    reason = _dns_reason(error)
    return str(reason.args[-1]) if reason is not None and reason.args else _plain(_inner(error))


def _no_connection(error: BaseException, host: str) -> str:
    inner = _inner(error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        text = f"the certificate of {host} is not accepted: {inner.verify_message}"
        return text + _NO_ISSUER if inner.verify_code in _ISSUER_UNKNOWN else text
    if isinstance(inner, ssl.SSLError):
        return f"no TLS with {host}: {(inner.reason or _plain(inner)).replace('_', ' ').lower()}"
    return f"can not connect to {host}: {_plain(inner)}"


def _disconnected(error: BaseException) -> str:
    message = getattr(error, "message", None)
    # aiohttp's own parser gives what it has of a head, or says nothing of use.
    where = message if message in _WHERE else "without an answer" if isinstance(message, str) else _WHERE[0]
    return f"the server closed the connection {where}"


def _broken_off(error: BaseException) -> str | None:
    text = str(error)
    reset = "was reset" if isinstance(error, OSError) or "ConnectionResetError" in text else "ended"
    if received := _RECEIVED.search(text):
        return f"the connection {reset} after {received[1]} of {received[2]} bytes"
    if "transfer length header" in text:
        return f"the connection {reset} before the last chunk"
    if isinstance(error, OSError):
        return "the connection was reset in the middle of the body"
    return None


def _bad_head(kind: ErrorKind, error: BaseException) -> str | None:
    if kind is ErrorKind.NOT_HTTP:
        data = next((line.strip() for line in str(error).splitlines() if line.strip().startswith("b'")), "")
        return f"the answer is not HTTP; it begins with {data[:100]}"
    if kind is ErrorKind.HEADERS_TOO_LARGE:
        limit = _LIMIT.search(str(error))
        return f"a header field is longer than {limit[1]} bytes" if limit else "too many header fields"
    return None


def _plain(error: BaseException) -> str:
    """Return what a driver says, in one line and without the arrow that it draws below."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    if isinstance(error, http_exceptions.HttpProcessingError | aiohttp.ClientResponseError):
        return " ".join(error.message.replace("^", "").split()) or type(error).__name__
    return " ".join(str(error).split()) or type(error).__name__
