"""As whom a server is asked, and what it said to that.

    user and password of the URL -> the first entry of ``ftp.logins`` for the host -> anonymous

Servers lock accounts after a few wrong passwords. So all who would log in by an account wait for the outcome of the
first, before they connect; and what was refused once is not tried again in this run. ``anonymous`` can not be locked:
nobody waits for it, and no refusal is remembered. An account that was let in before and no longer is meets a server
that has enough connections: many say so by the same code.
"""

from __future__ import annotations

import asyncio
import binascii
import re
from base64 import b64decode
from collections import OrderedDict
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

import msgspec
from pydantic import AfterValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from fetcher.errors import ErrorKind, FetchError
from fetcher.settings import Secret, Settings
from fetcher.transports.ftp.targets import check_login
from fetcher.transports.watchdog import Phase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from fetcher.model import Header
    from fetcher.transports.ftp.connecting import Key
    from fetcher.transports.ftp.targets import Target
    from fetcher.transports.watchdog import Watch

_MOST_DOORS = 4096
_A_NAME = 3
_CONTROL = re.compile(r"[\x00-\x1f\x7f\xff]")


def _fits_a_command(value: str | SecretStr) -> str | SecretStr:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if _CONTROL.search(text):
        raise PydanticCustomError("control", "should have no control characters")
    return value


class LoginSettings(Settings):
    """A user, and the hosts that it is for."""

    hosts: list[str] = Field(min_length=1)
    """Names or patterns (``*.example.org``), with a port (``example.org:2121``) or for all ports. The first entry that
    matches counts; a user in a URL goes before it."""
    username: Annotated[str, AfterValidator(_fits_a_command)] = Field(min_length=1)
    """The name of the user."""
    password: Annotated[Secret, AfterValidator(_fits_a_command)]
    """The password. With ``ftp:`` everybody on the way can read it; ``ftps:`` hides it."""


class Login(msgspec.Struct, frozen=True):
    """A user and a password. Neither is in its repr."""

    username: bytes
    password: bytes
    anonymous: bool = False

    def __repr__(self) -> str:
        return "Login(***)"

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """What no message may have. A name of a letter or two is in every word."""
        return () if self.anonymous else (self.password, self.username if len(self.username) >= _A_NAME else b"")


class Door(msgspec.Struct):
    """What a server says to one account. ``refused`` is how it was turned away, if it was.

    ``open`` to everybody: the account can not be locked.
    """

    open: bool = False
    lock: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    accepted: bool = False
    refused: str | None = None

    def check(self) -> None:
        """Raise FetchError if this account was turned away before."""
        if self.refused is not None:
            message = f"{self.refused}; it was not tried again, as servers lock accounts for that"
            raise FetchError(ErrorKind.AUTH_FAILED, message, sent=False)

    @asynccontextmanager
    async def turn(self, watch: Watch) -> AsyncIterator[None]:
        """Connect and ``enter`` within this: alone, if nobody has got in yet. Raises FetchError if none ever will.

        To wait for others, who have time limits of their own, takes no time of the watched fetch.
        """
        self.check()
        alone = not (self.open or self.accepted)
        if alone:
            watch.hold(Phase.PREPARING)
            try:
                await self.lock.acquire()
            finally:
                watch.release()
        try:
            self.check()
            if alone and self.accepted:
                self.lock.release()
                alone = False
            yield
        finally:
            if alone:
                self.lock.release()

    async def enter(self, log_in: Callable[[], Awaitable[None]]) -> None:
        """Log in, in one's ``turn``. Raises FetchError."""
        try:
            await log_in()
        except FetchError as error:
            if error.kind is not ErrorKind.AUTH_FAILED:
                raise
            if not self.accepted:
                self.refused = None if self.open else error.message
                raise
            message = f"{error.message}; this login was accepted before, so the server has too many of them"
            raise FetchError(ErrorKind.FTP_4XX, message) from error
        self.accepted = True


class Logins:
    """Knows as whom each server is asked, and what it said."""

    def __init__(self, settings: Sequence[LoginSettings], anonymous_password: str) -> None:
        self._entries = [(entry.hosts, _login(entry)) for entry in settings]
        self._anonymous = Login(b"anonymous", anonymous_password.encode(), anonymous=True)
        self._doors: OrderedDict[object, Door] = OrderedDict()

    def of(self, headers: Sequence[Header], target: Target) -> Login:
        """Return as whom to ask. Raises FetchError for credentials that FTP does not know."""
        for name, value in headers:
            if name.lower() == "authorization":
                return _from_basic(value)
        address = f"{target.host}:{target.port}"
        for hosts, login in self._entries:
            if any(fnmatchcase(target.host, host) or fnmatchcase(address, host) for host in map(str.lower, hosts)):
                return login
        return self._anonymous

    def door(self, key: Key) -> Door:
        """Return what is known of an account: the same for the same key, as long as it is not too long ago."""
        door = self._doors.get(key)
        if door is None:
            door = self._doors[key] = Door(open=key.login.anonymous)
            if len(self._doors) > _MOST_DOORS:
                self._doors.popitem(last=False)
        self._doors.move_to_end(key)
        return door


def _login(entry: LoginSettings) -> Login:
    return Login(entry.username.encode(), entry.password.get_secret_value().encode())


def _from_basic(value: str) -> Login:
    """Read an Authorization field, which is where intake puts what was in the URL (RFC 7617)."""
    scheme, _, encoded = value.partition(" ")
    try:
        user, colon, password = b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        colon = b""
    if scheme.lower() != "basic" or not colon:
        message = "FTP knows users and passwords alone: write them into the URL, ftp.logins, or Basic (RFC 7617)"
        raise FetchError(ErrorKind.INVALID_ROW, message, sent=False)
    check_login(user)
    check_login(password)
    return Login(user, password)
