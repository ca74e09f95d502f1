"""The sections of a job in a config that say what is sent, and when the answer is whole."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    Field,
    PlainSerializer,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from fetcher.jobs.content import authorization_of, form_of, parts_of, query_of, receive_of
from fetcher.settings import Secret, Settings

ParamValue = str | int | float | bool | None | list[str | int | float | bool | None]
"""What a name in ``params`` or ``form`` may have: null is left out, a list is several pairs."""


def _either(*ways: str) -> WithJsonSchema:
    """Return the schema of bytes: text, or an object with one of some keys."""
    objects = [
        {"type": "object", "properties": {way: {"type": "string"}}, "required": [way], "additionalProperties": False}
        for way in ways
    ]
    return WithJsonSchema({"anyOf": [{"type": "string"}, *objects]})


BODY_SCHEMA = _either("hex", "base64")
"""What an editor is told of a body; what is wrong with one is said by ``body_of``."""


def _one_or_more(value: object, check: ValidatorFunctionWrapHandler) -> object:
    """Check each text of a list; what is none is told as what should be text."""
    return [check(item) for item in value] if isinstance(value, list) else check(value)


HeaderValue = Annotated[
    str,
    WrapValidator(_one_or_more),
    PlainSerializer(lambda value: value, return_type=Any),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""The value of a header, or a list of those of several headers of that name."""


def check_params(value: dict[str, Any]) -> dict[str, Any]:
    """Return params; raises RowError for those that can not be written."""
    query_of(value)
    return value


def check_form(value: dict[str, Any]) -> dict[str, Any]:
    """Return a form; raises RowError for one that can not be written."""
    form_of(value)
    return value


class PartConfig(Settings):
    """One part of a ``multipart/form-data`` body (RFC 7578)."""

    name: str
    """The name of the field."""
    value: str | int | float | bool | None = None
    """The value of the field, if it is none with a file."""
    path: str | None = None
    """The file that is sent, relative to ``request.upload_dir`` and within it. It is read when it is sent."""
    filename: str | None = None
    """What the file is called; by default its own name. With ``value`` it makes a file of that."""
    content_type: str | None = None
    """By default what goes with the suffix of the file."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        parts_of([self.model_dump(exclude_unset=True)])
        return self


class Credentials(Settings):
    """A user and password, or a token, not yet looked at."""

    username: str | None = None
    """The user, with ``password``."""
    password: Secret | None = None
    """Text, or ``{env: NAME}`` or ``{file: path}``."""
    token: Secret | None = None
    """A bearer token: text, or ``{env: NAME}`` or ``{file: path}``."""

    def revealed(self) -> dict[str, str]:
        """Return it as a job object has it, with its secrets."""
        secrets = {"password": self.password, "token": self.token}
        given = {name: secret.get_secret_value() for name, secret in secrets.items() if secret is not None}
        return given if self.username is None else {"username": self.username, **given}


class AuthConfig(Credentials):
    """Who asks: a user and password (RFC 7617), or a token (RFC 6750)."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        authorization_of(self.revealed())
        return self


class ReceiveConfig(Settings):
    """When an answer is whole that has no end of its own: one of these. Without, it ends with its connection."""

    delimiter: Annotated[str | dict[str, str], _either("hex")] | None = None
    """tcp, tls: when it ends with this, which belongs to it: text, or ``{hex: 0d0a}``."""
    length: int | None = None
    """tcp, tls: when it has so many bytes."""
    quiet: float | str | None = Field(default=None, examples=["500ms"])
    """tcp, tls: when nothing more has come for so long."""
    messages: int | None = None
    """ws, wss: after so many messages, which is 1 if nothing is said."""
    until: str | None = None
    """ws, wss: after a message that is JSON for which this JMESPath condition is true."""
    matches: str | None = None
    """ws, wss: after a message in which this pattern (RE2) is found."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        receive_of(self.model_dump(exclude_unset=True))
        return self
