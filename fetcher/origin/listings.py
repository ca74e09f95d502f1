"""A list of numbered items in pages, which say in every usual way where the next one is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from fetcher.origin.parsing import BadRequestError, number
from fetcher.origin.replies import Reply

if TYPE_CHECKING:
    from fetcher.origin.parsing import Request

_MOST = 1_000_000
_LARGEST = 1000
_CURSOR = "c"


def page(request: Request) -> Reply:
    """Return the page that a request asks for: by its number from 1 on, an offset, or a cursor, also in a JSON body."""
    asked = dict(parse_qsl(request.query, keep_blank_values=True))
    asked |= _in_body(bytes(request.body.kept))
    total = number(asked.get("total", "100"), _MOST)
    size = number(asked.get("limit", asked.get("size", "10")), _LARGEST)
    if not size:
        raise BadRequestError("a page has at least one item")
    first = _first(asked, size)
    behind = first + size
    following = "?" + urlencode(asked | _next(asked, behind, size)) if behind < total else None
    document = {
        "items": [{"id": item} for item in range(first, min(behind, total))],
        "page": first // size + 1,
        "pages": -(-total // size),
        "total": total,
        "next_cursor": None if following is None else f"{_CURSOR}{behind}",
        "next": following,
    }
    headers = () if following is None else (f'Link: <{following}>; rel="next"',)
    return Reply(200, json.dumps(document).encode(), headers, "application/json")


def _in_body(body: bytes) -> dict[str, str]:
    try:
        found: Any = json.loads(body) if body else {}
    except ValueError:
        raise BadRequestError("the body is not JSON") from None
    return {"cursor": found["cursor"]} if isinstance(found, dict) and isinstance(found.get("cursor"), str) else {}


def _first(asked: dict[str, str], size: int) -> int:
    """Return the number of items before the page, by the first of these that is asked for."""
    if "cursor" in asked:
        return number(asked["cursor"].removeprefix(_CURSOR), _MOST)
    if "offset" in asked:
        return number(asked["offset"], _MOST)
    return max(0, number(asked.get("page", "1"), _MOST) - 1) * size


def _next(asked: dict[str, str], behind: int, size: int) -> dict[str, str]:
    if "cursor" in asked:
        return {"cursor": f"{_CURSOR}{behind}"}
    if "offset" in asked:
        return {"offset": str(behind)}
    return {"page": str(behind // size + 1)}
