"""What an answer has to be to count as ``ok``: its status, its content type, and what its body says.

The question of the status comes first, and is about http alone. It goes either way: a status that is expected makes an
answer ``ok`` that would have failed, and one that is not makes the answer of a 200 ``unexpected``. What would have
failed by its status and was not expected keeps the kind that it has. The other questions are asked of what is ``ok``.
"""

from __future__ import annotations

import json
import re
from fnmatch import translate
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from fetcher.answers.contents import text_of
from fetcher.answers.expressions import JmesPath, compiled, is_true, json_of
from fetcher.conditions import finder
from fetcher.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fetcher.model import Response

LARGE = 64 * 1024
"""Bytes of a body from which on to look at it would hold up everything else on the loop."""
_STATUSES = re.compile(r"([1-9])xx|([1-9]\d\d)(?:\s*-\s*([1-9]\d\d))?", re.IGNORECASE)
_TOKEN = r"[!#$%&'*+.^_`|~0-9a-z-]+"  # noqa: S105  of RFC 9110, section 5.6.2
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}")
_SHOWN = 100
_OK = 200
# After 101 (RFC 9110, section 15.2.2) it is another protocol that answers.
_NOT_HTTP = frozenset({None, 101})
_HUNDRED = 100


class StatusRange(NamedTuple):
    """Statuses from one to another, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        if self.first == self.last:
            return str(self.first)
        if self.first % _HUNDRED == 0 and self.last == self.first + _HUNDRED - 1:
            return f"{self.first // _HUNDRED}xx"
        return f"{self.first}-{self.last}"


def _statuses(value: object) -> object:
    if isinstance(value, StatusRange):
        return value
    match = _STATUSES.fullmatch(str(value).strip()) if isinstance(value, str | int) else None
    if match is not None and match[1]:
        return StatusRange(int(match[1]) * _HUNDRED, int(match[1]) * _HUNDRED + _HUNDRED - 1)
    if match is None or int(match[3] or match[2]) < int(match[2]):
        raise PydanticCustomError("statuses", "should be a status such as 200, or several as 2xx or 200-204")
    return StatusRange(int(match[2]), int(match[3] or match[2]))


def _media_type(value: str) -> str:
    name = value.strip().lower()
    if not _MEDIA_TYPE.fullmatch(name):
        raise PydanticCustomError(
            "media_type", "should be a media type without parameters, such as application/json, text/* or */*+json"
        )
    return name


def _pattern(value: str) -> str:
    try:
        finder(value)
    except ValueError as error:
        raise PydanticCustomError("pattern", "{words}", {"words": str(error)}) from None
    return value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str | int) else value


_RANGE_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 100, "maximum": 999}, {"type": "string"}],
    "examples": ["2xx"],
}
Statuses = Annotated[
    StatusRange,
    BeforeValidator(_statuses),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(_RANGE_SCHEMA),
]
MediaType = Annotated[str, AfterValidator(_media_type)]


class ExpectSettings(Settings):
    """What an answer has to be to count as ``ok``: all that is set. What is not has the kind ``unexpected``."""

    status: Annotated[
        list[Statuses] | None, BeforeValidator(_listed, json_schema_input_type=list[Statuses] | int | str | None)
    ] = Field(default=None, min_length=1)
    """The statuses that are ``ok``, and no others are: `200`, `2xx`, `200-204`, or a list of such. One that is not is a
    failure even if it is a 2xx; a 404 that is expected is none. What is not http has no status, and is not asked."""
    content_type: Annotated[
        list[MediaType] | None, BeforeValidator(_listed, json_schema_input_type=list[str] | str | None)
    ] = Field(default=None, min_length=1)
    """The media types that are ``ok``: `application/json`, `text/*`, or a list of such; parameters are not compared.
    What is not http has none, and is not asked."""
    json_: JmesPath | None = Field(default=None, alias="json")
    """A JMESPath condition that the body, which has to be JSON, meets: `status == 'done'`. What is empty, null or
    false does not meet it."""
    matches: Annotated[str, AfterValidator(_pattern)] | None = Field(default=None, min_length=1)
    """A regular expression (RE2) that is found in the text of the body."""
    retry: bool = True
    """An unexpected answer is tried again, as often as other failures that pass; ``false`` lets it be the last."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.status or self.content_type or self.of_body):
            raise PydanticCustomError("expect", "needs at least one of status, content_type, json and matches")
        return self

    @property
    def of_body(self) -> tuple[str, ...]:
        """The settings that need the body in the record."""
        named = {"json": self.json_, "matches": self.matches}
        return tuple(name for name, value in named.items() if value is not None)

    def build(self) -> Expectation:
        """Return what answers are held to."""
        return Expectation(self)


class Expectation:
    """What every answer of a batch is held to. Pure; any thread may ask it. ``check`` may import what it needs."""

    def __init__(self, settings: ExpectSettings) -> None:
        self._settings = settings
        types = "|".join(translate(media_type) for media_type in settings.content_type or ())
        self._types = re.compile(types, re.IGNORECASE)
        self._find = None if settings.matches is None else finder(settings.matches)
        self._search: Callable[[Any], Any] | None = None

    def check(self) -> None:
        """Raise ConfigError for a JMESPath that can not be read, MissingExtraError if there is nothing to read it."""
        if self._settings.json_ is not None:
            self._search = compiled(self._settings.json_, "expect.json")

    def takes(self, response: Response, *, usual: bool) -> bool:
        """Tell whether the status of an answer is one that is ok; ``usual`` is whether it is if nobody says."""
        ranges, status = self._settings.status, response.status
        if ranges is None or status is None or status in _NOT_HTTP:
            return usual
        # The body of an earlier answer that was a 200, which is all that there are, is as good as another such answer.
        among = {status, _OK} if response.revalidated else {status}
        return any(found.first <= one <= found.last for found in ranges for one in among)

    def status_missed(self, response: Response) -> str:
        """Say what is wrong with a status that ``takes`` is not for."""
        return f"expected the status {_among(self._settings.status or ())}, and it is {response.status}"

    def takes_long(self, response: Response) -> bool:
        """Tell whether ``missed`` is to be called on a thread."""
        return response.body is not None and len(response.body) > LARGE and bool(self._settings.of_body)

    def missed(self, response: Response) -> str | None:
        """Say what is wrong with an answer whose status is well, None if nothing is."""
        return (
            self._type_missed(response)
            or (None if self._settings.json_ is None else self._json_missed(self._settings.json_, response))
            or (None if self._find is None else self._text_missed(self._find, response))
        )

    def _type_missed(self, response: Response) -> str | None:
        wanted = self._settings.content_type
        if wanted is None or response.status in _NOT_HTTP:
            return None
        found = (response.content_type or "").partition(";")[0].strip()
        if self._types.fullmatch(found):
            return None
        shown = f"it is {_quoted(found)}" if found else "the answer names none"
        return f"expected the content type {_among(wanted)}, and {shown}"

    def _json_missed(self, condition: str, response: Response) -> str | None:
        expected = f"expected JSON with {_quoted(condition)}"
        if (why := _unreadable(response)) is not None:
            return f"{expected}, and {why}"
        if self._search is None:
            self._search = compiled(condition, "expect.json")
        try:
            value = self._search(json_of(response.body or b""))
        except ValueError as error:
            return f"{expected}, and {_escaped(str(error))}{_cut(response)}"
        # What is not true has no contents that could be anybody's secret.
        return None if is_true(value) else f"{expected}, which is {json.dumps(value)}"

    def _text_missed(self, find: Callable[[bytes], object], response: Response) -> str | None:
        body = response.body or b""
        why = None if response.content_encoding is None else _unreadable(response)
        if why is None and find(text_of(body, response.content_type).text.encode("utf-8", "replace")) is not None:
            return None
        why = why or _unreadable(response) or f"it is not in the {len(body):,} bytes that there are{_cut(response)}"
        return f"expected a body in which {_quoted(self._settings.matches or '')} is found, and {why}"


def _among(wanted: Iterable[object]) -> str:
    """Write what would have been well, or the beginning of it."""
    text = ", ".join(map(str, wanted))
    return text if len(text) <= 2 * _SHOWN else text[: 2 * _SHOWN] + "..."


def _unreadable(response: Response) -> str | None:
    """Say why there is nothing in a body to look at, None if there is."""
    if response.content_encoding is not None:
        return f"the body is still coded as {_quoted(response.content_encoding)}"
    if not response.body:
        return "the answer has no body" + ("; HEAD asks for none" if response.method == "HEAD" else "")
    return None


def _cut(response: Response) -> str:
    return "; it was cut at body.max_size" if response.truncated else ""


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def _escaped(text: str) -> str:
    return _quoted(text)[1:-1]
