"""``fetcher tune``: the best concurrency for a target, found by trying."""

from __future__ import annotations

import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from rich.console import Group
from rich.text import Text

from fetcher.cli.bench import (
    Consent,
    check_files,
    check_writable,
    error_console,
    measure,
    run_line,
    show,
)
from fetcher.cli.exits import EXIT_FAILURES
from fetcher.cli.figures import rate, trials_table
from fetcher.cli.logs import configure_logging
from fetcher.cli.run import Override, raise_file_limit, run_loop
from fetcher.cli.text import plain, seconds
from fetcher.errors import PlanError
from fetcher.load.amend import amend_file
from fetcher.load.knee import Goal, Verdict
from fetcher.load.plan import parse_seconds
from fetcher.load.target import Target, config_of, is_url
from fetcher.load.tuning import Advice, Tuner, advise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fetcher.load.knee import Trial

_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%")
_BUSY = 0.9
_ALL = 100


def tune(
    config: str,
    *,
    write: bool = False,
    max_error_rate: str = "1%",
    max_p99: str | None = None,
    max_concurrency: int = 1024,
    duration: str = "2s",
    warm_up: str = "500ms",
    override: Override = None,
    consent: Consent = False,
) -> int:
    """Find the knee: the smallest concurrency within 5 % of the best throughput.

    Parameters
    ----------
    config
        The config, whose sources, request, body and http sections count; or a URL or template.
    write
        Put what was found into the config's limits, and leave the rest of the file as it is.
    max_error_rate
        How many requests may fail, as a percentage, for a concurrency to be acceptable.
    max_p99
        How long all but one in a hundred requests may take at most.
    max_concurrency
        The most that is tried.
    duration
        How long each trial lasts.
    warm_up
        How long each trial runs before it counts.
    override
        Set a value of the config: key.path=value. May be given several times.
    consent
        Load a target that is neither loopback nor private.
    """
    goal = _goal(max_error_rate, max_p99, max_concurrency)
    if write and is_url(config):
        raise PlanError("--write: there is no config to write to; give its file in place of a URL")
    if write:
        check_writable(config)
    raise_file_limit()
    check_files(max_concurrency)
    tuner = Tuner(
        Target(config_of(config, override or ()), config, consent=consent),
        goal,
        duration=parse_seconds("--duration", duration, positive=True),
        warm_up=parse_seconds("--warm-up", warm_up),
        on_trial=_log_trial,
    )
    configure_logging()
    code = run_loop(measure(tuner.target, tuner.run, error_console(), lambda: _display(tuner)))
    show(_findings(tuner), sys.stdout)
    knee = tuner.verdict.knee if tuner.verdict is not None else None
    if knee is None:
        return code or EXIT_FAILURES
    _conclude(tuner, knee, Path(config) if write else None)
    return code


def _goal(max_error_rate: str, max_p99: str | None, max_concurrency: int) -> Goal:
    match = _PERCENTAGE.fullmatch(max_error_rate.strip())
    if match is None or Decimal(match[1]) >= _ALL:
        raise PlanError(f"--max-error-rate {max_error_rate[:50]!r}: should be a percentage below 100%, such as 1%")
    if not 1 <= max_concurrency <= 100_000:  # noqa: PLR2004  the most that a config takes
        raise PlanError(f"--max-concurrency {max_concurrency}: should be from 1 to 100,000")
    return Goal(
        max_error_rate=float(match[1]) / _ALL,
        max_p99=None if max_p99 is None else parse_seconds("--max-p99", max_p99, positive=True),
        max_concurrency=max_concurrency,
    )


def _findings(tuner: Tuner) -> Group:
    """Draw what was tried, and say what follows from it."""
    verdict = tuner.verdict
    lines = [f"- {plain(note, 300)}" for note in tuner.target.notes]
    return Group(
        Text(f"{plain(tuner.target.label)}  closed loop, {tuner.duration:g} s a trial", style="bold"),
        trials_table(tuner.trials, verdict, tuner.goal),
        Text("\n" + "\n".join([_sentence(tuner, verdict), *_limits_of_this_machine(tuner), *lines])),
    )


def _sentence(tuner: Tuner, verdict: Verdict | None) -> str:
    if verdict is None:
        return "interrupted before the knee was found"
    if verdict.knee is None:
        return f"there is no acceptable concurrency: {verdict.why}"
    return (
        f"the knee is {verdict.knee:,}: the smallest concurrency within 5% of the best throughput, with at "
        f"most {tuner.goal.max_error_rate * _ALL:.3g}% errors"
        + (f" and a p99 of {seconds(tuner.goal.max_p99)}" if tuner.goal.max_p99 is not None else "")
        + f"\nthe search went no higher because {verdict.why}"
    )


def _limits_of_this_machine(tuner: Tuner) -> list[str]:
    busy = [trial.concurrency for trial in tuner.trials if trial.cpu_share >= _BUSY]
    if not busy:
        return []
    return [f"from concurrency {min(busy):,} on, this process was at the limit of a core: the knee may be its own"]


def _conclude(tuner: Tuner, knee: int, path: Path | None) -> None:
    """Say what the config should have, and put it there if asked to."""
    advice: Advice = advise(knee, tuner.target.jobs, tuner.target.config.limits)
    wanted = ", ".join(f"{'.'.join(key)}: {value}" for key, value in advice.limits.items())
    if path is not None:
        amend_file(path, advice.limits)
    said = [f"written to {path}: {wanted}" if path is not None else f"set {wanted}", *advice.remarks]
    show(Text("\n".join(_plain(said))), sys.stdout)


def _plain(lines: Iterable[str]) -> list[str]:
    return [plain(line, 300) for line in lines]


def _display(tuner: Tuner) -> Text:
    text = Text(plain(tuner.target.label, 100), style="bold")
    for trial in tuner.trials:
        line = f"\n{trial.concurrency:>9,}  {rate(trial.throughput)} good/s  p99 {seconds(trial.p99)}"
        text.append(line, style="not bold dim")
    if tuner.current is not None:
        line = f"\n{tuner.current.spec.concurrency:>9,}  {run_line(tuner.current)}"
        text.append(line, style="not bold")
    return text


def _log_trial(trial: Trial, why: str) -> None:
    """Write a log line for a trial, where there is no display."""
    if not sys.stderr.isatty():
        structlog.get_logger().info(
            "trial",
            concurrency=trial.concurrency,
            per_second=round(trial.throughput, 1),
            p99_s=trial.p99,
            error_rate=round(trial.error_rate, 4),
            why=why,
        )
