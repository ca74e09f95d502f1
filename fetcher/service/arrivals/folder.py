"""Makes batches of files that are put into a folder: configs, and files of URLs.

A file is taken when it is whole: nothing of it has changed for a second, and nobody writes it as far as can be told.
Whoever needs more than that writes it under a hidden name, or one that ends in .tmp or .part, and renames it. What
becomes of it, inbox.py says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog

from fetcher.config import ConfigProblems
from fetcher.errors import FetcherError, StateBusyError, StateError, UnknownBatchError
from fetcher.service.arrivals.inbox import Claim, Inbox, Signature
from fetcher.service.batches.texts import read_config, renamed
from fetcher.service.batches.workspace import upload_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from fetcher.service.keeper import Keeper
    from fetcher.service.settings import ServiceConfig

SETTLED = 1.0
"""For so many seconds nothing of a file has changed that is whole."""
LOOK = 0.25
"""Seconds between two looks while one is not."""
RESCAN = 5.0
"""Seconds between two looks when nobody tells of a change: on network volumes nobody does."""
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_CONFIGS = (".yaml", ".yml", ".json")
_URLS = re.compile(r"\.((csv|tsv|jsonl|ndjson|txt)(\.(gz|zst))?|parquet)$", re.IGNORECASE)
_PACKED = re.compile(r"\.(gz|zst)$", re.IGNORECASE)
_KINDS = "a config (.yaml, .json) or a file of URLs (.txt, .csv, .tsv, .jsonl, each also .gz or .zst, .parquet)"

log = structlog.get_logger()


class _Seen(NamedTuple):
    signature: Signature
    since: float


class _Content(NamedTuple):
    """What a file comes to: a config, what messages call it, and a file of URLs for it."""

    text: str
    label: str
    upload: Path | None = None


class Folder:
    """``run`` has files become batches until cancelled. ``trouble`` is told what keeps them from it."""

    def __init__(
        self,
        path: Path,
        config: ServiceConfig,
        keeper: Keeper,
        trouble: Callable[[str, str | None], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._inbox = Inbox(path)
        self._settings = config.service
        self._staged = Path(config.service.state_dir) / "staged"
        self._keeper = keeper
        self._trouble = trouble
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._changed = asyncio.Event()
        self._followers: dict[str, asyncio.Task[None]] = {}
        self._retry_at = 0.0

    async def open(self) -> None:
        """Make the folders. Raises ConfigError if they can not be used, StateBusyError if another service does."""
        await asyncio.to_thread(self._open)

    def _open(self) -> None:
        self._inbox.open()
        shutil.rmtree(self._staged, ignore_errors=True)

    async def close(self) -> None:
        """Let another service have the folders. May be called twice."""
        await asyncio.to_thread(self._inbox.close)

    def reconfigure(self, config: ServiceConfig) -> None:
        """Keep to other limits from now on."""
        self._settings = config.service

    async def run(self) -> None:
        """Go on with what was taken before, and take what comes, until cancelled."""
        watching = asyncio.create_task(self._watch(), name="inbox")
        try:
            for claim in await asyncio.to_thread(self._inbox.accepted):
                self._follow(claim)
            while True:
                seconds = await self._attend()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._changed.wait()
                self._changed.clear()
        finally:
            tasks = [watching, *self._followers.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        """Tell of changes, as long as the system does."""
        from watchfiles import awatch  # noqa: PLC0415  for services that have such a folder

        try:
            async for _ in awatch(self._inbox.path, recursive=False, watch_filter=None, step=20, debounce=200):
                self._changed.set()
        except (OSError, RuntimeError) as error:
            log.warning("inbox_unwatched", reason=str(error), advice=f"it is looked at every {RESCAN:g} s")

    async def _attend(self) -> float:
        """Take what is whole; return in how many seconds to look again."""
        unsettled, failure = False, None
        try:
            unsettled = await self._claim()
        except OSError as error:
            failure = f"{error.filename}: {error.strerror}"
        if asyncio.get_running_loop().time() >= self._retry_at:
            failure = await self._submit_all() or failure
            self._trouble("folder", failure and f"service.watch: can not take {failure}")
        return LOOK if unsettled else RESCAN

    # From the inbox

    async def _claim(self) -> bool:
        """Take what is whole out of the inbox; return whether something is not."""
        found = await asyncio.to_thread(self._inbox.waiting)
        now = asyncio.get_running_loop().time()
        before = self._seen
        self._seen = {
            name: before[name] if name in before and before[name].signature == signature else _Seen(signature, now)
            for name, signature in found.items()
        }
        whole = [name for name, seen in self._seen.items() if now - seen.since >= SETTLED]
        if whole:
            await asyncio.to_thread(self._inbox.claim, whole, self._clock())
        return bool(found)

    # To the keeper

    async def _submit_all(self) -> str | None:
        """Have everything become a batch that was taken. Return what failed for a reason of ours: it is tried again."""
        failure = None
        try:
            for claim in await asyncio.to_thread(self._inbox.claims):
                failure = await self._tried(claim) or failure
        except StateBusyError:
            pass  # the service is about to end
        except OSError as error:
            failure = f"{error.filename}: {error.strerror}"
        if failure is not None:
            self._retry_at = asyncio.get_running_loop().time() + RESCAN
        return failure

    async def _tried(self, claim: Claim) -> str | None:
        """Submit what a file has; return why that failed. Raises StateBusyError."""
        try:
            await self._submit(claim)
        except StateBusyError:
            raise
        except (OSError, StateError) as error:
            return f"{claim.shown}: {error.strerror if isinstance(error, OSError) else error}"
        return None

    async def _submit(self, claim: Claim) -> None:
        """Submit what a file has; move it to where that has got it. May be repeated."""
        upload = None
        try:
            text, label, upload = await asyncio.to_thread(self._read, claim)
            await self._keeper.submit(text, label, "folder", upload=upload, batch_id=claim.id)
        except ConfigProblems as error:
            await self._reject(claim, [_told(line, claim, upload) for line in error.problems])
            return
        except (OSError, StateError):
            raise
        except FetcherError as error:
            await self._reject(claim, [f"{claim.shown}: {error}"])
            return
        except Exception as error:
            # Whatever it is, it would not be better the next time, and others are to be taken.
            log.exception("file_crashed", file=claim.shown)
            await self._reject(claim, [f"this is a fault of fetcher: {type(error).__name__}: {error}"])
            return
        finally:
            if upload is not None:
                await asyncio.to_thread(upload.unlink, missing_ok=True)
        await asyncio.to_thread(self._inbox.accept, claim)
        log.info("file_accepted", file=claim.shown, batch=claim.id)
        self._follow(claim)

    async def _reject(self, claim: Claim, problems: list[str]) -> None:
        await asyncio.to_thread(self._inbox.reject, claim, problems)
        log.warning("file_rejected", file=claim.shown, problems=problems)

    def _read(self, claim: Claim) -> _Content:
        """Return what a file comes to. Raises ConfigProblems."""
        path, shown = self._inbox.claimed(claim), claim.shown
        kind = _kind_of(path)
        if kind is not None:
            raise ConfigProblems([f"{shown}: {kind}"])
        if path.suffix.lower() in _CONFIGS:
            return _Content(read_config(path, shown, self._settings.max_config, _NO_LINK), shown)
        if _URLS.search(path.name) is None:
            raise ConfigProblems([f"{shown}: should be {_KINDS}, as its name says"])
        return _Content("{}", _PACKED.sub("", shown), self._stage(path, claim))

    def _stage(self, path: Path, claim: Claim) -> Path:
        """Make a second name for a file of URLs, which its batch can have while this one stays. Raises ConfigProblems.

        On another file system, it is a copy.
        """
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | _NO_LINK), "rb") as file:
                size = os.fstat(file.fileno()).st_size
        except PermissionError as error:
            raise ConfigProblems([f"{claim.shown}: can not be read: {error.strerror}"]) from None
        if size == 0:
            raise ConfigProblems([f"{claim.shown}: is empty"])
        if size > self._settings.max_upload:
            message = f"is larger than service.max_upload ({self._settings.max_upload:,} bytes)"
            raise ConfigProblems([f"{claim.shown}: {message}"])
        self._staged.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged = self._staged / f"{claim.id}.{upload_name(path).partition('.')[2]}"
        staged.unlink(missing_ok=True)
        try:
            os.link(path, staged, follow_symlinks=False)
        except OSError:
            shutil.copyfile(path, staged, follow_symlinks=False)
        return staged

    # To the end

    def _follow(self, claim: Claim) -> None:
        if claim.id not in self._followers:
            task = asyncio.create_task(self._finish(claim), name=f"inbox {claim.id}")
            self._followers[claim.id] = task
            task.add_done_callback(lambda _: self._followers.pop(claim.id, None))

    async def _finish(self, claim: Claim) -> None:
        """Wait until a batch has ended, and put its file where that is seen."""
        while True:
            try:
                await self._end(claim)
            except (OSError, StateError) as error:
                log.warning("file_stuck", file=claim.shown, reason=str(error))
                await asyncio.sleep(RESCAN)
            else:
                return

    async def _end(self, claim: Claim) -> None:
        try:
            view = await self._keeper.wait(claim.id)
        except UnknownBatchError:
            # It was deleted, and nobody knows what has become of it: whoever wants it again says so.
            words = f"{claim.shown}: it had a batch, {claim.id}, which the service does not know any more"
            await asyncio.to_thread(self._inbox.reject, claim, [words])
        else:
            await asyncio.to_thread(self._inbox.finish, claim, view.model_dump_json(indent=1) + "\n")


def _told(problem: str, claim: Claim, upload: Path | None) -> str:
    """Return a problem in which a file has the name that people know it by."""
    if upload is None:
        return problem
    return renamed(problem, upload, claim.shown)


def _kind_of(path: Path) -> str | None:
    """Say what a file is that can not be read as one, None if it can."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return "is a link, which is not followed; put the file itself here"
    if stat.S_ISDIR(mode):
        return "is a folder; put its files here"
    return None if stat.S_ISREG(mode) else "is no file that can be read to its end"
