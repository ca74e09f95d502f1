"""What has been used of budgets, in a small file: windows of a minute and longer go on after a restart.

    {"version": 1, "used": {"host api.example.org": [{"period": 86400, "starts": [[1767225600.0, 17], ...]}]}}

Times are those of the system's clock, in seconds since 1970, at which so many requests had begun. Whose a budget is, is
either a host or a hash of credentials. The file is replaced as a whole, once a second at most: a process that is killed
forgets what it started within its last second. A file that is damaged counts as empty, with a warning.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import structlog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fetcher.engine.hosts.host import Hosts

BUDGETS = "budgets.json"
"""What the file is called."""
_PAUSE = 1.0
_LARGEST = 64 * 1024 * 1024
_At = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]


class Used(msgspec.Struct, frozen=True):
    """Starts within a period of so many seconds: until when, and how many."""

    period: Annotated[float, msgspec.Meta(gt=0, le=1e9)]
    starts: list[tuple[_At, _Count]]


class _Page(msgspec.Struct):
    version: Literal[1] = 1
    used: dict[str, list[Used]] = {}


class Ledger:
    """Keeps the budgets of ``hosts`` in a file. ``load``, then ``keep`` until the end, then ``save``."""

    def __init__(self, path: Path, hosts: Hosts) -> None:
        self._path = path
        self._hosts = hosts
        self._written: dict[str, list[Used]] = {}

    def load(self, now: float) -> None:
        """Have what was used before count; ``now`` is the time of the loop, in which it is counted from here on."""
        self._written = self._read()
        offset = time.time() - now
        for name, windows in self._written.items():
            for window in windows:
                self._hosts.recall(name, window.period, [(at - offset, starts) for at, starts in window.starts], now)

    async def keep(self) -> None:
        """Write what has changed, again and again."""
        while True:
            await asyncio.sleep(_PAUSE)
            used = self._used()
            if used != self._written:
                # A disk that is full is no reason not to fetch; what could not be written is written next time.
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(self._write, used)

    def save(self) -> None:
        """Write what has changed. A disk that takes nothing is told of, and no reason to fail."""
        used = self._used()
        if used == self._written:
            return
        try:
            self._write(used)
        except OSError as error:
            self._warn(f"it can not be written: {error.strerror}")

    def _used(self) -> dict[str, list[Used]]:
        now = asyncio.get_running_loop().time()
        offset = time.time() - now
        return {
            name: [
                Used(period, [(round(at + offset, 1), starts) for at, starts in parts])
                for period, parts in quota.used(now)
            ]
            for name, quota in self._hosts.lasting()
        }

    def _write(self, used: dict[str, list[Used]]) -> None:
        # What others have written meanwhile is kept as long as it counts.
        others = {name: windows for name, windows in self._read().items() if name not in used and _counts(windows)}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        work = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with open(os.open(work, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123  a descriptor
            file.write(msgspec.json.encode(_Page(used=others | used)))
        work.replace(self._path)
        self._written = used

    def _read(self) -> dict[str, list[Used]]:
        try:
            with self._path.open("rb") as file:
                return msgspec.json.decode(file.read(_LARGEST), type=_Page).used
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._warn(f"it can not be read: {error.strerror}")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._warn(f"it is damaged: {error}")
        return {}

    def _warn(self, reason: str) -> None:
        structlog.get_logger().warning("budgets_not_kept", path=str(self._path), reason=reason[:300])


def _counts(windows: list[Used]) -> bool:
    """Tell whether some start of the past still counts."""
    now = time.time()
    return any(window.starts and window.starts[-1][0] + 2 * window.period > now for window in windows)


@contextlib.asynccontextmanager
async def keeping(ledger: Ledger | None) -> AsyncIterator[None]:
    """Have a ledger keep what is used meanwhile, and save it at the end; None keeps nothing."""
    if ledger is None:
        yield
        return
    task = asyncio.create_task(ledger.keep(), name="budgets")
    try:
        yield
    finally:
        await stopped(task)
        ledger.save()


async def stopped(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait for its end."""
    task.cancel()
    await asyncio.wait([task])
