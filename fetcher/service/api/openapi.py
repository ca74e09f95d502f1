"""The OpenAPI 3.1 document of the API, made from the operations that answer and the models that they answer with."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

from fetcher import __version__
from fetcher.service.api.problems import MEDIA_TYPE
from fetcher.service.models import BatchView, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic import BaseModel

    from fetcher.service.api.operations import Body, Operation, Reply

_VERSION = "3.1.1"
_BATCH_ID = "{batch_id}"
_ID_OF_ANSWER = {"batch_id": "$response.body#/id"}
_SCHEMAS = "#/components/schemas/{model}"
_TOKEN = "token"  # noqa: S105  the name of a scheme
_SENTENCES = {
    400: "The request is not as it should be; the problem says what is wrong.",
    401: "This takes a token.",
    403: "The token does not allow this, or a page of another origin asks.",
    404: "There is none with that id.",
    408: "The body came too slowly.",
    409: "The state of the batch does not allow this; the problem says what does.",
    413: "The body is larger than the service takes.",
    415: "Nothing here takes a body of that type.",
    421: "The service is not called by that name (Host).",
    422: "The batch can not be run as it stands; the problem has everything that is wrong with it.",
    500: "A fault of the service; its log says more.",
    503: "The service takes no work now, or has too many connections.",
    507: "The disk of the service is full.",
}
_ALWAYS = frozenset({400, 421, 403, 500, 503})
_ABOUT = (
    "Fetches batches of URLs and keeps a record of each. Every problem is application/problem+json (RFC 9457). "
    "Times are ISO 8601 in UTC, durations are seconds, sizes are bytes."
)


def document(operations: Sequence[Operation], *, secured: bool) -> dict[str, Any]:
    """Return the document. ``secured``: whether the service has tokens, so that requests take one."""
    components: dict[str, Any] = {"schemas": _schemas(operations)}
    if secured:
        components["securitySchemes"] = {_TOKEN: {"type": "http", "scheme": "bearer"}}
    paths: dict[str, Any] = {}
    # What can be asked next of a batch that an answer shows.
    about_batches = [operation.id for operation in operations if _BATCH_ID in operation.path]
    for operation in operations:
        made = _operation(operation, about_batches, secured=secured)
        paths.setdefault(operation.path, {})[operation.method.lower()] = made
    return {
        "openapi": _VERSION,
        "info": {"title": "fetcher", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "components": components,
    }


def _schemas(operations: Iterable[Operation]) -> dict[str, Any]:
    """Return the schemas of all models by name."""
    replies = (reply for operation in operations for reply in operation.replies)
    answered = dict.fromkeys(reply.model for reply in replies if reply.model is not None)
    models: list[type[BaseModel]] = [*answered, Problem]
    _, found = models_json_schema([(model, "serialization") for model in models], ref_template=_SCHEMAS)
    schemas: dict[str, Any] = found["$defs"]
    return {name: schemas[name] for name in sorted(schemas)}


def _operation(operation: Operation, about_batches: Sequence[str], *, secured: bool) -> dict[str, Any]:
    protected = secured and operation.scope is not None
    made: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": list(_parameters(operation)),
        "responses": _responses(operation, about_batches, protected=protected),
    }
    if operation.description:
        made["description"] = operation.description
    if operation.bodies:
        made["requestBody"] = {"required": True, "content": dict(_contents(operation.bodies))}
    if protected:
        made["security"] = [{_TOKEN: []}]
        made["x-scope"] = operation.scope
    return made


def _parameters(operation: Operation) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", operation.path):
        schema = {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    if operation.query is not None:
        yield from _query_parameters(operation.query)
    for header in operation.headers:
        yield {
            "name": header.name,
            "in": "header",
            "required": False,
            "description": header.description,
            "schema": header.schema,
        }


def _query_parameters(query: type[BaseModel]) -> Iterator[dict[str, Any]]:
    schema = query.model_json_schema()
    definitions = schema.get("$defs", {})
    for name, field in schema["properties"].items():
        rules = _inlined(field, definitions)
        description = rules.pop("description", "")
        yield {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": description,
            "schema": rules,
        }


def _inlined(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter by itself. What may be left out is not null: no URL can say that."""
    rules = {key: value for key, value in field.items() if key not in {"anyOf", "$ref", "title"}}
    if rules.get("default", "") is None:
        del rules["default"]
    for choice in field.get("anyOf", [field]):
        if "$ref" in choice:
            found = definitions[choice["$ref"].rpartition("/")[2]]
            rules |= {key: found[key] for key in ("type", "enum")}
        elif choice is not field and choice != {"type": "null"}:
            rules |= choice
    return rules


def _contents(bodies: Iterable[Body]) -> Iterator[tuple[str, dict[str, Any]]]:
    for body in bodies:
        for media_type in body.media_types:
            content = {"schema": {"description": body.description} | body.schema}
            yield media_type, content if body.example is None else content | {"example": body.example}


def _responses(operation: Operation, about_batches: Sequence[str], *, protected: bool) -> dict[str, Any]:
    responses = {str(reply.status): _response(reply, about_batches) for reply in operation.replies}
    own = operation.problems | _ALWAYS | ({401} if protected else frozenset())
    for status in sorted(own):
        responses.setdefault(str(status), _problem(status))
    return dict(sorted(responses.items()))


def _response(reply: Reply, about_batches: Sequence[str]) -> dict[str, Any]:
    made: dict[str, Any] = {"description": reply.description}
    if reply.media_types:
        made["content"] = {media_type: _content(reply) for media_type in reply.media_types}
    if reply.headers:
        made["headers"] = {
            name: {"description": description, "schema": {"type": "string"}} for name, description in reply.headers
        }
    if reply.model is BatchView and about_batches:
        made["links"] = {name: {"operationId": name, "parameters": _ID_OF_ANSWER} for name in about_batches}
    return made


def _content(reply: Reply) -> dict[str, Any]:
    return {"schema": {"type": "string"} if reply.model is None else _reference(reply.model)}


def _problem(status: int) -> dict[str, Any]:
    description = _SENTENCES.get(status, f"{HTTPStatus(status).phrase}.")
    made: dict[str, Any] = {"description": description, "content": {MEDIA_TYPE: {"schema": _reference(Problem)}}}
    if status == HTTPStatus.UNAUTHORIZED:
        made["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}}
    return made


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _SCHEMAS.format(model=model.__name__)}
