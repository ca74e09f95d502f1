"""Jobs that are written into the config itself, or come in through the REST API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from fetcher.errors import SourceError
from fetcher.interfaces import Chunk
from fetcher.jobs.content import body_of
from fetcher.jobs.intake import (
    RowError,
    check_checksum,
    check_headers,
    check_meta,
    check_method,
    check_priority,
    check_text,
    check_timeout,
    encode_json,
    make_job,
)
from fetcher.jobs.objects import job_from_mapping
from fetcher.settings import Settings, parse_duration
from fetcher.sources.request_settings import (
    BODY_SCHEMA,
    AuthConfig,
    HeaderValue,
    ParamValue,
    PartConfig,
    ReceiveConfig,
    check_form,
    check_params,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from fetcher.model import Job

_ROWS = 500  # jobs in a chunk
# What may not go together, or not with a scheme; most jobs have none of it.
_TOGETHER = frozenset({"method", "params", "body", "json_body", "form", "multipart", "auth", "receive"})
_MUCH_WRONG = 100  # problems after which nobody reads on


def _url(value: str) -> str:
    rejected = make_job("", check_text("url", value)).rejected
    if rejected is not None:
        raise RowError(rejected.kind, rejected.message)
    return value


def _headers(value: dict[str, Any]) -> dict[str, Any]:
    check_headers(value)
    return value


def _text(value: str) -> str:
    return check_text("it", value)


def _body(value: str | dict[str, str]) -> str | dict[str, str]:
    body_of(value)
    return value


def _json(value: Any) -> Any:
    encode_json("it", value)
    return value


Timeout = Annotated[
    float,
    BeforeValidator(parse_duration),
    AfterValidator(check_timeout),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}], "examples": ["10s"]}),
]


class JobConfig(Settings):
    """One job of an inline source. What is not set comes from ``request``."""

    # Strict: whoever writes ``priority: "5"`` is told so, exactly as a row of input would be.
    model_config = ConfigDict(strict=True)

    url: Annotated[str, AfterValidator(_url)]
    """Where to fetch."""
    method: Annotated[str, AfterValidator(check_method)] | None = None
    """The request method; of tcp, tls and udp SEND, of ftp RETR or LIST. With a body it is POST by default, unless
    ``request.method`` is another than GET."""
    headers: Annotated[dict[str, HeaderValue], AfterValidator(_headers)] | None = None
    """Request headers, added to those of ``request``. A list is several headers of that name."""
    params: Annotated[dict[str, ParamValue], AfterValidator(check_params)] | None = None
    """Added to the query of the URL, percent-encoded: text, numbers, true or false, and lists of them."""
    body: Annotated[str | dict[str, str], AfterValidator(_body), BODY_SCHEMA] | None = None
    """The request body, or what is sent to a socket: text, ``{hex: 00ff}`` or ``{base64: AP8=}``."""
    json_body: Annotated[Any, AfterValidator(_json)] = Field(default=None, alias="json")
    """The request body, as any value that is sent as JSON; sets ``content-type`` unless ``headers`` does."""
    form: Annotated[dict[str, ParamValue], AfterValidator(check_form)] | None = None
    """The request body, as the pairs of a form (``application/x-www-form-urlencoded``)."""
    multipart: Annotated[list[PartConfig], Field(min_length=1)] | None = None
    """The request body, as parts (``multipart/form-data``), among them files."""
    auth: AuthConfig | None = None
    """Who asks: ``{username, password}`` or ``{token}``, each as text, ``{env: NAME}`` or ``{file: path}``."""
    receive: ReceiveConfig | None = None
    """When the answer of a socket or WebSocket is whole."""
    priority: Annotated[int, AfterValidator(check_priority)] = 0
    """Higher goes first."""
    timeout: Timeout | None = None
    """How long one attempt may take, in place of ``request.timeout.total``."""
    verify: bool | None = None
    """``false`` takes any certificate, for this job alone; in place of ``http.tls.verify``."""
    checksum: Annotated[str, AfterValidator(check_checksum)] | None = None
    """What the body has to hash to: sha256, sha1, md5 or sha512, such as ``sha256:9f86d0...``."""
    meta: Annotated[dict[str, Any], AfterValidator(check_meta)] | None = None
    """Carried through to the record as it is."""
    key: Annotated[str, AfterValidator(_text)] | None = None
    """Jobs with the same key are fetched once."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        rejected = None if self.model_fields_set.isdisjoint(_TOGETHER) else self.to_job("").rejected
        if rejected is not None:
            raise ValueError(rejected.message)
        return self

    def to_job(self, job_id: str) -> Job:
        """Return the job, under the id of its row."""
        row = self.model_dump(exclude_unset=True, by_alias=True)
        if self.auth is not None:
            row["auth"] = self.auth.revealed()
        return job_from_mapping(job_id, row)


def _spelled_out(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


JobRow = Annotated[JobConfig, BeforeValidator(_spelled_out, json_schema_input_type=JobConfig | str)]
"""A job object, or a string that stands for one with that URL."""


def _in_portions(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Check jobs portion by portion, so that other threads get their turn, and no further than there is much wrong."""
    if not isinstance(value, list) or len(value) <= _ROWS:
        return check(value)
    checked: list[JobConfig] = []
    end = wrong = 0
    while end < len(value) and wrong < _MUCH_WRONG:
        portion = value[end : end + _ROWS]
        end += len(portion)
        try:
            checked += check(portion)
        except ValidationError as error:
            wrong += error.error_count()
    # Once more from the start: now what is wrong has its place in the whole list.
    return check(value[:end]) if wrong else checked


class InlineConfig(Settings):
    """Jobs written into the config itself."""

    type: Literal["inline"] = "inline"
    """A list of jobs."""
    jobs: Annotated[list[JobRow], WrapValidator(_in_portions)]
    """The jobs; a string stands for the URL of one."""

    def build(self) -> InlineSource:
        """Return the source."""
        return InlineSource(self.jobs)


class InlineSource:
    """Yields jobs that are in memory already. A position is the number of jobs before it."""

    def __init__(self, jobs: Sequence[JobConfig]) -> None:
        self._jobs = jobs

    def check(self) -> None:
        """Find nothing: the jobs were checked when the config was loaded."""

    async def read(self, position: str | None) -> AsyncGenerator[Chunk, None]:
        """Yield chunks from just after ``position`` on."""
        start = int(position) if position is not None and position.isdecimal() else 0
        if (position is not None and not position.isdecimal()) or start > len(self._jobs):
            raise SourceError(
                f"inline jobs: changed since the batch was started: {len(self._jobs)} jobs, but the batch "
                f"stands at {position!r}; put the jobs back, or start over with a new batch"
            )
        for first in range(start, len(self._jobs), _ROWS):
            rows = self._jobs[first : first + _ROWS]
            jobs = [row.to_job(str(number)) for number, row in enumerate(rows, first + 1)]
            yield Chunk(jobs, str(first + len(jobs)))
