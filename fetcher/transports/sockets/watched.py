"""What the transports of sockets have in common: one connection or socket for each job, under the timeouts of all."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from math import inf
from typing import TYPE_CHECKING, Protocol

from fetcher.errors import FetchError
from fetcher.transports.bodies.reading import BodyReader
from fetcher.transports.watchdog import Watched

if TYPE_CHECKING:
    from fetcher.model import Job, Response
    from fetcher.settings import BodySettings, RequestSettings
    from fetcher.transports.dialing import Dialer
    from fetcher.transports.http.session import HttpSession
    from fetcher.transports.watchdog import Watch

METHOD = "SEND"
"""What records have for the method of these jobs."""


class SocketFetch(Protocol):
    """The fetch of one job. ``response`` is there as soon as anything is known of an answer."""

    response: Response | None

    async def run(self, dialer: Dialer, bodies: BodyReader) -> Response:
        """Make it. Raises FetchError if no whole answer could be had."""
        ...

    def told(self, error: BaseException) -> BaseException:
        """Return the error, with what is known of the fetch that it ended."""
        ...

    def close(self) -> None:
        """Close its connection or socket at once, if there is one."""
        ...


class SocketTransport(Watched):
    """To be inherited from: ``begin`` says how one job is fetched."""

    def __init__(self, request: RequestSettings, body: BodySettings, session: HttpSession) -> None:
        self.timeout = request.timeout
        self._body = body
        self._session = session
        super().__init__(request)
        self._means: tuple[Dialer, BodyReader] | None = None
        self._opened = AsyncExitStack()

    def begin(self, job: Job, watch: Watch) -> SocketFetch:
        """Return the fetch of a job, not yet run."""
        raise NotImplementedError

    async def open(self) -> None:
        """Get ready. Raises ConfigError or StateBusyError if bodies can not be stored."""
        stores = self._session.bodies
        store = await stores.open(self._body)
        if store is not None:
            self._opened.push_async_callback(stores.close, store)
        self._means = self._session.dialer(), BodyReader(self._body, store)

    async def close(self) -> None:
        """Stop. Every connection belongs to a fetch, and ends with it. May be called twice."""
        self._watchdog.close()
        self._means = None
        await self._opened.aclose()

    async def fetch(self, job: Job, within: float = inf) -> Response:
        """Fetch one job. Raises FetchError if no whole answer could be had."""
        if self._means is None:
            raise RuntimeError("the transport is not open")
        watch = self._watchdog.start(job.timeout or self.timeout.total, self.timeout.read, job, within)
        fetch = self.begin(job, watch)
        try:
            return await fetch.run(*self._means)
        except (asyncio.CancelledError, FetchError) as error:
            raise fetch.told(watch.judged(error)) from error.__cause__
        finally:
            self._watchdog.stop(watch)
            fetch.close()
