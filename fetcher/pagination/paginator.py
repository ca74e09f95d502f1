"""From an answer to the job of the next page, as the section ``pagination`` says.

The first page of a listing is a job of the input; every other one is a job with that job's id as its ``parent``, and
an id that no source gives: ``0-12~3`` is the third page of ``0-12``. What a job asks for stays as it is, but for what
makes it ask for another page. Where a server names the next page by a URL, it is followed as a redirect would be:
whatever is for one origin alone does not go to another, and does not come back (`fetcher.references`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fetcher.errors import ErrorKind, FetchError
from fetcher.jobs.intake import make_job
from fetcher.model import Header, Job, Outcome, Result
from fetcher.pagination.forms import Cursor, Form, NextLink, Offset, Page, Wanted
from fetcher.references import is_private, origin_of, private_names, resolved, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from fetcher.pagination.settings import PaginationSettings
    from fetcher.settings import RequestSettings

_SCHEMES = ("http:", "https:")
_JSON = ("content-type", "application/json")
_SHOWN = 200


class Following(msgspec.Struct, frozen=True):
    """What comes after a page: the ``job`` of the next one, None if there is none or if there may be no more.

    ``has_more`` tells these two apart.
    """

    job: Job | None
    has_more: bool


class Paginator:
    """Finds next pages. Pure; ``check`` goes first, and may import what it needs. Any thread may ask it.

    ``followed`` takes what is secret out of the URLs that servers name, which may repeat the whole query of a request.
    It raises ValueError for one in which it would stay.
    """

    def __init__(
        self, settings: PaginationSettings, request: RequestSettings, followed: Callable[[str], str] | None = None
    ) -> None:
        self.max_pages = settings.max_pages
        self._form = _form(settings)
        self._method = request.method.upper()
        self._followed = followed
        self._private = private_names(request)
        self._downgrade = request.downgrade == "follow"

    def check(self) -> None:
        """Raise ConfigError for a JMESPath that can not be read, MissingExtraError if there is nothing to read it."""
        self._form.check()

    def begin(self, job: Job) -> None:
        """Have the first page of a listing say that it is. What can not be fetched, or is not http, stays as it is."""
        if job.rejected is None and job.url.startswith(_SCHEMES):
            job.url = self._form.begin(job.url)

    def concerns(self, job: Job) -> bool:
        """Tell whether the answer to a job may have a next page: there is no such thing but in http."""
        return job.url.startswith(_SCHEMES)

    def weight(self, result: Result) -> int:
        """Return how many bytes are to be looked at for an answer."""
        return len(result.body or b"") if self._form.of_body else 0

    def following(self, job: Job, result: Result) -> Following:
        """Return what comes after the answer to a job that is ``ok``.

        Raises FetchError of the kind ``bad_pagination`` for an answer whose next page is not to be had.
        """
        if result.outcome is not Outcome.OK:
            return Following(None, has_more=False)
        try:
            wanted = self._form.next(job, result)
            if wanted is None:
                return Following(None, has_more=False)
            made = self._made(job, result, wanted)
        except ValueError as error:
            raise FetchError(ErrorKind.BAD_PAGINATION, f"the next page: {error}") from None
        return Following(made if job.page < self.max_pages else None, has_more=True)

    def _made(self, job: Job, result: Result, wanted: Wanted) -> Job:
        """Return the job of a page. Raises ValueError if it can not be asked for, or is the page that there was."""
        there = result.final_url or job.url
        target = self._named(there, wanted.reference) if wanted.url is None else _checked(wanted.url)
        body = job.body if wanted.body is None else wanted.body
        if body == job.body and target.url in {job.url, there}:
            raise ValueError("is this page itself, so there would be no end")
        headers = list(job.headers)
        foreign = job.foreign
        if wanted.url is None:
            self._check_downgrade(there, target.url)
            foreign = foreign or len({origin_of(target.url), origin_of(there), origin_of(job.url)}) > 1
        if foreign:
            headers = [header for header in headers if not is_private(header, self._private)]
        root, page = job.parent or job.id, job.page + 1
        return msgspec.structs.replace(
            job,
            id=page_id(root, page),
            url=target.url,
            host=target.host,
            # That it has a body now is no reason to ask in another way than for the first page.
            method=job.method if body is None or job.body is not None else job.method or self._method,
            headers=headers if wanted.body is None else _as_json(headers),
            body=body,
            checksum=None,
            parent=root,
            page=page,
            foreign=foreign,
            key=_key(root, page),
            attempts=0,
            first_started_at=None,
        )

    def _named(self, base: str, reference: str) -> Job:
        return resolved(base, reference if self._followed is None else self._followed(reference), "a next page")

    def _check_downgrade(self, here: str, there: str) -> None:
        if not self._downgrade and here.startswith("https:") and not there.startswith("https:"):
            raise ValueError(f"is at {shown(there)[:_SHOWN]!r}, which request.downgrade: refuse does not allow")


def page_id(root: str, page: int) -> str:
    """Return the id of a page of a listing, by the id of its first one."""
    return f"{root}~{page}"


def _key(root: str, page: int) -> str:
    """Return what a queue knows a page by, which it takes but once. The NUL tells it from a URL, or a key of a row."""
    return f"\0{page_id(root, page)}"


def _checked(url: str) -> Job:
    """Return a job with nothing but a URL that we made ourselves, from one that was checked and what a server sent."""
    made = make_job("", url)
    if made.rejected is not None:
        raise ValueError(made.rejected.message)
    return made


def _as_json(headers: list[Header]) -> list[Header]:
    return headers if any(name.lower() == _JSON[0] for name, _ in headers) else [*headers, _JSON]


def _form(settings: PaginationSettings) -> Form:
    if settings.cursor is not None:
        return Cursor(settings.cursor)
    if settings.page is not None:
        return Page(settings.page)
    if settings.offset is not None:
        return Offset(settings.offset)
    return NextLink()
