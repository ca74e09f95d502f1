"""Renders an OpenAPI document as one page of HTML. Everything that it takes from the document is escaped."""

from __future__ import annotations

import json
import re
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_ADDRESS = "{address}"
_BEARER = """-H "Authorization: Bearer $FETCHER_TOKEN" """
_CURL = (
    f"curl {{token}}--data-binary @urls.txt -H 'Content-Type: text/plain' {_ADDRESS}/v1/batches\n"
    f"curl {{token}}{_ADDRESS}/v1/batches\n"
    f"curl {{token}}{_ADDRESS}/v1/batches/ID/results"
)


def addressed(page: str, address: str) -> str:
    """Return a rendered page for whoever called the service by this address: the root of its URLs, without a slash."""
    return page.replace(_ADDRESS, escape(address))


def render(document: Mapping[str, Any]) -> str:
    """Return the page, to be ``addressed``."""
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    tags = [tag["name"] for tag in document["tags"]]
    fields = "".join(_model(*found) for found in document["components"]["schemas"].items())
    info = document["info"]
    secured = "securitySchemes" in document["components"]
    curl = _CURL.replace("{token}", _BEARER if secured else "")
    token = "<p>Requests take a token: <code>Authorization: Bearer ...</code>.</p>" if secured else ""
    sections = "".join(_section(tag, [found for found in operations if tag in found[2]["tags"]]) for tag in tags)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(info["title"])} API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/style.css">
</head>
<body>
<a class="skip" href="#main">Skip to the operations</a>
<header>
<h1>{escape(info["title"])} API <small>{escape(info["version"])}</small></h1>
<p>{escape(info["description"])}</p>
{token}
<pre tabindex="0"><code>{escape(curl)}</code></pre>
<p><a href="/">The page</a> · <a href="/openapi.json">openapi.json</a></p>
</header>
<nav aria-label="Operations"><ul>{"".join(_entry(*found) for found in operations)}</ul></nav>
<main id="main">
{sections}
<section aria-labelledby="models"><h2 id="models">Models</h2>{fields}</section>
</main>
</body>
</html>
"""


def _entry(path: str, method: str, operation: Mapping[str, Any]) -> str:
    return f'<li><a href="#{escape(operation["operationId"])}">{_method(method)} <code>{escape(path)}</code></a></li>'


def _method(method: str) -> str:
    return f'<span class="method {escape(method)}">{escape(method.upper())}</span>'


def _section(tag: str, operations: Iterable[tuple[str, str, Mapping[str, Any]]]) -> str:
    name = f"tag-{escape(tag.lower())}"
    articles = "".join(_article(*found) for found in operations)
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(tag)}</h2>{articles}</section>'


def _article(path: str, method: str, operation: Mapping[str, Any]) -> str:
    name = escape(operation["operationId"])
    scope = operation.get("x-scope")
    parts = [
        f'<article aria-labelledby="{name}"><h3 id="{name}">{_method(method)} <code>{escape(path)}</code></h3>',
        f"<p>{escape(operation['summary'])}.{f' Takes scope <code>{escape(scope)}</code>.' if scope else ''}</p>",
        f"<p>{escape(operation['description'])}</p>" if "description" in operation else "",
        _table("Parameters", ("name", "in", "type", "what it says"), _parameters(operation)),
        _table("Body", ("type", "what it is"), _bodies(operation)),
        _table("Answers", ("status", "type", "what it means"), _answers(operation)),
        "</article>",
    ]
    return "".join(parts)


def _parameters(operation: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for parameter in operation["parameters"]:
        yield (
            _code(parameter["name"]),
            escape(parameter["in"]),
            _type(parameter["schema"]),
            _prose(parameter.get("description", "")),
        )


def _bodies(operation: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    contents = operation.get("requestBody", {}).get("content", {})
    # Types that mean the same stand beside each other.
    for content, same in groupby(contents, contents.__getitem__):
        example = content.get("example", "")
        text = example if isinstance(example, str) else json.dumps(example)
        shown = f"<pre tabindex='0'><code>{escape(text)}</code></pre>" if text else ""
        yield "<br>".join(map(_code, same)), _prose(content["schema"].get("description", "")) + shown


def _answers(operation: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for status, response in operation["responses"].items():
        types = "<br>".join(
            f"{_code(media_type)} {_link(content['schema'])}"
            for media_type, content in response.get("content", {}).items()
        )
        headers = "".join(
            f"<br>{_code(name)}: {_prose(header.get('description', ''))}"
            for name, header in response.get("headers", {}).items()
        )
        yield escape(status), types, _prose(response["description"]) + headers


def _model(name: str, schema: Mapping[str, Any]) -> str:
    rows = [
        (_code(field), _type(rules), _prose(rules.get("description", "")))
        for field, rules in schema.get("properties", {}).items()
    ]
    about = _prose(schema.get("description", "")) + (f" {_type(schema)}" if "enum" in schema else "")
    table = _table("Fields", ("name", "type", "what it says"), rows)
    return f'<article><h3 id="model-{escape(name)}">{escape(name)}</h3><p>{about}</p>{table}</article>'


def _type(schema: Mapping[str, Any]) -> str:  # noqa: PLR0911  a table
    """Say in a few words what a value is."""
    if "$ref" in schema:
        return _link(schema)
    if "anyOf" in schema:
        return " or ".join(_type(choice) for choice in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(_code(str(value)) for value in schema["enum"])
    if "const" in schema:
        return _code(str(schema["const"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return escape(str(schema.get("format") or schema.get("type", "any")))


def _link(schema: Mapping[str, Any]) -> str:
    name = escape(str(schema.get("$ref", "")).rpartition("/")[2])
    return f'<a href="#model-{name}">{name}</a>' if name else ""


def _table(caption: str, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    found = list(rows)
    if not found:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in found)
    table = f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="table" tabindex="0" role="region" aria-label="{caption}">{table}</div>'


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _prose(text: str) -> str:
    """Return text of a docstring, whose ``code`` stands in backquotes."""
    return re.sub(r"`+([^`]+)`+", r"<code>\1</code>", escape(text))
