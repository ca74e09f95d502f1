from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from openapi_spec_validator import validate
from pydantic import Field

from fetcher.service.api.openapi import document
from fetcher.service.api.operations import WHOLE, Body, Header, Operation, Query, Reply
from fetcher.service.api.reference.page import render
from fetcher.service.models import BatchView


class Size(StrEnum):
    SMALL = "small"


class Questions(Query):
    size: Size | None = None
    """How ``large``."""
    count: Annotated[int, Field(ge=1), WHOLE] = 3


async def answer(*_):
    raise NotImplementedError


ASKING = Operation(
    "ask<b>",
    "POST",
    "/v1/{thing}/ask",
    "Ask & see",
    answer,
    (Reply(200, "An <answer>.", model=BatchView, headers=(("Location", "Where."),)), Reply(204, "None.", ())),
    "Things",
    scope="write",
    query=Questions,
    headers=(Header("If-Match", "Which.", {"type": "string"}),),
    bodies=(Body("Text & more.", ("text/plain",), {"type": "string"}, "<script>"),),
    problems=frozenset({404}),
)
OPEN = Operation("see", "GET", "/see", "See", answer, (Reply(200, "Seen.", ("text/plain",)),), "Things", scope=None)


def test_an_operation_becomes_what_clients_read():
    made = document([ASKING, OPEN], secured=True)
    validate(made)
    asked = made["paths"]["/v1/{thing}/ask"]["post"]
    names = [(parameter["in"], parameter["name"], parameter["required"]) for parameter in asked["parameters"]]
    assert names == [
        ("path", "thing", True),
        ("query", "size", False),
        ("query", "count", False),
        ("header", "If-Match", False),
    ]
    assert asked["parameters"][1]["schema"] == {"type": "string", "enum": ["small"]}
    assert asked["parameters"][2]["schema"] == {"type": "integer", "minimum": 1, "default": 3}
    assert list(asked["responses"]) == ["200", "204", "400", "401", "403", "404", "421", "500", "503"]
    assert "content" not in asked["responses"]["204"]
    assert asked["security"] == [{"token": []}]
    assert {"BatchView", "Progress", "Problem"} <= set(made["components"]["schemas"])


def test_what_takes_no_token_says_so():
    made = document([ASKING, OPEN], secured=True)["paths"]["/see"]["get"]
    assert "security" not in made
    assert "401" not in made["responses"]


def test_a_service_without_tokens_asks_for_none():
    made = document([ASKING, OPEN], secured=False)
    validate(made)
    assert "securitySchemes" not in made["components"]
    assert "401" not in made["paths"]["/v1/{thing}/ask"]["post"]["responses"]


def test_the_page_escapes_what_it_shows():
    page = render(document([ASKING, OPEN], secured=True))
    assert "<script" not in page
    assert "<b>" not in page
    assert "An &lt;answer&gt;." in page
    assert "How <code>large</code>." in page
    assert "Authorization: Bearer" in page
