"""Bodies on their way into files: written piece by piece on threads, and named when they are whole.

    .partial/<batch>/<job>.part     what has arrived, and beside it
    .partial/<batch>/<job>.json     of which version it is, if it can be gone on with
    <path>                          the whole body, by an atomic rename

A file is open only while a thread writes to it, so that downloads need no files beside their connections. Of each
body at most two batches are in memory: one that is written, one that is filled meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from io import FileIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from fetcher.errors import ConfigError, ErrorKind, FetchError, SinkError, StateBusyError
from fetcher.files import locked, sync_folder
from fetcher.naming import Named, NameTemplate
from fetcher.transports.bodies.checksums import verify
from fetcher.transports.bodies.ranges import Partial

if TYPE_CHECKING:
    from collections.abc import Callable

    from fetcher.model import Job, Response
    from fetcher.settings import BodySettings
    from fetcher.transports.bodies.checksums import Digest

_T = TypeVar("_T")

BATCH = 256 * 1024
PARTIAL = ".partial"
_THREADS = 4
_OURS = re.compile(r"[0-9a-f]{32}(?:-\d+)?\.(?:part|json|json\.new)")
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_FILES = frozenset({errno.EMFILE, errno.ENFILE})
_TRIES_WITHOUT_FILES = 100
_PAUSE_WITHOUT_FILES = 0.1
_EXIT_RESUMABLE = 75
_KEPT_FOR = 7 * 86400.0
_REREAD = 1024 * 1024
_TRIES = 3


class BodyStore:
    """The folder of bodies that are still arriving, and the threads that write them."""

    def __init__(self, settings: BodySettings) -> None:
        self.template = NameTemplate(settings.path)
        self.work = Path(settings.work or f"{self.template.folder}/{PARTIAL}/batch")
        self.inline_max = settings.inline_max
        self.resuming = settings.range == "resume"
        self.synchronous = settings.durability == "fsync"
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="bodies")
        self._lock: int | None = None
        self._numbers = count(1)
        self.active: set[str] = set()
        self.partials: set[str] = set()

    async def open(self) -> None:
        """Lock the folder, and clear out what is of no use. Raises ConfigError, or StateBusyError."""
        await self.run(self._open)

    async def close(self) -> None:
        """Give the folder up. May be called twice."""
        if self._lock is not None:
            await self.run(self._close)
        self._executor.shutdown(wait=False)

    async def find(self, job: Job, url: str) -> Partial | None:
        """Return the beginning of a body that an earlier attempt left, if it is of this URL."""
        name = _key(job)
        if name not in self.partials or name in self.active:
            return None
        partial = await self.run(self.read, name)
        return partial if partial is not None and partial.url == url else None

    def download(self, job: Job, response: Response, digest: Digest, partial: Partial | None) -> Download:
        """Begin the file of a body; ``partial`` is what of it there is, or of what there will be if it breaks off."""
        name = _key(job)
        if name in self.active:
            # The lease of an attempt that still runs has lapsed. They must not write to one file.
            if partial is not None and partial.size:
                raise _superseded()
            name, partial = f"{name}-{next(self._numbers)}", None
        self.active.add(name)
        return Download(self, name, job, response, digest, partial if self.resuming else None)

    async def holds(self, path: str, sha256: str) -> bool:
        """Tell whether a file is there that hashes to ``sha256``: with some templates, one name is had by many."""
        return await self.run(_holds, Path(path), sha256)

    async def run(self, function: Callable[..., _T], *args: Any) -> _T:
        """Call a function on one of the threads, and see it through even if the caller is cancelled."""
        call = asyncio.get_running_loop().run_in_executor(self._executor, function, *args)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait([call])
            raise

    def submit(self, function: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:
        """Call a function on one of the threads; the caller waits for it later."""
        return asyncio.get_running_loop().run_in_executor(self._executor, function, *args)

    def part(self, name: str) -> Path:
        """Return where what has arrived is."""
        return self.work / f"{name}.part"

    def sidecar(self, name: str) -> Path:
        """Return where it is noted of which version that is."""
        return self.work / f"{name}.json"

    # What follows runs on the threads.

    def _open(self) -> None:
        try:
            self._lock = self._locked_folder()
            self._clear_out()
        except OSError as error:
            message = f"{self.work}: can not be written: {error.strerror}; choose another body.path"
            raise ConfigError(message) from error

    def _locked_folder(self) -> int | None:
        if os.name == "nt":
            self.work.mkdir(parents=True, exist_ok=True)
            return None
        for _ in range(_TRIES):
            self.work.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.work, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            if not locked(fd):
                os.close(fd)
                raise StateBusyError(
                    f"{self.work}: another run is storing bodies there; wait until it has ended, or set body.work"
                )
            # Whoever had it may have removed it between our two steps.
            with contextlib.suppress(FileNotFoundError):
                if self.work.stat().st_ino == os.fstat(fd).st_ino:
                    return fd
            os.close(fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _clear_out(self) -> None:
        """Delete what a dead run left, but for what can be gone on with."""
        oldest = time.time() - _KEPT_FOR
        found = [entry for entry in os.scandir(self.work) if _OURS.fullmatch(entry.name)]
        if self.resuming:
            stems = {Path(entry.name).stem for entry in found if entry.stat().st_mtime >= oldest}
            self.partials = {stem for stem in stems if self.read(stem) is not None}
        for entry in found:
            if Path(entry.name).stem not in self.partials:
                Path(entry.path).unlink(missing_ok=True)

    def read(self, name: str) -> Partial | None:
        """Return what is kept under a name, with its size as the file has it."""
        try:
            partial = msgspec.json.decode(self.sidecar(name).read_bytes(), type=Partial)
            partial.size = self.part(name).stat().st_size
        except (OSError, msgspec.DecodeError):
            return None
        within = partial.total is None or partial.size <= partial.total
        return partial if partial.size and within else None

    def _close(self) -> None:
        if self._lock is not None:
            with contextlib.suppress(OSError):  # there are partial bodies in it
                self.work.rmdir()
                if self.work.parent.name == PARTIAL:
                    self.work.parent.rmdir()
            os.close(self._lock)
            self._lock = None


class Download:
    """One body on its way into its file, from ``start`` on. ``finish`` or ``abandon`` ends it.

    ``partial`` is what goes into the note beside it, with which the next attempt can go on.
    """

    def __init__(
        self, store: BodyStore, name: str, job: Job, response: Response, digest: Digest, partial: Partial | None
    ) -> None:
        self._store = store
        self._name = name
        self._job = job
        self._response = response
        self._digest = digest
        self._partial = partial
        self.start = partial.size if partial is not None else 0
        response.resumed_at = self.start or None
        self._pieces: list[bytes] = []
        self._pending = 0
        self._threshold = max(BATCH, store.inline_max + 1)
        self._begun = self._ended = False
        self._writing: asyncio.Future[None] | None = None

    def add(self, piece: bytes) -> bool:
        """Take a piece; tell whether it is time to ``flush``."""
        self._pieces.append(piece)
        self._pending += len(piece)
        return self._pending >= self._threshold

    async def flush(self) -> None:
        """Have the batch written, once the one before it has been."""
        await self._settle()
        self._writing = self._store.submit(self._write, self._taken())
        self._threshold = BATCH

    async def finish(self) -> None:
        """Give the body its name, or put it into the record. Raises FetchError for another checksum, SinkError."""
        await self._settle()
        self._check_total()
        if self._begun or self.start or not 0 < self._store.inline_max >= self._pending:
            self._response.body_path = await self._store.run(self._complete, self._taken())
        else:
            body = b"".join(self._taken())
            self._digest.update(body)
            verify(self._digest)
            self._response.body = body
            if self._name in self._store.partials:
                await self._store.run(self._drop)
        self._response.sha256 = self._digest.hexdigest()
        self._store.active.discard(self._name)

    async def abandon(self, *, keep: bool) -> None:
        """Give it up; ``keep`` what has arrived for the next attempt if that can go on with it."""
        try:
            if self._writing is not None:
                await asyncio.wait([self._writing])
                # What went wrong with it, if anything did, is not what the body is given up for.
                self._writing.exception()
            if not self._ended:
                await self._store.run(self._keep if keep and self._partial is not None else self._drop)
        finally:
            self._store.active.discard(self._name)

    def _taken(self) -> list[bytes]:
        pieces, self._pieces, self._pending = self._pieces, [], 0
        return pieces

    async def _settle(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None

    def _check_total(self) -> None:
        """Raise FetchError if the parts do not make up what the server said that the whole is."""
        size, total = self._response.body_size, self._partial.total if self._partial is not None else None
        if not self.start or total is None or self._response.truncated or size == total:
            return
        if size > total:
            raise FetchError(ErrorKind.BAD_HTTP, f"the rest of a body of {total} bytes went on to byte {size}")
        raise FetchError(ErrorKind.BODY_INCOMPLETE, f"the answer ended at byte {size} of {total}, as it said it would")

    # What follows runs on the threads, one call at a time.

    def _write(self, pieces: list[bytes], *, noted: bool = True) -> None:
        path = self._store.part(self._name)
        try:
            if not self._begun:
                self._begin(path, noted=noted)
            with _opened(path, "ab") as file:
                for piece in pieces:
                    self._digest.update(piece)
                    _write_all(file.fileno(), piece)
        except OSError as error:
            raise _failure(path, error) from error

    def _begin(self, path: Path, *, noted: bool) -> None:
        """Make the file what it is to be appended to, and never a beginning of another version than is noted."""
        self._begun = True
        if self.start:
            there = self._store.read(self._name)
            if there is None or there.size < self.start or not _continues(self._partial, there):
                raise _superseded()
            with _opened(path, "r+b") as file:
                file.truncate(self.start)
                while piece := file.read(_REREAD):
                    self._digest.update(piece)
            return
        sidecar = self._store.sidecar(self._name)
        sidecar.unlink(missing_ok=True)
        _opened(path, "wb").close()
        if self._partial is not None and noted:
            draft = sidecar.with_suffix(".json.new")
            draft.write_bytes(msgspec.json.encode(self._partial))
            draft.replace(sidecar)

    def _complete(self, pieces: list[bytes]) -> str:
        """Write the rest, and rename the file to what the template says."""
        # What is whole within one batch is not worth a note.
        self._write(pieces, noted=False)
        try:
            verify(self._digest, resumed=bool(self.start))
        except FetchError:
            self._drop()
            raise
        job, response = self._job, self._response
        named = Named(job.id, job.host, job.url, response.content_type, self._digest.hexdigest())
        target = self._store.template.render(named)
        try:
            self._rename(Path(target))
        except OSError as error:
            raise _failure(Path(target), error) from error
        self._ended = True
        self._store.sidecar(self._name).unlink(missing_ok=True)
        self._store.partials.discard(self._name)
        return target

    def _rename(self, target: Path) -> None:
        part = self._store.part(self._name)
        if self._store.synchronous:
            with _opened(part, "rb") as file:
                os.fsync(file.fileno())
        try:
            part.replace(target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)
            if self._store.synchronous:
                for folder in target.parent.parents:
                    sync_folder(folder)
        if self._store.synchronous:
            sync_folder(target.parent)

    def _keep(self) -> None:
        if self._pieces:
            self._write(self._taken())
        if self._begun or self.start:
            self._store.partials.add(self._name)

    def _drop(self) -> None:
        # The note first: without it nobody takes the file for the beginning of anything.
        self._ended = True
        self._store.sidecar(self._name).unlink(missing_ok=True)
        self._store.part(self._name).unlink(missing_ok=True)
        self._store.partials.discard(self._name)


def _continues(partial: Partial | None, there: Partial) -> bool:
    """Tell whether what is there is still what was to be gone on with."""
    return partial is not None and (partial.validator, partial.verified) == (there.validator, there.verified)


def _holds(path: Path, sha256: str) -> bool:
    try:
        with _opened(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _key(job: Job) -> str:
    """Return the name that one job has in the work folder, in whatever attempt and run."""
    return blake2b(job.id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _opened(path: Path, mode: str) -> FileIO:
    """Open a file. If there are none left, connections have them: wait until some of those are closed."""
    for _ in range(_TRIES_WITHOUT_FILES):
        try:
            return FileIO(path, mode)
        except OSError as error:
            if error.errno not in _NO_FILES:
                raise
        time.sleep(_PAUSE_WITHOUT_FILES)
    return FileIO(path, mode)


def _superseded() -> FetchError:
    return FetchError(ErrorKind.BODY_INCOMPLETE, "another attempt of this job has begun its body anew")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _failure(path: Path, error: OSError) -> SinkError:
    """Return what stops the run, which can be resumed once there is room."""
    if error.errno not in _NO_ROOM:
        return SinkError(f"{path}: {error.strerror}")
    failure = SinkError(f"{path}: {error.strerror}; free some space and run again to resume")
    failure.exit_code = _EXIT_RESUMABLE
    return failure
