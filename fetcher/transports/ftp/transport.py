"""ftp and ftps: from a job to a response, over control connections that are kept for the next job."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from math import inf
from typing import TYPE_CHECKING

from pydantic import Field

from fetcher.errors import FetchError
from fetcher.settings import BodySettings, RequestSettings, Settings
from fetcher.transports.bodies.reading import BodyReader
from fetcher.transports.ftp.connecting import Connecting
from fetcher.transports.ftp.fetch import FtpFetch, Means
from fetcher.transports.ftp.logins import Logins, LoginSettings
from fetcher.transports.ftp.pool import Pool
from fetcher.transports.ftp.targets import target_of
from fetcher.transports.watchdog import Watched

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Job, Response
    from fetcher.transports.http.session import HttpSession


class FtpConfig(Settings):
    """How ftp and ftps URLs are fetched. Names, guard, certificates and ``keep_alive`` are those of ``http``."""

    logins: list[LoginSettings] = Field(default=[])
    """Users for hosts, of which the first entry that names a host counts; any other host is asked as ``anonymous``."""
    anonymous_password: str = Field(default="anonymous@", pattern=r"^[\x20-\x7e]*$")
    """What is given as the password of ``anonymous``: by custom a mail address to complain to."""

    def build(self, request: RequestSettings, body: BodySettings, session: HttpSession) -> FtpTransport:
        """Return the transport, not yet open; the session is open before it is."""
        return FtpTransport(self, request, body, session)


class FtpTransport(Watched):
    """Fetches ftp and ftps URLs."""

    schemes: Sequence[str] = ("ftp", "ftps")

    def __init__(self, config: FtpConfig, request: RequestSettings, body: BodySettings, session: HttpSession) -> None:
        self._config = config
        self._request = request
        self._body = body
        self._session = session
        super().__init__(request)
        self._means: Means | None = None
        self._opened = AsyncExitStack()

    async def open(self) -> None:
        """Get ready. Raises ConfigError, or StateBusyError, if bodies can not be stored."""
        session, within = self._session, self._request.timeout.connect
        store = await session.bodies.open(self._body)
        if store is not None:
            self._opened.push_async_callback(session.bodies.close, store)
        pool = Pool(session.keep_alive)
        self._opened.callback(pool.close)
        dialer = session.dialer()
        self._opened.callback(dialer.keeps(pool.make_room))
        self._means = Means(
            dialer,
            Connecting(dialer, within),
            pool,
            Logins(self._config.logins, self._config.anonymous_password),
            BodyReader(self._body, store),
            store,
            self._body.max_size,
            within,
        )

    async def close(self) -> None:
        """Close every connection. May be called twice."""
        self._watchdog.close()
        self._means = None
        await self._opened.aclose()

    async def fetch(self, job: Job, within: float = inf) -> Response:
        """Fetch one job. Raises FetchError if no whole file or listing could be had."""
        if self._means is None:
            raise RuntimeError("the transport is not open")
        target, timeout = target_of(job), self._request.timeout
        watch = self._watchdog.start(job.timeout or timeout.total, timeout.read, job, within)
        fetch = FtpFetch(self._means, job, target, watch)
        try:
            return await fetch.run()
        except (asyncio.CancelledError, FetchError) as error:
            raise fetch.told(watch.judged(error)) from error.__cause__
        finally:
            self._watchdog.stop(watch)
