"""What the display and the log say while nothing ends: which jobs the run waits for, or what they wait for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from fetcher.cli.text import clock, counted, plain, size
from fetcher.jobs.intake import mask_userinfo

if TYPE_CHECKING:
    from fetcher.engine.waiting import Straggler, Waiting

PATIENCE = 3.0
_UNKNOWN = "in flight"
_URL_SHOWN = 80
_HOST_SHOWN = 40
_REASON_SHOWN = 160


class Lull:
    """For how many seconds nothing has ended. Pure: time is passed in."""

    def __init__(self, done: int, now: float) -> None:
        self._done = done
        self._since = now

    def update(self, done: int, now: float) -> float | None:
        """Take the count of this moment into account; return the seconds once they are worth a word."""
        if done != self._done:
            self._done, self._since = done, now
        quiet = now - self._since
        return quiet if quiet >= PATIENCE else None


def render(waiting: Waiting, quiet: float) -> Group:
    """Draw what is waited for, a line each."""
    head = Text(f"nothing has ended for {clock(quiet)}", style="yellow")
    parts: list[Text | Table] = [head]
    if waiting.stragglers:
        head.append("; in flight for longest:")
        parts.append(_table(waiting))
    parts.extend(Text(f"  {line}") for line in _lines(waiting))
    return Group(*parts)


def _table(waiting: Waiting) -> Table:
    table = Table.grid(padding=(0, 2))
    # Only the URL gives way on a narrow terminal: where it can be wrapped, rich leaves the other columns alone.
    table.add_column(overflow="ellipsis")
    for _ in range(3):
        table.add_column(no_wrap=True)
    for straggler in waiting.stragglers:
        phase, spent, rest = _told(straggler)
        table.add_row(Text(f"  {shown_url(straggler.url)}"), phase, spent, Text(rest, style="dim"))
    return table


def _told(straggler: Straggler) -> tuple[str, str, str]:
    """Return the phase, for how long, and what else there is to say."""
    standing = straggler.standing
    rest = [f"attempt {straggler.attempt}"] if straggler.attempt > 1 else []
    if standing is None:
        return _UNKNOWN, clock(straggler.seconds), ", ".join(rest)
    if standing.received:
        rest.append(size(standing.received))
    if standing.left is not None:
        rest.append(f"at most {clock(standing.left)} more")
    return plain(standing.phase), clock(standing.seconds), ", ".join(rest)


def _lines(waiting: Waiting) -> list[str]:
    """Say what else is waited for."""
    lines = []
    more = waiting.in_flight - len(waiting.stragglers)
    if more > 0:
        lines.append(f"and {more:,} more in flight")
    if waiting.writing:
        lines.append(f"{', '.join(map(plain, waiting.writing))} is writing")
    if waiting.draining:
        return lines
    if waiting.queued:
        due = "" if waiting.next_due is None else f", the next retry in {clock(waiting.next_due)}"
        lines.append(f"{counted(waiting.queued, 'job')} in the queue{due}")
    lines.extend(f"{plain(why, _REASON_SHOWN)}; asked again in {clock(left)}" for why, left in waiting.postponed)
    lines.extend(f"{plain(host, _HOST_SHOWN)} rests for another {clock(rest)}" for host, rest in waiting.resting)
    if waiting.reading and not waiting.in_flight:
        lines.append("the sources are still being read")
    return lines


def fields(waiting: Waiting, quiet: float) -> dict[str, Any]:
    """Return the same for a line of the log. Durations are in seconds, sizes in bytes."""
    found: dict[str, Any] = {
        "quiet_s": round(quiet, 1),
        "in_flight": waiting.in_flight,
        "jobs": [_job(straggler) for straggler in waiting.stragglers],
        "writing": list(map(plain, waiting.writing)),
    }
    if not waiting.draining:
        found["queued"] = waiting.queued
        found["next_due_s"] = None if waiting.next_due is None else round(waiting.next_due, 1)
        found["resting"] = {plain(host): round(rest, 1) for host, rest in waiting.resting}
        if waiting.postponed:
            found["postponed"] = {plain(why, _REASON_SHOWN): round(left, 1) for why, left in waiting.postponed}
    return found


def _job(straggler: Straggler) -> dict[str, Any]:
    job: dict[str, Any] = {
        "url": shown_url(straggler.url, 2 * _URL_SHOWN),
        "host": plain(straggler.host),
        "attempt": straggler.attempt,
        "phase": _UNKNOWN,
        "seconds": round(straggler.seconds, 1),
    }
    if (standing := straggler.standing) is not None:
        job["phase"] = plain(standing.phase)
        job["seconds"] = round(standing.seconds, 1)
        job["received"] = standing.received
        job["left_s"] = None if standing.left is None else round(standing.left, 1)
    return job


def shown_url(url: str, width: int = _URL_SHOWN) -> str:
    """Return a URL as it may be shown: no password, no control character, not too long."""
    return plain(mask_userinfo(url), width)
