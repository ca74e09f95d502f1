"""``fetcher status``, ``results``, ``why``, and what is done to a batch of a service."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fetcher.cli.remote import shown
from fetcher.cli.remote.options import USUAL, To, TokenFile, ask
from fetcher.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fetcher.service.client import Client
    from fetcher.service.models import Model

_FOLLOW_EVERY = 1.0

AsJson = Annotated[bool, Parameter(name="--json", negative="")]
Flag = Annotated[bool, Parameter(negative="")]
AnOutcome = Literal["ok", "failed", "skipped"]
AState = Literal["queued", "running", "paused", "done", "failed", "cancelled"]


def status(
    batch: str | None = None,
    *,
    state: AState | None = None,
    as_json: AsJson = False,
    to: To = USUAL,
    token_file: TokenFile = None,
) -> int:
    """Show the batches of a service, or everything about one.

    Parameters
    ----------
    batch
        The id of a batch; without it, the latest are listed.
    state
        List those in this state only.
    as_json
        Write JSON to standard output.
    to
        The URL of the service (or FETCHER_TO).
    token_file
        The file that holds the token (or FETCHER_TOKEN has it).
    """
    if batch is not None:
        one = ask(to, token_file, lambda client: client.batch(batch))
        return _show(one, shown.one(one), as_json=as_json)
    page = ask(to, token_file, lambda client: client.batches(state))
    if not page.batches and not as_json:
        sys.stderr.write("no batches; fetcher submit FILE makes one\n")
        return 0
    return _show(page, shown.table(page.batches), as_json=as_json)


def results(
    batch: str,
    *,
    outcome: AnOutcome | None = None,
    kind: str | None = None,
    follow: Flag = False,
    to: To = USUAL,
    token_file: TokenFile = None,
) -> int:
    """Write the records of a batch of a service to standard output, one JSON object a line.

    Parameters
    ----------
    batch
        The id of the batch.
    outcome
        Only those with this outcome.
    kind
        Only those with this error kind.
    follow
        Go on until the batch has ended.
    to
        The URL of the service (or FETCHER_TO).
    token_file
        The file that holds the token (or FETCHER_TOKEN has it).
    """

    async def reading(client: Client) -> int:
        cursor, ended = 0, False
        while True:
            # Asked before the records are: those of a batch that has ended are all there.
            if follow:
                ended = shown.has_ended(await client.batch(batch))
            async for page, after in client.results(batch, cursor=cursor, outcome=outcome, kind=kind):
                sys.stdout.buffer.write(page)
                cursor = after
            sys.stdout.buffer.flush()
            if ended or not follow:
                return 0
            await asyncio.sleep(_FOLLOW_EVERY)

    return ask(to, token_file, reading)


def why(*, as_json: AsJson = False, to: To = USUAL, token_file: TokenFile = None) -> int:
    """Say what bounds the throughput of a service right now, and what to change.

    Parameters
    ----------
    as_json
        Write JSON to standard output.
    to
        The URL of the service (or FETCHER_TO).
    token_file
        The file that holds the token (or FETCHER_TOKEN has it).
    """
    found = ask(to, token_file, lambda client: client.why())
    return _show(found, shown.why(found), as_json=as_json)


def pause(*batches: str, to: To = USUAL, token_file: TokenFile = None) -> int:
    """Let batches of a service end what is in flight, and then wait."""
    return _act("pause", batches, to, token_file)


def resume(*batches: str, to: To = USUAL, token_file: TokenFile = None) -> int:
    """Let paused batches of a service go on."""
    return _act("resume", batches, to, token_file)


def cancel(*batches: str, to: To = USUAL, token_file: TokenFile = None) -> int:
    """End batches of a service; what they have fetched is kept."""
    return _act("cancel", batches, to, token_file)


def retry(*batches: str, to: To = USUAL, token_file: TokenFile = None) -> int:
    """Go on with batches of a service that have failed; of one that is done, fetch what failed in another batch."""
    return _act("retry", batches, to, token_file)


def delete(*batches: str, to: To = USUAL, token_file: TokenFile = None) -> int:
    """Delete batches of a service that have ended, with their results."""
    _check_named("delete", batches)

    async def deleting(client: Client) -> int:
        for batch in batches:
            await client.delete(batch)
        return 0

    return ask(to, token_file, deleting)


def _act(action: str, batches: tuple[str, ...], to: str, token_file: str | None) -> int:
    """Do something to batches, and write the id and the state of each."""
    _check_named(action, batches)

    async def acting(client: Client) -> int:
        for batch in batches:
            made = await client.act(batch, action)
            sys.stdout.write(f"{made.id}\t{made.reason or made.state.value}\n")
        return 0

    return ask(to, token_file, acting)


def _check_named(action: str, batches: tuple[str, ...]) -> None:
    if not batches:
        raise ConfigError(f"nothing to {action}: name the ids of batches; fetcher status lists them")


def _show(model: Model, drawn: RenderableType, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(f"{model.model_dump_json(indent=2)}\n")
        return 0
    shown.console().print(drawn)
    return 0
