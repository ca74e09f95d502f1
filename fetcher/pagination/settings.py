"""How the next page of an answer is found: the section ``pagination`` of a config."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from fetcher.answers.expressions import JmesPath
from fetcher.settings import Settings

_FORMS = ("next", "cursor", "page", "offset")


class CursorForm(Settings):
    """The body has something that stands for the next page; null, false, "" or nothing there is the end."""

    json_: JmesPath | None = Field(default=None, alias="json")
    """A JMESPath to the cursor: `meta.next_cursor`."""
    url: JmesPath | None = None
    """Instead of ``json``: a JMESPath to the URL of the next page, whole or relative to that of this one."""
    param: str = Field(default="cursor", min_length=1)
    """The parameter that the cursor becomes in the request for the next page."""
    in_: Literal["query", "json"] = Field(default="query", alias="in")
    """Where that parameter is: in the URL, or in the request's JSON object."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.json_ is None) == (self.url is None):
            raise PydanticCustomError("cursor", "needs either json, a path to the cursor, or url, a path to a URL")
        if self.url is not None and self.model_fields_set & {"param", "in_"}:
            raise PydanticCustomError("cursor", "has param or in, which are for json; a url is asked for as it is")
        return self


class PageForm(Settings):
    """Pages are numbered. The first request says so, too, if its URL has no such number yet."""

    param: str = Field(default="page", min_length=1)
    """The parameter of the URL that is the number."""
    first: int = Field(default=1, ge=0)
    """The number of the first page."""
    items: JmesPath | None = None
    """A JMESPath to the items of a page: none is the end, and so is null behind the first page."""
    total: JmesPath | None = None
    """A JMESPath to the number of pages."""

    @model_validator(mode="after")
    def _an_end(self) -> Self:
        _check_end(self.items, self.total, "the number of pages")
        return self


class OffsetForm(Settings):
    """Pages are asked for by the number of items before them. The first request says so, too."""

    param: str = Field(default="offset", min_length=1)
    """The parameter of the URL that is the number of items to leave out."""
    limit: int = Field(default=100, ge=1)
    """How many items a page has. One that has fewer is the last, if there is no ``total``."""
    limit_param: str | None = Field(default=None, min_length=1)
    """The parameter of the URL that asks for so many; a URL that has one already keeps its own limit."""
    items: JmesPath | None = None
    """A JMESPath to the items of a page; where they are counted, the next page begins after them. None is the end, and
    so is null behind the first page."""
    total: JmesPath | None = None
    """A JMESPath to the number of all items."""

    @model_validator(mode="after")
    def _an_end(self) -> Self:
        _check_end(self.items, self.total, "the number of all items")
        return self


class PaginationSettings(Settings):
    """How the next page of an answer is found: by one of ``next``, ``cursor``, ``page`` and ``offset``."""

    next: Literal["link"] | None = None
    """``link``: the answer has a header `Link: <...>; rel="next"` (RFC 8288)."""
    cursor: CursorForm | None = None
    """The body has a cursor, or the URL of the next page."""
    page: PageForm | None = None
    """Pages are numbered."""
    offset: OffsetForm | None = None
    """Pages are asked for by how many items are before them."""
    max_pages: int = Field(default=1000, ge=1)
    """The most pages of one listing. The record of the last one says ``has_more`` if there would be another."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = [name for name in _FORMS if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"it has {' and '.join(given)}" if given else "it has none"
            words = f"needs one of next: link, cursor, page and offset; {found}"
            raise PydanticCustomError("pagination", "{words}", {"words": words})
        return self

    @property
    def of_body(self) -> str | None:
        """Which of the settings needs the body in the record, None if none does."""
        return next((name for name in _FORMS[1:] if getattr(self, name) is not None), None)


def _check_end(items: str | None, total: str | None, what: str) -> None:
    if items is None and total is None:
        words = f"would never end; it needs items, a path to the items of a page, or total, one to {what}"
        raise PydanticCustomError("pagination", "{words}", {"words": words})
