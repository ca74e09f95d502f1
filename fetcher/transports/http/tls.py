"""TLS: whom a connection trusts, what it shows of itself, and how it has to end.

A certificate is always checked unless a batch or a job says otherwise, and then only for its own connections:
they are in a lane of their own. Contexts are made once; making one reads and parses the whole trust store.
"""

from __future__ import annotations

import ssl
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator
from pydantic_core import PydanticCustomError

from fetcher.errors import ConfigError
from fetcher.settings import Secret, Settings
from fetcher.transports.http.exchange import Lane
from fetcher.transports.http.tracing import TracedContext

if TYPE_CHECKING:
    from collections.abc import Sequence

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def _as_written(value: object) -> object:
    """Take ``1.3`` without quotes, which YAML reads as a number, for what was meant."""
    return str(value) if isinstance(value, float) else value


class TlsSettings(Settings):
    """How the other end of a TLS connection is checked, and what it is shown."""

    ca_file: str | None = None
    """A PEM file of certificate authorities to trust instead of the system's."""
    client_cert: str | None = None
    """A PEM file with a certificate, and what is between it and its authority, to show to servers that ask for one."""
    client_key: str | None = None
    """A PEM file with the key of ``client_cert``, unless it is in the same file."""
    client_key_password: Secret | None = None
    """What the key is encrypted with."""
    minimum_version: Annotated[
        Literal["1.2", "1.3"], BeforeValidator(_as_written, json_schema_input_type=Literal["1.2", "1.3"])
    ] = "1.2"
    verify: bool = True
    """``false`` takes any certificate: whoever is on the way can read and change everything. A job's own
    ``verify`` goes before it. The record says so (``verified: false``)."""

    @model_validator(mode="after")
    def _key_has_a_certificate(self) -> Self:
        for name in ("client_key", "client_key_password"):
            if getattr(self, name) is not None and self.client_cert is None:
                words = f"has a {name} but no client_cert; a key is of no use without its certificate"
                raise PydanticCustomError("key_without_certificate", "{words}", {"words": words})
        return self


class TlsContexts:
    """The contexts of a transport, each made when it is first needed.

    ``alpn`` is what the other end is told that will be spoken (RFC 7301). Raises ConfigError where a context is first
    asked for, if a file of the settings can not be used.
    """

    def __init__(self, settings: TlsSettings, alpn: Sequence[str] = ("http/1.1",)) -> None:
        self._settings = settings
        self._alpn = alpn

    @cached_property
    def usual(self) -> ssl.SSLContext:
        """For all but the exceptions: checks every certificate."""
        return self._with_client_cert(self._checking())

    @cached_property
    def proxy(self) -> ssl.SSLContext:
        """For connections to proxies: checks, whatever is said of origins, and shows no client certificate."""
        return self._checking()

    @cached_property
    def unverified(self) -> Lane:
        """The lane of connections that take any certificate."""
        context = _context(self._settings, self._alpn)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return Lane(tls=self._with_client_cert(context), verified=False)

    def lane(self, verify: bool | None) -> Lane | None:  # noqa: FBT001  a job has it so
        """Return the lane for a job's ``verify``; None is the usual one."""
        if verify is None:
            verify = self._settings.verify
        return None if verify else self.unverified

    def _checking(self) -> ssl.SSLContext:
        context = _context(self._settings, self._alpn)
        name = self._settings.ca_file
        if name is None:
            context.load_default_certs()
            return context
        try:
            context.load_verify_locations(name)
        except OSError as error:
            raise ConfigError(f"http.tls.ca_file {name!r} can not be used: {_reason(error)}") from error
        return context

    def _with_client_cert(self, context: ssl.SSLContext) -> ssl.SSLContext:
        settings = self._settings
        if settings.client_cert is None:
            return context
        secret = settings.client_key_password
        # An answer of some kind, or OpenSSL asks for the password on the terminal.
        password = "" if secret is None else secret.get_secret_value()
        try:
            context.load_cert_chain(settings.client_cert, settings.client_key, lambda: password)
        except (OSError, ValueError) as error:
            files = f"http.tls.client_cert {settings.client_cert!r}"
            files += "" if settings.client_key is None else f" with client_key {settings.client_key!r}"
            raise ConfigError(f"{files} can not be used: {_reason(error)}") from error
        return context


def _context(settings: TlsSettings, alpn: Sequence[str]) -> TracedContext:
    context = TracedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = _VERSIONS[settings.minimum_version]
    if alpn:
        context.set_alpn_protocols(alpn)
    return context


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        # Of a file that is no PEM, and of a wrong password, OpenSSL says only where in itself it found out.
        reason = (error.reason or "it is not PEM, or the password of its key is wrong").replace("_", " ").lower()
        return reason if error.reason != "NO_CERTIFICATE_OR_CRL_FOUND" else "there is no certificate in it"
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror.lower() if strerror else str(error)
