"""Cookies of one batch (RFC 6265), for one hop at a time; off unless ``http.cookies`` is on.

The jar is that of aiohttp, which knows domains, paths, expiry and limits. What it does not know is which domains belong
to many owners: a cookie for such a public suffix (``co.uk``, ``github.io``) would go to all of them, and is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import CookieJar
from publicsuffixlist import PublicSuffixList
from yarl import URL

from fetcher.transports.http.origins import host_of

if TYPE_CHECKING:
    from http.cookies import BaseCookie

    from fetcher.transports.http.exchange import Answer, Exchange, Hop
    from fetcher.transports.http.tracing import HopTrace

# Of one response, and of one such field: a server that sends more means no good (RFC 6265, section 6.1).
_MOST_FIELDS = 50
_MOST_BYTES = 4096
_SET_COOKIE = "set-cookie"


class Cookies:
    """The cookies that servers have set. Bounded by the jar: 180 a domain, 3300 in all; the least used go first."""

    def __init__(self) -> None:
        # An address has cookies like a name has, but only its own.
        self._jar = CookieJar(unsafe=True, quote_cookie=False)
        self._suffixes = PublicSuffixList()

    def __len__(self) -> int:
        return len(self._jar)

    def header(self, url: str) -> str | None:
        """Return the value of ``Cookie`` for a request; None if there are none."""
        if not len(self._jar):
            return None
        found: BaseCookie[str] = self._jar.filter_cookies(URL(url, encoded=True))
        return "; ".join(f"{name}={morsel.coded_value}" for name, morsel in found.items()) or None

    def learn(self, url: str, fields: list[str]) -> None:
        """Keep what the ``Set-Cookie`` fields of a response set, as far as its host may."""
        host = host_of(url)
        accepted = [field for field in fields[:_MOST_FIELDS] if len(field) <= _MOST_BYTES]
        allowed = [field for field in (self._allowed(field, host) for field in accepted) if field is not None]
        if allowed:
            self._jar.update_cookies_from_headers(allowed, URL(url, encoded=True))

    def _allowed(self, field: str, host: str) -> str | None:
        """Return what a host may set of a cookie, None if nothing (RFC 6265, section 5.3, step 5).

        What is for a public suffix is refused, but from the host of that very name, which keeps it for itself.
        """
        domain = _domain(field)
        if not domain or not self._suffixes.is_public(domain):
            return field
        return _without_domain(field) if domain == host else None


def _domain(field: str) -> str:
    """Return the last Domain attribute, which is the one that counts (RFC 6265, section 5.3)."""
    found = ""
    for attribute in field.split(";")[1:]:
        name, _, value = attribute.partition("=")
        if name.strip().lower() == "domain":
            found = value.strip().strip('"').removeprefix(".").rstrip(".").lower()
    return found


def _without_domain(field: str) -> str:
    pair, *attributes = field.split(";")
    kept = [one for one in attributes if one.partition("=")[0].strip().lower() != "domain"]
    return ";".join([pair, *kept])


class CookieExchange:
    """Sends the cookies of a batch with each hop, and keeps what the answer sets. A hop's own ``Cookie`` goes first."""

    def __init__(self, inner: Exchange) -> None:
        self._inner = inner
        self._cookies = Cookies()

    async def send(self, hop: Hop, trace: HopTrace) -> Answer:
        """Make the hop. Raises FetchError."""
        answer = await self._send(hop, trace)
        fields = [value for name, value in answer.headers if name.lower() == _SET_COOKIE]
        if fields:
            self._cookies.learn(hop.url, fields)
        return answer

    async def _send(self, hop: Hop, trace: HopTrace) -> Answer:
        header = self._cookies.header(hop.url)
        if header is None or any(name.lower() == "cookie" for name, _ in hop.headers):
            return await self._inner.send(hop, trace)
        # The hop stays the same, as layers below note in it which way it went; its headers are the next hop's.
        kept = hop.headers
        hop.headers = [*kept, ("Cookie", header)]
        try:
            return await self._inner.send(hop, trace)
        finally:
            hop.headers = kept
