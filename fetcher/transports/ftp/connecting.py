"""From nothing to a control connection that is logged in, each step in the kinds of failure that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fetcher.model import Timings
from fetcher.transports.ftp.control import Control
from fetcher.transports.ftp.logins import Login
from fetcher.transports.http.tracing import HopTrace

if TYPE_CHECKING:
    import ssl

    from fetcher.transports.dialing import Dialer
    from fetcher.transports.ftp.logins import Door
    from fetcher.transports.ftp.targets import Target
    from fetcher.transports.watchdog import Watch


class Key(msgspec.Struct, frozen=True):
    """Whose a control connection is: jobs that differ in any of it never use the same one."""

    host: str
    port: int
    tls: str | None
    verified: bool
    login: Login


class Connecting:
    """Opens control connections. ``within`` is how many seconds a connection or a handshake may take."""

    def __init__(self, dialer: Dialer, within: float) -> None:
        self._dialer = dialer
        self._within = within

    def way(self, target: Target, verify: bool | None) -> tuple[ssl.SSLContext, bool]:  # noqa: FBT001  a job has it so
        """Return the TLS context for a job's ``verify``, and whether all is checked that there is to check."""
        context, verified = self._dialer.tls(verify)
        return context, verified or target.tls is None

    async def open(
        self, key: Key, url: str, context: ssl.SSLContext, door: Door, watch: Watch
    ) -> tuple[Control, Timings]:
        """Return a connection that is logged in, and how long it took to open. Raises FetchError."""
        async with door.turn(watch):
            return await self._open(key, url, context, door, watch)

    async def _open(
        self, key: Key, url: str, context: ssl.SSLContext, door: Door, watch: Watch
    ) -> tuple[Control, Timings]:
        trace = HopTrace(watch)
        implicit = context if key.tls == "implicit" else None
        stream = await self._dialer.connect(url, key.host, key.port, trace, within=self._within, tls=implicit)
        stream.verified = key.verified
        control = Control(stream, key, key.host, key.login)
        timings = Timings(trace.dns, trace.connect, trace.tls)
        try:
            control.lend(url, watch)
            if implicit is not None:
                control.secured(implicit)
            await control.greeted()
            if key.tls == "explicit":
                securing = HopTrace(watch)
                await control.secure(context, securing, self._within)
                timings.tls = securing.tls
            await door.enter(control.log_in)
            await control.protect()
        except BaseException:
            control.abort()
            raise
        return control, timings
