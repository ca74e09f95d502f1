"""Cookies of one batch (RFC 6265), for one hop at a time; off unless ``http.cookies`` is on.

The jar is that of aiohttp, which knows domains, paths, expiry and limits. What it does not know is added between its
parser and itself, so that both speak of the same cookie:

- Which domains belong to many owners: a cookie for such a public suffix (``co.uk``, ``github.io``) would go to all of
  them, and is refused.
- That what came over TLS is not for those who listen elsewhere: each cookie of an https URL counts as ``Secure``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from aiohttp import CookieJar
from aiohttp.abc import AbstractCookieJar
from publicsuffixlist import PublicSuffixList
from yarl import URL

from fetcher.transports.http.origins import host_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from http.cookies import BaseCookie, Morsel

    from fetcher.transports.http.exchange import Answer, Exchange, Hop
    from fetcher.transports.http.tracing import HopTrace

# Of one response, and of one such field: a server that sends more means no good (RFC 6265, section 6.1).
_MOST_FIELDS = 50
_MOST_BYTES = 4096
_SET_COOKIE = "set-cookie"


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


class _Jar(CookieJar):
    """Keeps of the cookies that its parser has read what the host of the response may set."""

    def update_cookies_from_headers(self, headers: Sequence[str], response_url: URL) -> None:
        """Parse fields and keep their cookies, in two steps: that of ``CookieJar`` leaves nothing between them."""
        AbstractCookieJar.update_cookies_from_headers(self, headers, response_url)

    def update_cookies(self, cookies: Iterable[tuple[str, Morsel[str]]], response_url: URL = URL()) -> None:  # type: ignore[override]  # noqa: B008  as in the base class
        """Keep cookies as they were parsed."""
        host = host_of(str(response_url))
        allowed = [(name, morsel) for name, morsel in cookies if _may_set(morsel, host)]
        if response_url.scheme == "https":
            for _, morsel in allowed:
                morsel["secure"] = True
        super().update_cookies(allowed, response_url)


def _may_set(morsel: Morsel[str], host: str) -> bool:
    """Return whether a host may set a cookie (RFC 6265, section 5.3, step 5).

    What is for a public suffix is refused, but from the host of that very name, which keeps it for itself.
    """
    domain = morsel["domain"].strip(".").lower()
    if not domain or not _suffixes().is_public(domain):
        return True
    morsel["domain"] = ""
    return bool(domain == host)


class Cookies:
    """The cookies that servers have set. Bounded by the jar: 180 a domain, 3300 in all; the least used go first."""

    def __init__(self) -> None:
        # An address has cookies like a name has, but only its own.
        self._jar = _Jar(unsafe=True, quote_cookie=False)

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
        accepted = [field for field in fields[:_MOST_FIELDS] if len(field) <= _MOST_BYTES]
        if accepted:
            self._jar.update_cookies_from_headers(accepted, URL(url, encoded=True))


class CookieExchange:
    """Sends the cookies of a batch with each hop, and keeps what the answer sets. A hop's own ``Cookie`` goes first.

    Hops whose certificates are not checked have cookies of their own: whoever answers them is told nothing of the
    others, and can put nothing among them.
    """

    def __init__(self, inner: Exchange) -> None:
        self._inner = inner
        self._verified = Cookies()
        self._unverified = Cookies()

    async def send(self, hop: Hop, trace: HopTrace) -> Answer:
        """Make the hop. Raises FetchError."""
        cookies = self._verified if hop.lane is None or hop.lane.verified else self._unverified
        answer = await self._send(hop, trace, cookies.header(hop.url))
        fields = [value for name, value in answer.headers if name.lower() == _SET_COOKIE]
        if fields:
            cookies.learn(hop.url, fields)
        return answer

    async def _send(self, hop: Hop, trace: HopTrace, header: str | None) -> Answer:
        if header is None or any(name.lower() == "cookie" for name, _ in hop.headers):
            return await self._inner.send(hop, trace)
        # The hop stays the same, as layers below note in it which way it went; its headers are the next hop's.
        kept = hop.headers
        hop.headers = [*kept, ("Cookie", header)]
        try:
            return await self._inner.send(hop, trace)
        finally:
            hop.headers = kept
