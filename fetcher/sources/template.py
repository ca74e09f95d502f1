"""Jobs whose URLs are counted out of a template: ``http://host/{1..1000}``.

``{1..1000}`` counts, ``{001..100}`` counts with leading zeros (the longer end gives the width),
``{0..100..10}`` counts in steps, ``{a,b,c}`` is a list whose items may be empty. Several of them give every
combination, the last one varying fastest. No other brace is allowed, because a mistyped range must not be
fetched as it stands: a brace that belongs to the URL is written ``%7B`` or ``%7D``, as RFC 3986 has it.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator

from fetcher.errors import SourceError
from fetcher.interfaces import Chunk
from fetcher.jobs.intake import make_job
from fetcher.settings import Settings
from fetcher.sources.row_jobs import JobTemplate, StaticJob, static_maker

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from fetcher.model import Job

_ROWS = 500  # jobs in a chunk
_BRACES = re.compile(r"\{([^{}]*)\}|[{}]")
_RANGE = re.compile(r"([0-9]+)\.\.([0-9]+)(?:\.\.([0-9]+))?")
_MAX_DIGITS = 18  # a range that no machine could ever count through is a slip of the hand


class _Range:
    """``{1..10}``: numbers, counted rather than held."""

    def __init__(self, first: int, last: int, step: int, width: int) -> None:
        self._numbers = range(first, last + 1, step)
        self._width = width
        # Not len(): it can not count beyond a machine word.
        self.size = (last - first) // step + 1

    def __getitem__(self, index: int) -> str:
        return str(self._numbers[index]).zfill(self._width)

    def probes(self) -> list[int]:
        """Return the indexes to try a template at; between the ends only digits change."""
        return [0, self.size - 1]


class _List:
    """``{a,b,c}``: texts as they stand."""

    def __init__(self, items: list[str]) -> None:
        self._items = items
        self.size = len(items)

    def __getitem__(self, index: int) -> str:
        return self._items[index]

    def probes(self) -> list[int]:
        """Return the indexes to try a template at: all, for each may be wrong in its own way."""
        return list(range(self.size))


def _slot(text: str) -> _Range | _List:
    """Read what stands between two braces. Raises ValueError if it is neither a range nor a list."""
    match = _RANGE.fullmatch(text)
    if match is None:
        if "," in text:
            return _List(text.split(","))
        raise ValueError(
            f"'{{{text}}}' is neither a range such as {{1..10}} nor a list such as {{a,b}}; "
            "a brace that belongs to the URL is written %7B or %7D"
        )
    if max(map(len, match.groups(default=""))) > _MAX_DIGITS:
        raise ValueError(f"'{{{text}}}' has a number of more than {_MAX_DIGITS} digits")
    first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if first > last:
        raise ValueError(f"'{{{text}}}' runs backwards; write {{{match[2]}..{match[1]}}}")
    if step == 0:
        raise ValueError(f"'{{{text}}}' has a step of 0, with which it never ends")
    padded = any(len(end) > 1 and end.startswith("0") for end in (match[1], match[2]))
    return _Range(first, last, step, max(len(match[1]), len(match[2])) if padded else 0)


class Template:
    """A URL with slots. ``size`` is how many URLs it stands for; they are worked out one at a time."""

    def __init__(self, text: str) -> None:
        """Read a template. Raises ValueError that says what is wrong with it."""
        self._literals: list[str] = []
        self._slots: list[_Range | _List] = []
        end = 0
        for match in _BRACES.finditer(text):
            if match[1] is None:
                raise ValueError(
                    f"the '{match[0]}' at character {match.start() + 1} has no partner; "
                    "a brace that belongs to the URL is written %7B or %7D"
                )
            self._literals.append(text[end : match.start()])
            self._slots.append(_slot(match[1]))
            end = match.end()
        self._tail = text[end:]
        self.size = math.prod(slot.size for slot in self._slots)
        if not self._slots:
            raise ValueError("has no range such as {1..10} and no list such as {a,b}; for one URL use type inline")
        self._probe()

    def url(self, index: int) -> str:
        """Return the URL at ``index``, counting from 0."""
        parts = [self._tail]
        for literal, slot in zip(reversed(self._literals), reversed(self._slots), strict=True):
            index, place = divmod(index, slot.size)
            parts += [slot[place], literal]
        return "".join(reversed(parts))

    def job(self, index: int, make: Callable[[str, str], Job] = make_job) -> Job:
        """Return the job at ``index``; its id counts from 1."""
        return make(str(index + 1), self.url(index))

    def _probe(self) -> None:
        """Try every list item and both ends of every range, each with the other slots at their first."""
        for index in self._probed():
            rejected = self.job(index).rejected
            if rejected is not None:
                # Not the URL itself, which may hold a password.
                raise ValueError(f"URL number {index + 1} of {self.size} can not be fetched: {rejected.message}")

    def _probed(self) -> Iterator[int]:
        weight = self.size
        for slot in self._slots:
            weight //= slot.size
            for place in slot.probes():
                yield place * weight


def _template(value: str) -> str:
    Template(value)
    return value


class TemplateConfig(Settings):
    """URLs counted out of a template."""

    type: Literal["template"] = "template"
    """A template."""
    url: Annotated[str, AfterValidator(_template)]
    """A URL with ranges `{1..10}`, `{001..100}`, `{0..100..10}`, lists `{a,b}`; several give every mix."""
    job: StaticJob = None
    """What each URL is asked for with: headers, params and so on, without places."""

    def build(self) -> TemplateSource:
        """Return the source."""
        return TemplateSource(self.url, self.job)


class TemplateSource:
    """Yields the URLs of a template. A position is the number of URLs before it."""

    def __init__(self, url: str, job: JobTemplate | None = None) -> None:
        self._template = Template(url)
        self._make = static_maker(job)

    def check(self) -> None:
        """Find nothing: the template was checked when the config was loaded."""

    async def read(self, position: str | None) -> AsyncGenerator[Chunk, None]:
        """Yield chunks from just after ``position`` on."""
        size = self._template.size
        start = int(position) if position is not None and position.isdecimal() else 0
        if (position is not None and not position.isdecimal()) or start > size:
            raise SourceError(
                f"template: changed since the batch was started: {size} URLs, but the batch stands at "
                f"{position!r}; put the template back, or start over with a new batch"
            )
        while start < size:
            end = min(start + _ROWS, size)
            yield Chunk([self._template.job(index, self._make) for index in range(start, end)], str(end))
            start = end
