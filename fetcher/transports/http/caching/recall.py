"""What earlier attempts and runs left behind of a URL, and what is asked of its server because of it.

    the beginning of a body     Range, If-Range                      206 goes on with it, 200 starts over
    a whole body                If-None-Match, If-Modified-Since     304 says that it is still that, 200 brings another

Works per hop, so that what a redirect leads to is known by its own URL. Conditions of the user's own are left alone.
A 304 is about what the server has. Whether we still have the same is found out before it is believed.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.bodies.ranges import (
    OK,
    PARTIAL_CONTENT,
    RANGE_NOT_SATISFIABLE,
    Partial,
    beginning,
    continued,
    may_resume,
    range_headers,
)
from fetcher.transports.http.caching.cache import Cache, Entry
from fetcher.transports.http.caching.sharing import is_verified

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.model import Header, Job, Response
    from fetcher.settings import BodySettings
    from fetcher.transports.bodies.storing import BodyStore
    from fetcher.transports.http.caching.sharing import Sharing
    from fetcher.transports.http.exchange import Answer, Hop

NOT_MODIFIED = 304
UNCOMMON = frozenset({PARTIAL_CONTENT, NOT_MODIFIED})
"""Statuses that are only right for requests that ask for them."""
_CONDITIONS = frozenset({"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"})
_RANGES = frozenset({"range"})
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')
# What they stand for is added below this, or is a secret whose hash says too much.
_NOT_OURS_TO_COMPARE = frozenset({"*", "authorization", "cookie"})


class Known(msgspec.Struct):
    """What is known of a URL: the beginning of a body, or a whole one and its bytes if the record will have them."""

    partial: Partial | None = None
    entry: Entry | None = None
    body: bytes | None = None


class Recall:
    """Asks for no more than what is not there yet. ``store`` and ``cache`` are there if they are switched on.

    ``sharing`` says for which hops the cache is.
    """

    def __init__(self, settings: BodySettings, store: BodyStore | None, cache: Cache | None, sharing: Sharing) -> None:
        self._settings = settings
        self._store = store
        self._partials = store if store is not None and store.resuming else None
        self._cache = cache
        self._sharing = sharing

    async def ask(self, hop: Hop, job: Job) -> tuple[Hop, Known | None]:
        """Return the hop with what is to be asked of its server, and what that is based on."""
        if not may_resume(hop) or _named(hop.headers) & _CONDITIONS:
            return hop, None
        partial = await self._partials.find(job, hop.url) if self._partials is not None else None
        if partial is not None and self._continues(hop, partial):
            return _with(hop, range_headers(partial)), Known(partial=partial)
        cache = self._cache
        entry = await cache.find(hop.url) if cache is not None and self._sharing.allows(hop) else None
        if entry is None or not self._serves(entry, job) or entry.variant != _variant(hop.headers, entry.vary):
            return hop, None
        return _with(hop, _conditions(entry)), Known(entry=entry)

    async def fits(self, known: Known, answer: Answer) -> bool:
        """Tell whether an answer makes sense with what is known; completes ``known`` if it is about it."""
        if known.partial is not None:
            if answer.status == PARTIAL_CONTENT:
                known.partial = continued(answer, known.partial)
                return known.partial is not None
            return answer.status != RANGE_NOT_SATISFIABLE
        entry = known.entry
        if entry is None or answer.status != NOT_MODIFIED:
            return True
        tag = answer.fields.get("ETag")
        if tag is not None and entry.etag is not None and _weakened(tag) != _weakened(entry.etag):
            return False  # it speaks of a version that we do not have
        return await self._is_there(entry, known)

    def partial(self, hop: Hop, answer: Answer, known: Known | None) -> Partial | None:
        """Return what is gone on with, or what of a whole body can be gone on with if it breaks off."""
        if answer.status == PARTIAL_CONTENT:
            return known.partial if known is not None else None
        if self._partials is None or not may_resume(hop):
            return None
        return beginning(answer, hop.url, verified=is_verified(hop))

    def revalidated(self, known: Known, response: Response) -> None:
        """Describe the body of an earlier run in a response that says that it is still so."""
        entry = known.entry
        if entry is not None:
            response.revalidated = True
            response.sha256, response.body_size = entry.sha256, entry.size
            response.content_type = response.content_type or entry.content_type
            response.body = known.body
            response.body_path = entry.path if self._settings.store == "file" else None

    async def note(self, hop: Hop, answer: Answer, response: Response) -> None:
        """Remember a body that has arrived whole, for the next run."""
        entry = _entry(hop, answer, response) if self._cache is not None else None
        if self._cache is not None and entry is not None and self._sharing.allows(hop):
            await self._cache.add(entry, response.body)

    def _continues(self, hop: Hop, partial: Partial) -> bool:
        """Tell whether a hop may go on with a beginning: within the cap, and if the rest is as much to be believed.

        An unverified rest would spoil a verified beginning as well.
        """
        return partial.verified == is_verified(hop) and partial.resume_at() < self._settings.max_size

    async def _is_there(self, entry: Entry, known: Known) -> bool:
        """Tell whether the body that a record will have is the one that a 304 is about; forget it if it is not.

        It need not be: its file may have been written again, and what the cache has may be a newer one by now.
        """
        if self._cache is None or self._settings.store == "none":
            return True
        if entry.inline:
            known.body = await self._cache.body(entry)
            found = known.body is not None
        else:
            found = self._store is not None and await self._store.holds(entry.path or "", entry.sha256)
        if not found:
            await self._cache.drop(entry)
        return found

    def _serves(self, entry: Entry, job: Job) -> bool:
        """Tell whether the record could be given all that it would have if the body travelled again."""
        settings = self._settings
        if entry.size > settings.max_size or job.checksum not in {None, f"sha256:{entry.sha256}"}:
            return False
        if settings.store == "file":
            return entry.path is not None or (entry.inline and entry.size <= settings.inline_max)
        # A checksum is not taken on trust: without a body there is nothing that it could be compared with.
        return entry.inline if settings.store == "inline" else job.checksum is None


def check_asked(hop: Hop, status: int, known: Known | None) -> None:
    """Raise FetchError for a part of a body, or none, that nobody has asked for. ``known`` is what we asked by."""
    names = _named(hop.headers)
    if status == NOT_MODIFIED and (known is None or known.entry is None) and not names & _CONDITIONS:
        raise FetchError(ErrorKind.HTTP_3XX, "the server answered 304 to a request without conditions", status=status)
    if status == PARTIAL_CONTENT and (known is None or known.partial is None) and not names & _RANGES:
        raise FetchError(ErrorKind.BAD_HTTP, "the server sent a part of a body of which all was asked for")


def _entry(hop: Hop, answer: Answer, response: Response) -> Entry | None:
    """Return what to remember, None if it can not be asked for again or is not to be kept (RFC 9111, section 3)."""
    whole = not (response.truncated or response.length_unknown or response.content_encoding)
    if answer.status != OK or not whole or not may_resume(hop) or response.sha256 is None:
        return None
    etag, modified = answer.fields.get("ETag"), answer.fields.get("Last-Modified")
    etag = etag if etag is not None and _TAG.fullmatch(etag) else None
    modified = modified if modified is not None and modified.isascii() else None
    vary = tuple(sorted(_listed(answer.headers, "vary")))
    no_store = "no-store" in _listed(answer.headers, "cache-control") | _listed(hop.headers, "cache-control")
    if (etag is None and modified is None) or no_store or not _NOT_OURS_TO_COMPARE.isdisjoint(vary):
        return None
    return Entry(
        hop.url,
        response.sha256,
        response.body_size,
        etag,
        modified,
        vary,
        _variant(hop.headers, vary),
        response.content_type,
        response.body_path,
        response.body is not None,
    )


def _conditions(entry: Entry) -> list[Header]:
    headers = [] if entry.etag is None else [("If-None-Match", entry.etag)]
    return headers if entry.modified is None else [*headers, ("If-Modified-Since", entry.modified)]


def _with(hop: Hop, headers: list[Header]) -> Hop:
    return msgspec.structs.replace(hop, headers=[*hop.headers, *headers])


def _named(headers: Sequence[Header]) -> set[str]:
    return {name.lower() for name, _ in headers}


def _listed(headers: Sequence[Header], name: str) -> set[str]:
    """Return the members of a list field, in lower case, of however many fields it consists."""
    values = [value for other, value in headers if other.lower() == name]
    return {member.strip().lower() for value in values for member in value.split(",")} - {""}


def _variant(headers: Sequence[Header], vary: Sequence[str]) -> str:
    """Return a hash of what a request says in the headers that a response depends on; nothing of none."""
    if not vary:
        return ""
    said = [sorted(value.strip() for name, value in headers if name.lower() == wanted) for wanted in vary]
    return blake2b(msgspec.json.encode(said), digest_size=16).hexdigest()


def _weakened(tag: str) -> str:
    return tag.strip().removeprefix("W/")
