"""Tokens of OAuth 2.0: got once for all who wait, by the client's own credentials or by a refresh token (RFC 6749).

A token endpoint that is down for a while puts jobs off and fails none: `FetchError.postpone`. One that refuses, or that
is down for longer than the ``patience`` of its entry, fails them with kind ``auth_failed``.

Who waits for a token began long ago by the count of a budget, or of a rate. If all who waited left at once when it
comes, that would be as many requests too many. So one of them goes on, and the others begin anew, as their turn comes.
While the old token is good nobody waits at all.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import msgspec

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.credentials.tokens import Token, TokenError
from fetcher.transports.http.redirects import RedirectedHop
from fetcher.transports.watchdog import Phase

if TYPE_CHECKING:
    from fetcher.transports.http.credentials.keeping import KeptToken
    from fetcher.transports.http.credentials.tokens import TokenEndpoint
    from fetcher.transports.http.exchange import Answer, Hop
    from fetcher.transports.http.tracing import HopTrace

# A token is replaced this long before it ends, or earlier in its life if that is short.
_MARGIN = 60.0
_MARGIN_SHARE = 0.1
# A younger token is not replaced for a 401: what the new one would be refused for, this one is.
_YOUNG = 5.0
# Less would have each request get one of its own.
_SHORTEST = 1.0
# An endpoint that is down is asked again after this long, then twice as long, and so on.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
# Whoever has waited for somebody else's token comes again after this long, in which nothing has to happen.
_AGAIN = 0.01
# What is wrong with refused credentials may be mended at any time.
_PAUSE_IF_REFUSED = 30.0
# A refresh token that may be on its way is waited for at the end: the one before it may be worth nothing any more.
_PARTING = 5.0


class Grant(Protocol):
    """What a token is asked for with."""

    async def open(self) -> None:
        """Get ready. Raises ConfigError or StateError."""

    def form(self) -> dict[str, str]:
        """Return the fields to ask with."""
        ...

    async def learn(self, token: Token) -> None:
        """Take into account what came with a token, before that is used. Raises OSError; may be called again."""

    def close(self) -> None:
        """Let go of what is held."""

    @property
    def rotates(self) -> bool:
        """Tell whether an answer may hold what the next token takes."""
        ...


class ByClient:
    """The credentials of the client (RFC 6749, section 4.4). A refresh token that comes along is not needed."""

    rotates = False

    def __init__(self, parameters: dict[str, str]) -> None:
        self._form = {"grant_type": "client_credentials"} | parameters

    async def open(self) -> None:
        """Nothing to do."""

    def form(self) -> dict[str, str]:
        """Return the fields to ask with."""
        return self._form

    async def learn(self, token: Token) -> None:
        """Nothing to learn."""

    def close(self) -> None:
        """Nothing is held."""


class ByRefreshToken:
    """A refresh token (RFC 6749, section 6), which each answer may replace, in ``keep`` too if there is one."""

    rotates = True

    def __init__(self, first: str, keep: KeptToken | None, parameters: dict[str, str]) -> None:
        self._token = first
        self._keep = keep
        self._parameters = {"grant_type": "refresh_token"} | parameters

    async def open(self) -> None:
        """Go on with the token that is kept, if there is one. Raises ConfigError or StateError."""
        if self._keep is not None:
            kept = await asyncio.to_thread(self._keep.open)
            self._token = kept or self._token

    def form(self) -> dict[str, str]:
        """Return the fields to ask with."""
        return self._parameters | {"refresh_token": self._token}

    async def learn(self, token: Token) -> None:
        """Use the refresh token of an answer from now on, and keep it. Raises OSError."""
        fresh = token.refresh_token
        if fresh and fresh != self._token:
            if self._keep is not None:
                await asyncio.to_thread(self._keep.write, fresh)
            self._token = fresh

    def close(self) -> None:
        """Let others use what is kept."""
        if self._keep is not None:
            self._keep.close()


class _Got(msgspec.Struct):
    """A token, and when it came."""

    token: Token
    at: float

    @property
    def lasts(self) -> float:
        """For how many seconds from then on it is good."""
        said = self.token.lifetime
        return float("inf") if said is None else max(_SHORTEST, said)


class OAuthScheme:
    """Gets a token when the first request needs one, and another before it ends or when it is refused.

    However many requests wait, the token endpoint is asked once. If it gives none it is left alone for a pause, in
    which nobody has to wait to be told so. ``patience``: for how many seconds jobs are put off rather than failed.
    """

    def __init__(self, endpoint: TokenEndpoint, grant: Grant, patience: float) -> None:
        self._endpoint = endpoint
        self._grant = grant
        self._patience = patience
        self._got: _Got | None = None
        self._value: str | None = None
        self._renewed_at = 0.0
        # What came and could not be kept yet.
        self._unkept: _Got | None = None
        self._getting: asyncio.Task[str] | None = None
        # Whether somebody who waited for it has gone on.
        self._taken = False
        self._failure: TokenError | None = None
        self._failures = 0
        self._down_since = 0.0
        self._paused_until = 0.0

    async def open(self) -> None:
        """Get ready. Raises ConfigError or StateError if a refresh token can not be kept."""
        await self._grant.open()

    async def authorization(self, hop: Hop, trace: HopTrace) -> str | None:
        """Return the token as RFC 6750 has it sent, after waiting for it if there is none that is good.

        Raises FetchError, for all who wait but the first with ``postpone``.
        """
        now = monotonic()
        if self._value is not None and now < self._renewed_at:
            return self._value
        getting = self._renewal(now)
        if self._value is not None and self._is_good(now):
            return self._value
        if getting is None:
            raise self._refusal(self._failure, now)
        try:
            # Nobody is charged for the wait, and whoever gives up must not take the token from the others who wait.
            with trace.hold(Phase.TOKEN):
                value = await asyncio.shield(getting)
        except TokenError as error:
            raise self._refusal(error, monotonic()) from None
        # What has been sent somewhere and was redirected here can not begin anew.
        if not self._taken or isinstance(hop, RedirectedHop):
            self._taken = True
            return value
        raise FetchError(ErrorKind.AUTH_FAILED, "waited for a token", sent=False, postpone=_AGAIN)

    def _renewal(self, now: float) -> asyncio.Task[str] | None:
        """Return what gets a token, None as long as the token endpoint is left alone."""
        if self._getting is None and (self._failure is None or now >= self._paused_until):
            self._getting = asyncio.create_task(self._get(), name="token")
            self._getting.add_done_callback(self._ended)
            self._taken = False
        return self._getting

    def _is_good(self, now: float) -> bool:
        return self._got is not None and now < self._got.at + self._got.lasts

    def refused(self, hop: Hop, sent: str | None, answer: Answer) -> bool:  # noqa: ARG002
        """Throw a token away that was refused; one that is younger than the request was, or just got, is kept."""
        if sent != self._value:
            return True
        if self._got is not None and monotonic() - self._got.at < _YOUNG:
            return False
        self._got = self._value = None
        return True

    async def close(self) -> None:
        """Stop getting a token, unless its end is near and what comes with it would be lost."""
        getting = self._getting
        if getting is not None:
            if self._grant.rotates:
                await asyncio.wait([getting], timeout=_PARTING)
            getting.cancel()
            with suppress(asyncio.CancelledError, TokenError):
                await getting
        self._grant.close()

    def _ended(self, task: asyncio.Task[str]) -> None:
        self._getting = None
        if not task.cancelled():
            task.exception()  # that nobody waits any more is no news

    async def _get(self) -> str:
        try:
            got = self._unkept = self._unkept or _Got(await self._endpoint.ask(self._grant.form()), monotonic())
            await self._learn(got.token)
        except TokenError as error:
            self._failed(error, monotonic())
            raise
        self._unkept = self._failure = None
        self._failures = 0
        self._got = got
        self._renewed_at = got.at + got.lasts - min(_MARGIN, got.lasts * _MARGIN_SHARE)
        self._value = f"Bearer {got.token.access_token}"
        return self._value

    async def _learn(self, token: Token) -> None:
        try:
            await self._grant.learn(token)
        except OSError as error:
            raise TokenError(f"a new refresh token can not be kept: {error.strerror}", passing=True) from error

    def _failed(self, error: TokenError, now: float) -> None:
        """Decide for how long nobody asks again."""
        self._failure = error
        if not error.passing:
            self._failures = 0
            self._paused_until = now + _PAUSE_IF_REFUSED
            return
        if not self._failures:
            self._down_since = now
        # 2**n with a large n would overflow a float long before it matters.
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures, 30))
        self._failures += 1
        pause = max(pause, error.retry_after or 0.0)
        left = self._down_since + self._patience - now
        # The last time to ask is when the patience ends.
        self._paused_until = now + (min(pause, left) if left > 0 else min(pause, _LONGEST_PAUSE))

    def _refusal(self, error: TokenError | None, now: float) -> FetchError:
        """Return why there is no token: for now, or (without ``postpone``) for this job."""
        message, postpone = "there is no token" if error is None else error.message, None
        if error is not None and error.passing:
            if now < self._down_since + self._patience:
                postpone = max(0.0, self._paused_until - now)
            else:
                message = f"{message}, for longer than the patience of {self._patience:g} s"
        return FetchError(ErrorKind.AUTH_FAILED, message, sent=False, postpone=postpone)
