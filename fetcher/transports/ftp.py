"""ftp and ftps: to be built."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from fetcher.errors import ErrorKind, FetchError
from fetcher.settings import BodySettings, RequestSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Job, Response
    from fetcher.transports.http.session import HttpSession


class FtpConfig(Settings):
    """How ftp and ftps URLs are fetched."""

    def build(self, request: RequestSettings, body: BodySettings, session: HttpSession) -> FtpTransport:
        """Return the transport, not yet open; the session is open before it is."""
        return FtpTransport(self, request, body, session)


class FtpTransport:
    """Fetches ftp and ftps URLs."""

    schemes: Sequence[str] = ("ftp", "ftps")

    def __init__(self, config: FtpConfig, request: RequestSettings, body: BodySettings, session: HttpSession) -> None:
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
