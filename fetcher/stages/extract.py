"""Values out of bodies: JMESPath for JSON, CSS selectors for HTML."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import msgspec
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fetcher.answers.contents import body_of, text_of
from fetcher.answers.expressions import compiled, json_of
from fetcher.errors import ConfigError
from fetcher.extras import load_extra
from fetcher.model import Outcome
from fetcher.settings import Settings
from fetcher.stages.page import Rule, find

if TYPE_CHECKING:
    from collections.abc import Callable

    from fetcher.model import Result

_ATTRIBUTE = re.compile(r"(.*?)::attr\(\s*([^\s()]+)\s*\)\s*")


class CssRule(Settings):
    """What a selector finds: the text of the first element, or one of its attributes, or that of all of them."""

    selector: str = Field(min_length=1)
    attr: str | None = None
    """The attribute to take instead of the text."""
    all: bool = False
    """A list of all that is found, instead of the first."""


def _rule(value: object) -> object:
    """Read ``a::attr(href)``, which is how other tools write the attribute of an element."""
    if not isinstance(value, str):
        return value
    match = _ATTRIBUTE.fullmatch(value)
    return {"selector": value} if match is None else {"selector": match[1] or "*", "attr": match[2]}


class ExtractConfig(Settings):
    """``extracted`` gets a value for each name. Only records that are ``ok`` and have a body are looked at."""

    extras: ClassVar[tuple[str, ...]] = ("extract",)
    type: Literal["extract"] = "extract"
    json_: dict[str, str] = Field(default={}, alias="json")
    """Name and JMESPath expression, for bodies that are JSON."""
    css: dict[str, Annotated[CssRule, BeforeValidator(_rule, json_schema_input_type=CssRule | str)]] = Field(default={})
    """Name and CSS selector, for bodies that are HTML: `h1`, `a::attr(href)`, or `{selector, attr, all}`."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if bool(self.json_) == bool(self.css):
            raise PydanticCustomError("extract", "needs either json or css, and at least one name in it")
        return self

    def build(self) -> ExtractStage:
        """Return the stage."""
        if self.json_:
            return ExtractStage(lambda: _json_reader(self.json_))
        return ExtractStage(lambda: _html_reader(self.css))


class ExtractStage:
    """Reads values out of bodies. ``prepare`` compiles what it looks for, and raises ConfigError if it can not."""

    concurrency = 0

    def __init__(self, prepare: Callable[[], Callable[[bytes, str | None], dict[str, Any]]]) -> None:
        self._prepare = prepare
        self._read: Callable[[bytes, str | None], dict[str, Any]] | None = None

    def check(self) -> None:
        """Raise ConfigError for an expression that can not be read, MissingExtraError without the libraries."""
        self._read = self._prepare()

    def apply(self, result: Result) -> Result:
        """Return the record with what its body has. Raises ValueError if that is not what it should be."""
        if self._read is None:
            self.check()
        body = body_of(result) if result.outcome is Outcome.OK else None
        if not body or self._read is None:
            return result
        found = self._read(body, result.content_type)
        return msgspec.structs.replace(result, extracted=(result.extracted or {}) | found)


def _json_reader(rules: dict[str, str]) -> Callable[[bytes, str | None], dict[str, Any]]:
    load_extra("jmespath", "extract", "the stage extract")
    wanted = {name: compiled(expression, f"stage extract: {name}") for name, expression in rules.items()}

    def read(body: bytes, _: str | None) -> dict[str, Any]:
        data = json_of(body)
        return {name: search(data) for name, search in wanted.items()}

    return read


def _html_reader(rules: dict[str, CssRule]) -> Callable[[bytes, str | None], dict[str, Any]]:
    lexbor = load_extra("selectolax.lexbor", "extract", "the stage extract")
    for name, rule in rules.items():
        try:
            lexbor.LexborHTMLParser("<p>").css(rule.selector)
        except (lexbor.SelectolaxError, ValueError, RuntimeError) as error:
            raise ConfigError(f"stage extract: {name}: {rule.selector[:200]!r} is no CSS selector") from error

    wanted = [Rule(name, rule.selector, rule.attr, rule.all) for name, rule in rules.items()]

    def read(body: bytes, content_type: str | None) -> dict[str, Any]:
        return find(text_of(body, content_type).text, wanted, lexbor)

    return read
