"""Jobs from a sitemap (sitemaps.org 0.9), an index of sitemaps, or those that a robots.txt names; gzipped or not.

A sitemap is fetched whole, into a file that is gone at the end, before the first of its URLs is used: its server need
not wait for the batch. An index is gone through in its order. A sitemap in it that can not be had is a rejected job, as
a bad row of any input; one that may be there later ends the reading, to be resumed.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, InvalidURL
from pydantic import Field

from fetcher.errors import ConfigError, ErrorKind, FetchError, SourceError
from fetcher.guard import GuardSwitch
from fetcher.interfaces import Chunk
from fetcher.jobs.intake import RowError, mask_userinfo, rejected_job
from fetcher.outbound import guarded_session, reason_of
from fetcher.settings import ByteSize, Duration, Secret, Settings
from fetcher.sources.inputs import path_advice
from fetcher.sources.row_jobs import StaticJob, static_maker
from fetcher.sources.sitemap_file import PIECE, Entry, SitemapError, StoredSitemap
from fetcher.sources.threads import NAME, run_beside

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from fetcher.model import Job
    from fetcher.sources.row_jobs import Make

_T = TypeVar("_T")

CHUNK_ROWS = 500
_MOST_SITEMAPS = 50_000  # of an index (sitemaps.org)
_IN_MEMORY = 1024 * 1024  # bytes of a sitemap; what is larger is on disk
_PAUSES = (0.5, 2.0)  # seconds before each further try
_HTTP = re.compile(r"https?://", re.IGNORECASE)
_CODINGS = frozenset({"", "identity", "gzip", "x-gzip"})
_OK, _TOO_MANY, _SERVER_ERRORS = 200, 429, 500
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5


class SitemapConfig(Settings):
    """The URLs of a sitemap, with `lastmod`, `changefreq` and `priority` as `meta`."""

    type: Literal["sitemap"] = "sitemap"
    """A sitemap."""
    location: str = Field(min_length=1)
    """A sitemap, an index of sitemaps or a robots.txt: a URL, or a file relative to the working folder."""
    max_size: Annotated[ByteSize, Field(gt=0)] = 50 * 1024 * 1024
    """The most bytes of one sitemap, decompressed (sitemaps.org allows 50 MiB)."""
    max_depth: int = Field(default=3, ge=1, le=10)
    """How many indexes may lead to one another; a robots.txt is one."""
    timeout: Annotated[Duration, Field(gt=0)] = 60.0
    """How long one try to fetch a sitemap may take; there are three."""
    headers: dict[str, Secret] = Field(default={})
    """Sent with each request for a sitemap to the host of `location`, and to no other."""
    job: StaticJob = None
    """What else its URLs are asked for with: headers, params and so on, without places."""
    guard: GuardSwitch = None
    """For the sitemaps themselves: `true` fetches them from public addresses only. By default, as `http.guard`; `false`
    is none."""

    def build(self) -> SitemapSource:
        """Return the source."""
        return SitemapSource(self)


class Position(msgspec.Struct):
    """``at``: the numbers of the indexes' entries that lead to a sitemap, and how many entries of it are done.

    ``crc`` is a checksum over their locations and that of the last entry.
    """

    at: list[int]
    crc: int


class _Place(msgspec.Struct, frozen=True):
    """A sitemap, how it was come by, and how much of it to leave out."""

    location: str
    numbers: tuple[int, ...] = ()
    parents: tuple[str, ...] = ()
    skip: tuple[int, ...] = ()

    def position(self, done: int, last: str) -> Position:
        """Return the position after ``done`` entries, of which ``last`` was the last."""
        names = "\n".join((*self.parents[1:], self.location, last) if self.parents else (last,))
        return Position([*self.numbers, done], zlib.crc32(names.encode(errors="surrogatepass")))


class SitemapSource:
    """Yields the URLs of sitemaps, one sitemap after the other."""

    def __init__(self, config: SitemapConfig) -> None:
        self._config = config

    def check(self) -> None:
        """Raise ConfigError if there is no sitemap at the location."""
        try:
            run_beside(self._check())
        except SourceError as error:
            raise ConfigError(str(error)) from error

    async def read(self, position: str | None) -> AsyncGenerator[Chunk, None]:
        """Yield chunks from just after ``position`` on."""
        async with _Walk(self._config, position) as walk, aclosing(walk.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _check(self) -> None:
        async with _Walk(self._config, None) as walk:
            await walk.check()


class _Walk:
    """One reading: a session, a thread that parses, and the position to go on from."""

    def __init__(self, config: SitemapConfig, position: str | None) -> None:
        self._config = config
        self._start = self._position(position)
        self._make = static_maker(config.job)
        self._files: list[IO[bytes]] = []
        self._stopped = threading.Event()

    async def __aenter__(self) -> Self:
        config = self._config
        options: dict[str, Any] = {
            "timeout": ClientTimeout(total=config.timeout),
            "auto_decompress": False,
            "headers": {"accept-encoding": "gzip"},
        }
        self._session = (
            ClientSession(**options) if config.guard is None else guarded_session(config.guard.build(), **options)
        )
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=NAME)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped.set()
        try:
            # In the thread, which may still be about to open one for a reading that was cancelled.
            await self._in_thread(self._close_files)
        finally:
            self._executor.shutdown(wait=False)
            await self._session.close()

    async def check(self) -> None:
        """Raise SourceError if the location has no sitemap."""
        try:
            (await self._opened(self._config.location)).close()
        except SitemapError as error:
            raise self._failed(error) from error

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Yield everything from the position on. Raises SourceError."""
        start = self._start
        place = _Place(self._config.location, skip=() if start is None else tuple(start.at))
        try:
            async with aclosing(self._of(place)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except SitemapError as error:
            raise self._failed(error) from error

    async def _of(self, place: _Place) -> AsyncGenerator[Chunk, None]:
        """Yield what a sitemap or an index has. Raises SitemapError if it is none."""
        opened = await self._opened(place.location)
        try:
            if not opened.is_index:
                rows = self._rows(place, opened)
            elif len(place.numbers) == self._config.max_depth:
                raise SitemapError(f"is an index behind {self._config.max_depth} others, which is max_depth")
            else:
                found = await self._in_thread(lambda: list(islice(opened.entries(), _MOST_SITEMAPS + 1)))
                opened.close()
                rows = self._listed(place, found)
            async with aclosing(rows):
                async for chunk in rows:
                    yield chunk
        finally:
            opened.close()

    async def _rows(self, place: _Place, opened: StoredSitemap) -> AsyncGenerator[Chunk, None]:
        """Yield the URLs of a sitemap."""
        entries = opened.entries()
        done = 0
        skip = place.skip[0] if place.skip else 0
        last = ""
        while done < skip:
            wanted = min(CHUNK_ROWS, skip - done)
            rows = await self._in_thread(lambda: list(islice(entries, wanted)))  # noqa: B023  awaited at once
            if not rows:
                raise self._changed()
            done += len(rows)
            last = rows[-1].loc
        if place.skip:
            self._verify(place, done, last)
        while rows := await self._in_thread(lambda: list(islice(entries, CHUNK_ROWS))):
            jobs = [_job(place, number, entry, self._make) for number, entry in enumerate(rows, done + 1)]
            done += len(rows)
            yield _chunk(jobs, place.position(done, rows[-1].loc))

    async def _listed(self, place: _Place, found: Sequence[Entry]) -> AsyncGenerator[Chunk, None]:
        """Yield the URLs of the sitemaps of an index."""
        if len(found) > _MOST_SITEMAPS:
            raise SitemapError(f"has more than {_MOST_SITEMAPS} sitemaps")
        done = place.skip[0] - (len(place.skip) > 1) if place.skip else 0
        if done > len(found) or (len(place.skip) > 1 and done == len(found)):
            raise self._changed()
        if len(place.skip) == 1:
            self._verify(place, done, found[done - 1].loc if done else "")
        inner = place.skip[1:]
        for number, entry in enumerate(found[done:], done + 1):
            try:
                async with aclosing(self._child(place, number, entry, inner)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except SitemapError as error:
                wrong = Entry(entry.loc, wrong=f"the sitemap {error}")
                yield _chunk([_job(place, number, wrong, self._make)], place.position(number, entry.loc))
            inner = ()

    async def _child(
        self, place: _Place, number: int, entry: Entry, skip: tuple[int, ...]
    ) -> AsyncGenerator[Chunk, None]:
        location = _child_of(place.location, entry.loc)
        parents = (*place.parents, place.location)
        if location in parents:
            raise SitemapError("is an index that leads back to itself")
        child = _Place(location, (*place.numbers, number), parents, skip)
        async with aclosing(self._of(child)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _opened(self, location: str) -> StoredSitemap:
        """Get a sitemap, and look at its beginning. Raises SitemapError or SourceError."""
        file = (
            await self._fetched(location)
            if _HTTP.match(location)
            else await self._in_thread(lambda: self._local(location))
        )
        robots = urlsplit(location).path.split("/")[-1] == "robots.txt"
        opened = StoredSitemap(file, self._config.max_size, robots=robots, stopped=self._stopped)
        try:
            await self._in_thread(opened.begin)
        except BaseException:
            opened.close()
            raise
        return opened

    def _local(self, path: str) -> IO[bytes]:
        try:
            return self._kept(Path(path).open("rb"))
        except OSError as error:
            raise SitemapError(f"can not be opened: {error.strerror}; {path_advice()}") from error

    def _kept(self, file: IO[bytes]) -> IO[bytes]:
        """Return a file that will be closed at the latest when the reading is over."""
        self._files = [other for other in self._files if not other.closed]
        self._files.append(file)
        return file

    def _close_files(self) -> None:
        for file in self._files:
            file.close()

    async def _fetched(self, url: str) -> IO[bytes]:
        failure = ""
        for pause in (0.0, *_PAUSES):
            await asyncio.sleep(pause)
            file = self._kept(tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115  closed with the reading
            try:
                failure = await self._download(url, file)
            except SitemapError:
                raise
            except (InvalidURL, ValueError) as error:
                raise SitemapError("is no URL") from error
            except FetchError as error:
                raise SitemapError(f"is not fetched: {error}") from error
            except (ClientError, TimeoutError, OSError) as error:
                failure = f"can not be fetched: {reason_of(error)[:300]}"
            if not failure:
                file.seek(0)
                return file
            file.close()
        raise SourceError(f"{_shown(url)}: {failure}; resume the batch when it can")

    async def _download(self, url: str, file: IO[bytes]) -> str:
        """Write an answer into a file; return why another try is worth it, nothing if all is there."""
        for _ in range(_MOST_REDIRECTS + 1):
            async with self._session.get(url, headers=self._headers(url), allow_redirects=False) as response:
                if response.status not in _REDIRECTS or "location" not in response.headers:
                    return await self._stored(response, file)
                url = urljoin(url, response.headers["location"])
            if not _HTTP.match(url):
                raise SitemapError("is redirected to what is no http URL")
        raise SitemapError(f"is redirected more than {_MOST_REDIRECTS} times")

    def _headers(self, url: str) -> dict[str, str]:
        """Return what goes to the origin of the location alone, whatever leads elsewhere."""
        if not self._config.headers or _origin(url) != _origin(self._config.location):
            return {}
        return {name: value.get_secret_value() for name, value in self._config.headers.items()}

    async def _stored(self, response: ClientResponse, file: IO[bytes]) -> str:
        if response.status == _TOO_MANY or response.status >= _SERVER_ERRORS:
            return f"was answered with status {response.status}"
        if response.status != _OK:
            raise SitemapError(f"was answered with status {response.status}")
        coding = response.headers.get("content-encoding", "").strip().lower()
        if coding not in _CODINGS:
            raise SitemapError(f"came in the coding {coding[:60]!r}, which was not asked for")
        size = 0
        async for block in response.content.iter_chunked(PIECE):
            size += len(block)
            if size > self._config.max_size:
                raise SitemapError(f"is larger than max_size, which is {self._config.max_size} bytes")
            file.write(block)
        return ""

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _verify(self, place: _Place, done: int, last: str) -> None:
        if self._start is None or place.position(done, last) != self._start:
            raise self._changed()

    def _position(self, text: str | None) -> Position | None:
        try:
            found = None if text is None else msgspec.json.decode(text, type=Position)
        except msgspec.DecodeError as error:
            raise SourceError(f"{self._name}: {text!r} is no position in a sitemap: {error}") from error
        if found is not None and (not found.at or min(found.at) < 0):
            raise SourceError(f"{self._name}: {text!r} is no position in a sitemap")
        return found

    @property
    def _name(self) -> str:
        return _shown(self._config.location)

    def _changed(self) -> SourceError:
        at = "-".join(map(str, self._start.at if self._start else ()))
        return SourceError(
            f"{self._name}: changed since the batch was started, which stands after entry {at}; "
            "start over with a new batch"
        )

    def _failed(self, error: SitemapError) -> SourceError:
        return SourceError(f"{self._name}: {error}")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return the origin of a URL (RFC 6454, section 4). Raises ValueError if it is none."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _child_of(parent: str, location: str) -> str:
    """Return where an index leads. One that was fetched leads to nothing on this machine."""
    if _HTTP.match(parent):
        location = urljoin(parent, location)
    if _HTTP.match(location):
        return location
    path = Path(location)
    if _HTTP.match(parent) or not location or ":" in location or path.is_absolute() or ".." in path.parts:
        raise SitemapError("is neither at a http URL nor beside its index")
    return str(Path(parent).parent / path)


def _job(place: _Place, number: int, entry: Entry, make: Make) -> Job:
    job_id = "-".join(map(str, (*place.numbers, number)))
    if entry.wrong is not None:
        return rejected_job(job_id, entry.loc, RowError(ErrorKind.INVALID_ROW, entry.wrong))
    return make(job_id, entry.loc, dict(entry.meta) if entry.meta else None)


def _chunk(jobs: list[Job], position: Position) -> Chunk:
    return Chunk(jobs, msgspec.json.encode(position).decode())


def _shown(location: str) -> str:
    """Return a location as it may stand in a message: without what may be a password or a key."""
    place, query, _ = mask_userinfo(location).partition("?" if _HTTP.match(location) else "\0")
    return f"{place[:200]}?..." if query else place[:200]
