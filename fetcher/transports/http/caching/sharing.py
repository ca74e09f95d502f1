"""Whose answers may be kept for others, and who may be given what others were answered (RFC 9111, section 3.5).

What a server tells one user is not for another, and what anybody can have forged is not for those who check. A cache
that knows bodies by their URL can not keep such answers apart. So it has nothing to do with them.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from fetcher.transports.http.exchange import USUAL_LANE
from fetcher.transports.http.origins import host_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fetcher.transports.http.exchange import Hop


class Sharing:
    """Tells which hops are the same whoever makes them.

    ``private``: headers, in lower case, by which an answer may be for one user alone. ``hosts``: names or patterns of
    those that get credentials below this; so do all if there are ``cookies``, and all https if there is a
    ``certificate`` to show.
    """

    def __init__(
        self, private: frozenset[str], hosts: Iterable[str] = (), *, cookies: bool = False, certificate: bool = False
    ) -> None:
        self._private = private
        self._patterns = frozenset(_without_port(host.lower()) for host in hosts)
        self._cookies = cookies
        self._certificate = certificate

    def allows(self, hop: Hop) -> bool:
        """Tell whether the answer to a hop may be kept, and may be one that was kept."""
        if self._cookies or not is_verified(hop) or (self._certificate and hop.url.startswith("https:")):
            return False
        if not self._private.isdisjoint(name.lower() for name, _ in hop.headers):
            return False
        if not self._patterns:
            return True
        host = host_of(hop.url)
        return not any(fnmatchcase(host, pattern) for pattern in self._patterns)


def is_verified(hop: Hop) -> bool:
    """Tell whether certificates are checked where a hop goes."""
    return (hop.lane or USUAL_LANE).verified


def _without_port(host: str) -> str:
    """Return a host for all of its ports: rather one answer too few is kept than one too many."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host
