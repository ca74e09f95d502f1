"""What job a row becomes: the section ``job`` of a source, whose texts have places for the columns of its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Protocol, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fetcher.errors import ErrorKind
from fetcher.jobs.intake import RowError, check_method, make_job, rejected_job
from fetcher.jobs.objects import job_from_mapping
from fetcher.jobs.templating import DataTemplate, Template, UrlTemplate, one_line, text_of, valued
from fetcher.model import Rejection
from fetcher.settings import Secret, Settings, read_secret
from fetcher.sources.request_settings import BODY_SCHEMA, Credentials, ParamValue, ReceiveConfig
from fetcher.sources.rows import Columns, priority_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fetcher.model import Job

    Row = Mapping[str, Any]
    Fill = Callable[[Row], Any]

    class Make(Protocol):
        """Makes the job of a row that is nothing but a URL."""

        def __call__(self, job_id: str, url: str, meta: dict[str, Any] | None = None) -> Job:
            """Return it; one that is not usable is a rejected job."""
            ...


_LINES = frozenset({"tcp", "tls", "udp", "ws", "wss"})
_ANY_URL = "http://host.invalid/"
_FREE = ("receive", "method")
_TEXTS = {"headers", "method", "key", "multipart"}
_DATA = {"params", "form", "json_body", "priority", "timeout", "verify"}
_SWITCH = {"true": True, "false": False}


def _template(value: str) -> str:
    Template(value)
    return value


def _url_template(value: str) -> str:
    UrlTemplate(value)
    return value


def _data(value: Any) -> Any:
    DataTemplate(value)
    return value


def _literal(value: object) -> object:
    """Read a secret that is kept elsewhere; the braces in it are no places."""
    if not isinstance(value, dict):
        return value
    secret = read_secret(value)
    return secret.replace("{", "{{").replace("}", "}}") if isinstance(secret, str) else secret


def _secret_template(value: Secret) -> Secret:
    try:
        Template(value.get_secret_value())
    except ValueError:
        message = "has a brace that is no place such as {name}; one that is meant as such is written twice"
        raise ValueError(message) from None
    return value


Text = Annotated[str, AfterValidator(_template)]
SecretText = Annotated[Secret, BeforeValidator(_literal), AfterValidator(_secret_template)]
Values = Annotated[dict[str, ParamValue], AfterValidator(_data)]


class PartTemplate(Settings):
    """One part of a ``multipart/form-data`` body (RFC 7578); all of its texts may have places."""

    name: Text
    """The name of the field."""
    value: Text | int | float | bool | None = None
    """The value of the field, if it is none with a file."""
    path: Text | None = None
    """The file that is sent, relative to ``request.upload_dir`` and within it."""
    filename: Text | None = None
    """What the file is called; by default its own name."""
    content_type: Text | None = None
    """By default what goes with the suffix of the file."""


class AuthTemplate(Credentials):
    """Who asks: ``username`` and ``password``, or ``token``; all of them may have places."""

    username: Text | None = None
    """The user, with ``password``."""
    password: SecretText | None = None
    """Text, or ``{env: NAME}`` or ``{file: path}``."""
    token: SecretText | None = None
    """A bearer token: text, or ``{env: NAME}`` or ``{file: path}``."""


class JobTemplate(Settings):
    """What job each row becomes. ``{name}`` or ``{row.name}`` is what the row has in that column, always as data."""

    url: Annotated[str, AfterValidator(_url_template)] | None = None
    """Where to fetch, such as ``https://api.example/{city}``; by default what is in the column of the URL."""
    method: Text | None = None
    """The request method; of tcp, tls and udp SEND, of ftp RETR or LIST."""
    headers: dict[str, Text] | None = None
    """Request headers, added to those of ``request``."""
    params: Values | None = None
    """Added to the query of the URL, percent-encoded. A value that is null is left out, a list is several pairs."""
    json_body: Annotated[Any, AfterValidator(_data)] = Field(default=None, alias="json")
    """The request body, as JSON. A text that is one place keeps the type that the row has."""
    form: Values | None = None
    """The request body, as the pairs of a form (``application/x-www-form-urlencoded``)."""
    multipart: Annotated[list[PartTemplate], Field(min_length=1)] | None = None
    """The request body, as parts (``multipart/form-data``), among them files."""
    body: Annotated[Text | dict[str, str], BODY_SCHEMA] | None = None
    """The request body: one column such as ``"{text}"``, text without places, ``{hex: 00ff}`` or ``{base64: AP8=}``. To
    a socket it may be a line such as ``"GET {key}\\r\\n"``, in which no value may have a line end."""
    auth: AuthTemplate | None = None
    """Who asks: ``{username, password}`` or ``{token}``."""
    receive: ReceiveConfig | None = None
    """When the answer of a socket or WebSocket is whole."""
    priority: int | Text | None = None
    """Higher goes first."""
    timeout: float | Text | None = Field(default=None, examples=["10s"])
    """How long one attempt may take, in place of ``request.timeout.total``."""
    verify: bool | Text | None = None
    """``false`` takes any certificate; in place of ``http.tls.verify``."""
    key: Text | None = None
    """Jobs with the same key are fetched once."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        RowMaker(self).check()
        return self


class RowMaker:
    """A ``JobTemplate``, read. ``names``: the columns that it needs; ``url``: the template of the URL if it has one."""

    def __init__(self, template: JobTemplate) -> None:
        """Read it. Raises ValueError for what is wrong with it."""
        texts = template.model_dump(exclude_unset=True, exclude_none=True, include=_TEXTS)
        if template.auth is not None:
            texts["auth"] = template.auth.revealed()
        data = template.model_dump(exclude_unset=True, include=_DATA, by_alias=True)
        self._url = None if template.url is None else UrlTemplate(template.url)
        self._texts = DataTemplate(texts, as_text=True)
        self._data = DataTemplate(data)
        self._body, in_body = _body(template.body, None if self._url is None else self._url.scheme)
        self._receive = None if template.receive is None else template.receive.model_dump(exclude_unset=True)
        in_url = [] if self._url is None else self._url.names
        self.url = template.url
        self.names = list(dict.fromkeys([*in_url, *self._texts.names, *self._data.names, *in_body]))

    def filled(self, row: Row) -> dict[str, Any]:
        """Return what it says of the job of a row, as a job object. Raises RowError."""
        found = self._but_url(row)
        if self._url is not None:
            found["url"] = self._url.filled(row)
        return found

    def _but_url(self, row: Row) -> dict[str, Any]:
        found: dict[str, Any] = self._data.filled(row) | self._texts.filled(row)
        if isinstance(found.get("priority"), str):
            found["priority"] = priority_of(found["priority"])
        if isinstance(verify := found.get("verify"), str):
            found["verify"] = _SWITCH.get(verify.lower(), verify)
        if self._body is not None:
            found["body"] = self._body(row)
        if self._receive is not None:
            found["receive"] = self._receive
        return found

    def job(self, job_id: str, row: Row, url: object = None, meta: dict[str, Any] | None = None) -> Job:
        """Return the job of a row, whose ``url`` is taken where the template has none. Never raises."""
        try:
            found = {"url": url, **self.filled(row), "meta": meta}
        except RowError as error:
            return rejected_job(job_id, self.url or (url if isinstance(url, str) else ""), error, meta)
        return job_from_mapping(job_id, found)

    def check(self) -> None:
        """Raise ValueError for what no row can make right."""
        found = self._but_url(_Sample())
        found["url"] = _ANY_URL if self._url is None else self._url.sample()
        if "method" in found:
            check_method(found["method"])
        for name in _FREE if self._url is None or self._url.scheme is None else ():
            # They go by the scheme, which only a row has.
            found.pop(name, None)
        _drop_samples(found, ("timeout", "verify", "method"))
        for part in found.get("multipart") or ():
            _drop_samples(part, ("content_type",))
        rejected = job_from_mapping("", found).rejected
        if rejected is not None:
            raise ValueError(rejected.message)


class TemplatedColumns(Columns, kw_only=True):
    """Columns of rows that become jobs by a template, whose URL may be one of them."""

    maker: RowMaker

    def named(self) -> list[str]:
        """Return the columns that have to be there."""
        own = super().named()
        return list(dict.fromkeys([*(own[1:] if self.maker.url else own), *self.maker.names]))

    def job(self, number: str, fields: dict[str, Any]) -> Job:
        """Make the job of a row, all of whose fields are its ``meta`` but for the one of the URL."""
        url = None if self.maker.url else fields.get(self.url)
        meta = {name: value for name, value in fields.items() if self.maker.url or name != self.url}
        job = self.maker.job(number, fields, url.strip() if isinstance(url, str) else url, meta or None)
        if job.rejected is None:
            try:
                self._fill(job, {name: fields.get(name) for name in super().named()[1:]})
            except RowError as error:
                job = rejected_job(number, job.url, error, meta or None)
        if job.rejected is not None and job.rejected.kind == ErrorKind.INVALID_ROW:
            job.rejected = Rejection(job.rejected.kind, f"{self.name}:{number}: {job.rejected.message}")
        return job

    @property
    def bare(self) -> Make:
        """What makes the job of a row that is nothing but a URL."""
        return lambda number, url, meta=None: self.maker.job(number, {}, url, meta)


def static_maker(job: JobTemplate | None) -> Make:
    """Return what makes the job of a URL, by a template without places if there is one."""
    if job is None:
        return make_job
    maker = RowMaker(job)
    return lambda job_id, url, meta=None: maker.job(job_id, {}, url, meta)


def check_static(job: JobTemplate | None, kind: str) -> None:
    """Raise ValueError for a template of rows that are nothing but a URL: with a place, or with a URL of its own."""
    maker = None if job is None else RowMaker(job)
    if maker is not None and maker.url is not None:
        raise ValueError(f"job.url means nothing in {kind}, which has URLs and nothing else")
    if maker is not None and maker.names:
        raise ValueError(f"job has the place {{{maker.names[0]}}}, and {kind} has no columns")


def _static(job: JobTemplate | None) -> JobTemplate | None:
    check_static(job, "this source")
    return job


StaticJob = Annotated[JobTemplate | None, AfterValidator(_static)]
"""A template without places, for sources that have URLs and nothing else."""


def _body(body: str | dict[str, str] | None, scheme: str | None) -> tuple[Fill | None, list[str]]:
    """Return what makes the body of a row, and the columns that it needs. Raises ValueError."""
    if not isinstance(body, str):
        return (None if body is None else lambda _: dict(body)), []
    template = Template(body)
    if (sole := template.sole) is not None:
        return lambda row: _whole(sole, valued(row, sole)), template.names
    if template.names and scheme not in _LINES:
        message = "body has a place within other text; write json or form, which encode what fills it, or a place alone"
        raise ValueError(message if scheme else f"{message}, or a url with its scheme, such as tcp://host:port")
    return lambda row: template.filled(row, one_line), template.names


def _whole(name: str, value: Any) -> str | dict[str, str]:
    """Return a value that is all of a body."""
    return {"hex": value.hex()} if isinstance(value, bytes) else text_of(name, value)


class _Sample(dict[str, Any]):
    """A row that has a value in every column."""

    VALUE = "1"

    def __missing__(self, name: str) -> str:
        return self.VALUE


def _drop_samples(found: dict[str, Any], names: tuple[str, ...]) -> None:
    """Leave out what is nothing but a place, and goes by rules that a sample does not keep to."""
    for name in names:
        if found.get(name) == _Sample.VALUE:
            del found[name]
