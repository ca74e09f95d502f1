"""Who may use the API: bearer tokens (RFC 6750), and which pages may call it from a browser.

A page of another site that is open in somebody's browser can send requests to this service, also where only loopback
is bound, and by DNS rebinding even read the answers. So the name by which the service was called must be one of its
own (Host), and so must be the page that calls (Origin, Sec-Fetch-Site). There is no CORS.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from fetcher.service.api.problems import ProblemError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web
    from multidict import CIMultiDictProxy

    from fetcher.service.settings import Scope, ServiceSettings, TokenSettings

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_EVERYWHERE = frozenset({"0.0.0.0", "::", ""})  # noqa: S104  what may be bound, but is no address
_DEFAULT_PORTS = frozenset({None, 80, 443})
_OWN_PAGES = frozenset({"same-origin", "none"})
_REALM = 'Bearer realm="fetcher"'

PROBE = "/livez"
"""Tells nothing but that the service is there, so that whatever probes it may call it by any name."""


class Caller(NamedTuple):
    """Who asks, and what for that one may."""

    name: str
    scopes: frozenset[Scope]


ANYBODY = Caller("anybody", frozenset({"read", "write"}))
"""Who asks a service that has no tokens."""


class Names:
    """The names by which a service may be called."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._public = frozenset(name.lower().rstrip(".") for name in settings.hosts)
        self._names = (self._public | _LOOPBACK | {settings.host.lower()}) - _EVERYWHERE

    def check(self, request: web.Request) -> None:
        """Raise ProblemError if the service is called by another name, or by a page of another site."""
        if request.path == PROBE:
            return
        host = self._check_host(request)
        self._check_page(request, host)

    def _check_host(self, request: web.Request) -> str:
        """Return the Host field (RFC 9110, section 7.2)."""
        given = request.headers.getall("Host", [])
        if len(given) != 1:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "there should be one Host field")
        name, _ = _authority(given[0])
        if name is None:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "the Host field should be a name or an address")
        if name not in self._names and name != _bound_address(request):
            raise ProblemError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "the service is not called by this name; names it has are listed in service.hosts",
            )
        return given[0].lower()

    def _check_page(self, request: web.Request, host: str) -> None:
        origins = request.headers.getall("Origin", [])
        if len(origins) > 1 or (origins and not self._is_ours(origins[0], host)):
            raise ProblemError(HTTPStatus.FORBIDDEN, "pages of another origin may not call this service")
        site = request.headers.get("Sec-Fetch-Site", "none")
        if site not in _OWN_PAGES and not _is_navigation(request):
            raise ProblemError(HTTPStatus.FORBIDDEN, "pages of another site may not call this service")

    def _is_ours(self, origin: str, host: str) -> bool:
        """Tell whether an origin is that of our page: what was called, or a name of ours that a proxy stands for."""
        scheme, _, authority = origin.lower().partition("://")
        if scheme not in {"http", "https"}:
            return False
        name, port = _authority(authority)
        return authority == host or (name in self._public and port in _DEFAULT_PORTS)


def _authority(text: str) -> tuple[str | None, int | None]:
    """Return name and port of an authority, no name if it is none."""
    try:
        parts = urlsplit(f"//{text}")
        name, port = parts.hostname, parts.port
    except ValueError:
        return None, None
    if name is None or parts.netloc != text or "@" in text:
        return None, None
    return name.rstrip("."), port


def _bound_address(request: web.Request) -> str | None:
    """Return our address on this connection. No name leads there, so nobody can have a browser take it for theirs."""
    address = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return str(address[0]).removeprefix("::ffff:") if isinstance(address, tuple) else None


def _is_navigation(request: web.Request) -> bool:
    """Tell whether somebody follows a link to one of our pages."""
    return (
        request.method == "GET"
        and request.path in {"/", "/docs"}
        and request.headers.get("Sec-Fetch-Mode") == "navigate"
        and request.headers.get("Sec-Fetch-Dest", "document") == "document"
    )


def authorize(headers: CIMultiDictProxy[str], tokens: Sequence[TokenSettings], scope: Scope | None) -> Caller:
    """Return who asks. Raises ProblemError if that one may not do what takes this scope."""
    if scope is None or not tokens:
        return ANYBODY
    given = headers.getall("Authorization", [])
    if not given:
        raise _unauthorized("this takes a token: Authorization: Bearer ...", _REALM)
    kind, _, token = given[0].partition(" ")
    # All of them are compared, so that the time does not tell which.
    fitting = [known for known in tokens if token.isascii() and known.fits(token.strip())]
    if len(given) > 1 or kind.lower() != "bearer" or not fitting:
        raise _unauthorized("the token is not one of service.tokens", f'{_REALM}, error="invalid_token"')
    caller = Caller(fitting[0].name, frozenset(scope for known in fitting for scope in known.scopes))
    if scope not in caller.scopes:
        raise ProblemError(
            HTTPStatus.FORBIDDEN,
            f"the token has no scope {scope!r}",
            headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope}"'},
        )
    return caller


def _unauthorized(detail: str, challenge: str) -> ProblemError:
    return ProblemError(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": challenge})
