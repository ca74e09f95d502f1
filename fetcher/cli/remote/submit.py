"""``fetcher submit``: batches for a service, from config files and files of URLs."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
from cyclopts import Parameter
from rich.live import Live

from fetcher.cli.exits import EXIT_FAILURES
from fetcher.cli.logs import configure_logging
from fetcher.cli.remote import shown
from fetcher.cli.remote.options import USUAL, To, TokenFile, ask
from fetcher.errors import EXIT_RESUMABLE, ConfigError
from fetcher.service.client import Client, Upload
from fetcher.service.models import State

if TYPE_CHECKING:
    from rich.console import Console

    from fetcher.service.models import BatchView

_TYPES = {
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".json": "application/json",
    ".txt": "text/plain",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".jsonl": "application/x-ndjson",
}
_CONFIGS = frozenset({".yaml", ".yml", ".json"})
_PACKED = (".gz", ".zst", ".parquet")
_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_NAME = re.compile(r"""^[ \t{]*["']?name["']?:[ \t]*["']?([A-Za-z0-9][A-Za-z0-9._-]{0,99})""", re.MULTILINE)
_GLANCE = 64 * 1024
_LOOK_EVERY = 0.5
_LOOKS_PER_LOG = 10
_EXIT_OF_STATE = {State.FAILED: 1, State.CANCELLED: EXIT_RESUMABLE}


def submit(
    *files: Annotated[str, Parameter(allow_leading_hyphen=True)],
    name: str | None = None,
    priority: int | None = None,
    weight: float | None = None,
    column: str | None = None,
    form: Annotated[str, Parameter(name="--format")] = "txt",
    wait: Annotated[bool, Parameter(negative="")] = False,
    to: To = USUAL,
    token_file: TokenFile = None,
) -> int:
    """Submit batches to a service: configs (.yaml, .json), or files of URLs (.txt, .csv, .tsv, .jsonl).

    The id of each batch is written to standard output, once the service has it for good.

    Parameters
    ----------
    files
        What to submit, a batch each; - is standard input.
    name
        What a batch of URLs is called; by default, the name of its file.
    priority
        Batches of URLs with a higher priority go before all others.
    weight
        A batch of URLs of weight 2 gets twice as much as one of weight 1.
    column
        The column, or the field of each line of JSON, that holds the URL.
    form
        What standard input is: txt, csv, tsv, jsonl, yaml or json.
    wait
        Show the progress, and end when the batches have ended, with the exit code that a run has.
    to
        The URL of the service (or FETCHER_TO).
    token_file
        The file that holds the token (or FETCHER_TOKEN has it).
    """
    if not files:
        raise ConfigError("nothing to submit: name config files, files of URLs, or - for standard input")
    about = {"name": name, "priority": priority, "weight": weight, "column": column}
    given = {key: str(value) for key, value in about.items() if value is not None}
    with ExitStack() as stack:
        uploads = [_upload(file, form, given, stack) for file in files]

        async def submitting(client: Client) -> int:
            made = [await _submitted(client, upload) for upload in uploads]
            return await _until_ended(client, made) if wait else 0

        return ask(to, token_file, submitting)


async def _submitted(client: Client, upload: Upload) -> str:
    made = await client.submit(upload)
    sys.stdout.write(f"{made.id}\n")
    sys.stdout.flush()
    return made.id


def _upload(file: str, form: str, about: dict[str, str], stack: ExitStack) -> Upload:
    """Return what is to be sent. Raises ConfigError for what can not be."""
    if file == "-":
        path, suffix, stem = _spooled(stack), f".{form}", "stdin"
    else:
        path = Path(file)
        suffix, stem = path.suffix.lower(), path.stem
    packed = suffix in _PACKED
    if suffix not in _TYPES and not packed:
        raise ConfigError(f"{file}: should end in {', '.join([*_TYPES, *_PACKED])}, which says what it is")
    if not path.is_file():
        raise ConfigError(f"{file}: there is no such file; paths are relative to {Path.cwd()}")
    if suffix in _CONFIGS:
        if about:
            raise ConfigError(f"{file}: --{next(iter(about))} is for files of URLs; a config says it itself")
        return Upload(path, _TYPES[suffix], _name_in(path) or _slug(stem))
    if packed and "column" in about:
        raise ConfigError(f"{file}: --column is for files that are not packed; write a config that names the column")
    named = {"name": _slug(stem)} | about
    return Upload(path, None if packed else _TYPES[suffix], named["name"], named)


def _slug(stem: str) -> str:
    """Return the name of a file as that of a batch."""
    return _UNFIT.sub("-", stem).lstrip("._-")[:100] or "batch"


def _name_in(path: Path) -> str | None:
    """Return what a config calls its batch, if that can be told at a glance."""
    found = _NAME.search(path.read_bytes()[:_GLANCE].decode("utf-8", "replace"))
    return found[1] if found is not None else None


def _spooled(stack: ExitStack) -> Path:
    """Keep standard input in a file, as it may have to be sent twice."""
    file = stack.enter_context(tempfile.NamedTemporaryFile(prefix="fetcher-"))  # noqa: SIM115
    shutil.copyfileobj(sys.stdin.buffer, file)
    file.flush()
    return Path(file.name)


async def _until_ended(client: Client, batches: list[str]) -> int:
    """Show batches until all have ended, one after the other; return the worst exit code."""
    console = shown.console(stderr=True)
    configure_logging()
    codes = []
    for batch_id in batches:
        batch = await (_display(client, batch_id, console) if console.is_terminal else _log(client, batch_id))
        console.print(shown.one(batch))
        codes.append(_EXIT_OF_STATE.get(batch.state, EXIT_FAILURES if batch.exceeded else 0))
    return max(codes, default=0)


async def _display(client: Client, batch_id: str, console: Console) -> BatchView:
    with Live(console=console, auto_refresh=False, transient=True) as display:
        while not shown.has_ended(batch := await client.batch(batch_id)):
            display.update(shown.live(batch), refresh=True)
            await asyncio.sleep(_LOOK_EVERY)
    return batch


async def _log(client: Client, batch_id: str) -> BatchView:
    looks = 0
    while not shown.has_ended(batch := await client.batch(batch_id)):
        looks += 1
        if looks % _LOOKS_PER_LOG == 0:
            progress = batch.progress
            structlog.get_logger().info(
                "progress",
                batch=batch.id,
                state=batch.state.value,
                done=progress.jobs - progress.left,
                total=progress.jobs,
                per_second=round(progress.rate, 1),
                **progress.outcomes,
            )
        await asyncio.sleep(_LOOK_EVERY)
    return batch
