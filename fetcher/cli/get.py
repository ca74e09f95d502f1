"""``fetcher get``: some URLs, now; records to stdout."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fetcher.assembly import Batch, Shared
from fetcher.cli.exits import EXIT_FAILURES, EXIT_INTERRUPTED, EXIT_USAGE
from fetcher.cli.requests import Asked, OptionError
from fetcher.cli.run import GuardFlag, Override, guarded, raise_file_limit, run_loop
from fetcher.cli.signals import first_signal
from fetcher.cli.text import plain
from fetcher.config import load
from fetcher.jobs.intake import mask_userinfo
from fetcher.jobs.objects import job_from_mapping
from fetcher.model import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fetcher.config import Config
    from fetcher.model import Result

_NOTHING_ASKED = Asked()


def get(
    *urls: str,
    asked: Asked = _NOTHING_ASKED,
    body: bool = True,
    raw: Annotated[bool, Parameter(negative="")] = False,
    guard: GuardFlag = False,
    override: Override = None,
) -> int:
    """Fetch URLs and write their records to standard output, one JSON object a line.

    Nothing is kept, so that an interrupted get can not be resumed: it exits with 130.

    Parameters
    ----------
    urls
        What to fetch: http, https, ftp, ftps, tcp, tls, udp, ws or wss.
    body
        Put response bodies into the records.
    raw
        Write the body of one URL as it came, and no record. What went wrong goes to standard error.
    guard
        Reach public addresses only.
    override
        Set a value of the config: key.path=value. May be given several times.
    """
    try:
        jobs = [asked.job(url) for url in urls]
        problems = [problem for job in jobs if (problem := _problem(job))]
    except OptionError as error:
        problems = [plain(str(error))]
    problems = problems or _shape(urls, raw=raw, body=body)
    if problems:
        sys.stderr.write("".join(f"fetcher get: {problem}\n" for problem in problems))
        return EXIT_USAGE
    raise_file_limit()
    config = load(None, [*_settings(jobs, raw=raw, body=body), *(override or [])])
    config = guarded(config) if guard else config
    return run_loop(_get(config, raw=raw))


def _shape(urls: Sequence[str], *, raw: bool, body: bool) -> list[str]:
    """Say what can not be meant."""
    if not urls:
        return ["no URL given; see fetcher get --help"]
    if raw and len(urls) > 1:
        return ["--raw writes the body of one URL; leave it out to get a record of each"]
    return ["--raw and --no-body: there would be nothing to write"] if raw and not body else []


def _problem(job: dict[str, Any]) -> str | None:
    rejected = job_from_mapping("", job).rejected
    return f"{plain(mask_userinfo(str(job['url'])))}: {rejected.message}" if rejected is not None else None


def _settings(jobs: list[dict[str, Any]], *, raw: bool, body: bool) -> list[str]:
    return [
        "name=get",
        f"sources={json.dumps([{'type': 'inline', 'jobs': jobs}])}",
        "queue=memory",
        f"sinks={json.dumps([{'type': 'stdout', 'format': 'body' if raw else 'jsonl'}])}",
        f"body={'inline' if body else 'none'}",
        # Whoever types the name of a file that is to be sent may read it.
        "request.upload_dir=/",
    ]


async def _get(config: Config, *, raw: bool) -> int:
    shared = Shared(config.limits, config.http, _tell_failures if raw else None)
    batch = Batch(config, shared=shared)
    try:
        await shared.open()
        await batch.open()
        with first_signal(batch.drain):
            finished = await batch.run()
        if not finished:
            return EXIT_INTERRUPTED
        exceeds = batch.engine.delivery.tally.exceeds(batch.config.max_failures, batch.engine.added)
        return EXIT_FAILURES if exceeds else 0
    finally:
        await batch.close()
        await shared.close()


def _tell_failures(results: Sequence[Result]) -> None:
    for result in results:
        if result.outcome is not Outcome.OK:
            why = f"{result.error_kind}: {result.error_message}"
            sys.stderr.write(f"fetcher get: {plain(mask_userinfo(result.url))}: {plain(why, 400)}\n")
