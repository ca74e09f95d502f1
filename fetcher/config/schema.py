"""The JSON Schema of a config file, for editors and for our own messages."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from fetcher.config.model import Config

if TYPE_CHECKING:
    from fetcher.settings import Settings

# ${VAR} may stand wherever a value may, and an editor knows nothing of what it will give.
_VARIABLE = {"type": "string", "pattern": r"\$\{", "description": "A value from the environment."}
_ABOUT = {"title", "description", "default", "examples"}


def _tidy(node: Any) -> Any:
    """Return a schema with what people read in it, and nothing that differs from one process to the next."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    about = {key: node[key] for key in _ABOUT - {"title"} if key in node}
    if about.get("default", "") is None or isinstance(about.get("default"), dict | list):
        # What a section is by default stands with its own keys.
        del about["default"]
    rules = {key: _tidy(value) for key, value in node.items() if key not in _ABOUT | {"properties"}}
    if "properties" in node:
        # The keys are names of fields here, not words of JSON Schema.
        rules["properties"] = {name: _tidy(value) for name, value in node["properties"].items()}
        if "const" in node["properties"].get("type", {}):
            # It has a default for code that builds the part, but in a config it tells the parts apart.
            rules["required"] = ["type", *rules.get("required", ())]
    if rules.get("type") in {"integer", "number", "boolean"} or "enum" in rules:
        rules = {"anyOf": [rules, {"$ref": "#/$defs/Variable"}]}
    return dict(sorted(about.items())) | rules


@cache
def _schema_text(root: type[Settings]) -> str:
    schema = root.model_json_schema()
    properties = {name: _tidy(value) for name, value in schema.pop("properties").items()}
    definitions = {name: _tidy(value) for name, value in schema.pop("$defs").items()}
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "fetcher config"}
    schema |= {"properties": properties, "$defs": definitions | {"Variable": _VARIABLE}}
    return json.dumps(schema | draft)


def json_schema(root: type[Settings] = Config) -> dict[str, Any]:
    """Return the JSON Schema of a config file, for editors."""
    schema: dict[str, Any] = json.loads(_schema_text(root))
    return schema
