"""udp: to be built."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from fetcher.errors import ErrorKind, FetchError
from fetcher.settings import BodySettings, RequestSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Job, Response
    from fetcher.transports.http.session import HttpSession


class UdpConfig(Settings):
    """How udp URLs are fetched."""

    def build(self, request: RequestSettings, body: BodySettings, session: HttpSession) -> UdpTransport:
        """Return the transport, not yet open; the session is open before it is."""
        return UdpTransport(self, request, body, session)


class UdpTransport:
    """Fetches udp URLs."""

    schemes: Sequence[str] = ("udp",)

    def __init__(self, config: UdpConfig, request: RequestSettings, body: BodySettings, session: HttpSession) -> None:
        self._config = config
        self._request = request
        self._body = body
        self._session = session

    async def open(self) -> None:
        """Get ready."""

    async def fetch(self, job: Job, within: float = inf) -> Response:
        """Fetch one job. Raises FetchError."""
        raise FetchError(ErrorKind.UNSUPPORTED_SCHEME, "not built")

    async def close(self) -> None:
        """Close every connection. May be called twice."""
