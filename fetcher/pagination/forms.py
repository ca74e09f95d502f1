"""The ways in which answers say which page is next, one function object each. What they find is still to be checked.

All of them raise ValueError, whose message may stand in a record, for an answer that does not say it as it should.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from fetcher.answers.expressions import compiled, json_of
from fetcher.pagination.links import links_of
from fetcher.pagination.queries import parameter, with_parameter
from fetcher.references import BadReferenceError, resolved, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from fetcher.model import Job, Result
    from fetcher.pagination.settings import CursorForm, OffsetForm, PageForm

_NO_CONTENT = 204
_SHOWN = 100


class Wanted(msgspec.Struct, frozen=True):
    """A page to ask for: at ``url``, or at a ``reference`` of the server's; with another ``body`` if that is set."""

    url: str | None = None
    reference: str = ""
    body: bytes | None = None


class Form(Protocol):
    """One way. ``of_body``: it reads bodies. ``check`` goes first."""

    of_body: bool

    def check(self) -> None:
        """Compile what there is to compile. Raises ConfigError, or MissingExtraError without the library for it."""
        ...

    def begin(self, url: str) -> str:
        """Return the URL of the first page, from that of the input."""
        ...

    def next(self, job: Job, result: Result) -> Wanted | None:
        """Return the page after an answer, None if that was the last. Raises ValueError."""
        ...


class NextLink:
    """The header ``Link`` with the relation ``next`` (RFC 8288)."""

    of_body = False

    def check(self) -> None:
        """Do nothing: there is nothing to compile."""

    def begin(self, url: str) -> str:
        """Return the URL as it is."""
        return url

    def next(self, job: Job, result: Result) -> Wanted | None:
        """Return where the link leads. One whose context is another resource (``anchor``) is none of this page."""
        here = result.final_url or job.url
        found: set[str] = set()
        unread = ""
        for links in links_of(result.headers or []):
            own = [link for link in links.found if "next" in link.relations and _is_of(here, link.anchor)]
            found.update(link.target for link in own)
            unread = unread or links.rest
        if len(found) > 1:
            raise ValueError("the header Link names several next pages")
        if not found and "next" in unread.lower():
            raise ValueError(f"the header Link can not be read from here on: {shown(unread)[:_SHOWN]!r}")
        return Wanted(reference=found.pop()) if found else None


def _is_of(page: str, anchor: str | None) -> bool:
    """Tell whether a link with such an anchor is one of the page, and not of a part of it, or of something else."""
    if anchor is None:
        return True
    try:
        return not anchor.partition("#")[2] and resolved(page, anchor).url == page
    except BadReferenceError:
        return False


class _Paths:
    """Reads bodies by JMESPath: each path has the name of its setting, and None if that is not set."""

    of_body = True

    def __init__(self, section: str, **paths: str | None) -> None:
        self._section = section
        self._paths = {name: path for name, path in paths.items() if path is not None}
        self._searches: dict[str, Callable[[Any], Any]] = {}

    def check(self) -> None:
        """Compile the paths."""
        self._searches = {
            name: compiled(path, f"pagination.{self._section}.{name}") for name, path in self._paths.items()
        }

    def _read(self, result: Result) -> dict[str, Any] | None:
        """Return what is found by each path, None if there is nothing, and nothing was to be."""
        if result.status == _NO_CONTENT:
            return None
        if result.content_encoding is not None:
            raise ValueError(f"the body is still coded as {result.content_encoding[:_SHOWN]!r}")
        if not result.body:
            raise ValueError("there is no body in which the next page could be named")
        if result.truncated:
            raise ValueError("the body was cut at body.max_size")
        data = json_of(result.body)
        return {name: self._found(name, search, data) for name, search in self._searches.items()}

    def _found(self, name: str, search: Callable[[Any], Any], data: Any) -> Any:
        try:
            return search(data)
        except ValueError as error:
            raise ValueError(f"{self._path(name)}: {error}") from None

    def _path(self, name: str) -> str:
        return f"pagination.{self._section}.{name} ({self._paths[name][:_SHOWN]})"

    def _items(self, values: dict[str, Any], page: int) -> int | None:
        """Return how many items a page has, None if nobody counts them.

        Nothing there, or null, is the end only behind pages that had items, or where the total is 0: on a first page it
        is a path that leads nowhere, and would end every listing as if all were well.
        """
        if "items" not in self._paths:
            return None
        items = values["items"]
        if items is None and page == 1 and self._total(values) != 0:
            raise ValueError(f"{self._path('items')} is not in the first page, or null; [] would be the end")
        if items is None:
            return 0
        if not isinstance(items, list | dict):
            raise ValueError(f"{self._path('items')} is {_kind(items)}, and should be a list")  # noqa: TRY004
        return len(items)

    def _total(self, values: dict[str, Any]) -> int | None:
        """Return a total, None if the answer has none though the items say as well where the end is."""
        if "total" not in self._paths:
            return None
        total = values["total"]
        if total is None and "items" in self._paths:
            return None
        number = _number(total)
        if number is None:
            raise ValueError(f"{self._path('total')} is {_kind(total)}, and should be a whole number")
        return number


class Cursor(_Paths):
    """A cursor in the body, or a whole URL."""

    def __init__(self, form: CursorForm) -> None:
        super().__init__("cursor", json=form.json_, url=form.url)
        self._form = form

    def begin(self, url: str) -> str:
        """Return the URL as it is: only an answer knows a cursor."""
        return url

    def next(self, job: Job, result: Result) -> Wanted | None:
        """Return the page that the cursor stands for."""
        values = self._read(result)
        name, cursor = next(iter(values.items())) if values else ("", None)
        if cursor is None or cursor is False or cursor == "":
            return None
        if isinstance(cursor, bool | list | dict) or (name == "url" and not isinstance(cursor, str)):
            raise ValueError(f"{self._path(name)} is {_kind(cursor)}, and should be text")
        if name == "url":
            return Wanted(reference=cursor)
        if isinstance(cursor, float) and cursor.is_integer():
            cursor = int(cursor)  # as anybody else writes it: 20, and not 20.0
        if self._form.in_ == "json":
            return Wanted(job.url, body=_with_member(job.body, self._form.param, cursor))
        return Wanted(with_parameter(job.url, self._form.param, str(cursor)))


class Page(_Paths):
    """A page number in the URL."""

    def __init__(self, form: PageForm) -> None:
        super().__init__("page", items=form.items, total=form.total)
        self._form = form

    def begin(self, url: str) -> str:
        """Return the URL with the number of the first page, if it has none."""
        return _with_default(url, self._form.param, self._form.first)

    def next(self, job: Job, result: Result) -> Wanted | None:
        """Return the page with the next number."""
        values = self._read(result)
        if values is None or self._items(values, job.page) == 0:
            return None
        number = _asked(job.url, self._form.param, self._form.first) + 1
        total = self._total(values)
        if total is not None and number - self._form.first >= total:
            return None
        return Wanted(with_parameter(job.url, self._form.param, str(number)))


class Offset(_Paths):
    """A number of items in the URL that are left out."""

    def __init__(self, form: OffsetForm) -> None:
        super().__init__("offset", items=form.items, total=form.total)
        self._form = form

    def begin(self, url: str) -> str:
        """Return the URL with an offset of 0 and the limit, as far as it has none."""
        url = _with_default(url, self._form.param, 0)
        return url if self._form.limit_param is None else _with_default(url, self._form.limit_param, self._form.limit)

    def next(self, job: Job, result: Result) -> Wanted | None:
        """Return the page after the items that there were."""
        values = self._read(result)
        if values is None:
            return None
        limit, offset = self._limit(job.url), _asked(job.url, self._form.param, 0)
        items, total = self._items(values, job.page), self._total(values)
        # A server may give fewer than it was asked for, and then there is more after these, not after the limit.
        offset += limit if items is None else items
        if items == 0 or (items is not None and total is None and items < limit):
            return None
        if total is not None and offset >= total:
            return None
        return Wanted(with_parameter(job.url, self._form.param, str(offset)))

    def _limit(self, url: str) -> int:
        form = self._form
        return form.limit if form.limit_param is None else _asked(url, form.limit_param, form.limit)


def _with_default(url: str, name: str, value: int) -> str:
    return url if parameter(url, name) is not None else with_parameter(url, name, str(value))


def _asked(url: str, name: str, default: int) -> int:
    """Return the number that a parameter of a URL is."""
    value = parameter(url, name)
    if value is None:
        return default
    number = _number(value)
    if number is None:
        raise ValueError(f"the parameter {name[:_SHOWN]} of the URL is {value[:_SHOWN]!r}, which is no number")
    return number


def _number(value: object) -> int | None:
    """Return a whole number that is not negative, and may be written as text; None if it is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < _SHOWN:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _with_member(body: bytes | None, name: str, value: object) -> bytes:
    """Return a JSON object with a member set."""
    try:
        document = json_of(body) if body else {}
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ValueError("the request's body is no JSON object, into which a cursor could be put")  # noqa: TRY004
    return msgspec.json.encode(document | {name: value})


def _kind(value: object) -> str:
    """Name what a JSON value is, and not the value, which may be anybody's secret."""
    if value is None:
        return "not there"
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return kinds.get(type(value), "an object")
