"""``fetcher get``: some URLs, now; records to stdout."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

from cyclopts import Parameter

from fetcher.assembly import Batch
from fetcher.cli.exits import EXIT_FAILURES, EXIT_INTERRUPTED, EXIT_USAGE
from fetcher.cli.run import GuardFlag, Override, guarded, raise_file_limit, run_loop
from fetcher.cli.signals import first_signal
from fetcher.cli.text import plain
from fetcher.config import load
from fetcher.job_objects import job_from_mapping


def get(
    *urls: str,
    method: Annotated[str | None, Parameter(name=["-X", "--method"])] = None,
    header: Annotated[list[str] | None, Parameter(name=["-H", "--header"], negative="")] = None,
    data: Annotated[str | None, Parameter(name=["-d", "--data"])] = None,
    body: bool = True,
    guard: GuardFlag = False,
    override: Override = None,
) -> int:
    """Fetch URLs and write their records to standard output, one JSON object a line.

    Nothing is kept, so that an interrupted get can not be resumed: it exits with 130.

    Parameters
    ----------
    urls
        What to fetch.
    method
        The request method; GET, or POST with --data.
    header
        A request header, "name: value". May be given several times.
    data
        A request body.
    body
        Put response bodies into the records.
    guard
        Reach public addresses only.
    override
        Set a value of the config: key.path=value. May be given several times.
    """
    jobs = [_job(url, method, header or [], data) for url in urls]
    problems = [problem for job in jobs if (problem := _problem(job))]
    if not jobs:
        problems = ["no URL given; see fetcher get --help"]
    if problems:
        sys.stderr.write("".join(f"fetcher get: {problem}\n" for problem in problems))
        return EXIT_USAGE
    sources = json.dumps([{"type": "inline", "jobs": jobs}])
    settings = [
        "name=get",
        f"sources={sources}",
        "queue=memory",
        'sinks=["-"]',
        f"body={'inline' if body else 'none'}",
    ]
    raise_file_limit()
    config = load(None, [*settings, *(override or [])])
    return run_loop(_get(Batch(guarded(config) if guard else config)))


def _job(url: str, method: str | None, headers: list[str], data: str | None) -> dict[str, Any]:
    split = [header.partition(":") for header in headers]
    given = {
        "method": method or ("POST" if data is not None else None),
        "headers": {name.strip(): value.strip() for name, _, value in split} or None,
        "body": data,
    }
    return {"url": url} | {key: value for key, value in given.items() if value is not None}


def _problem(job: dict[str, Any]) -> str | None:
    rejected = job_from_mapping("", job).rejected
    return f"{plain(job['url'])}: {rejected.message}" if rejected is not None else None


async def _get(batch: Batch) -> int:
    await batch.open()
    try:
        with first_signal(batch.drain):
            finished = await batch.run()
        if not finished:
            return EXIT_INTERRUPTED
        exceeds = batch.engine.delivery.tally.exceeds(batch.config.max_failures, batch.engine.added)
        return EXIT_FAILURES if exceeds else 0
    finally:
        await batch.close()
