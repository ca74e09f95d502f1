"""Sinks that do not take records: what is said of them while a run waits, and in its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from rich.text import Text

from fetcher.cli.text import clock, plain

if TYPE_CHECKING:
    from fetcher.pipeline.delivery import Delivery

_LONGEST = 300


def fields(delivery: Delivery) -> dict[str, Any]:
    """Return the figures of sinks for a line of progress; none of those that have had no trouble."""
    found = {
        outlet.title: {"lag": outlet.lag, "errors": outlet.errors, "dead_letters": outlet.dead_letters}
        for outlet in delivery.outlets
        if outlet.errors
    }
    return {"delivery": found} if found else {}


def render(delivery: Delivery, now: float) -> list[Text]:
    """Draw a line for each sink that does not take records at this moment."""
    return [
        Text(f"{title} does not take records for {clock(now - trouble.since)}: {plain(trouble.message)}", style="red")
        for outlet in delivery.outlets
        for title, trouble in outlet.troubles()
    ]


class Troubles:
    """Logs when a sink ceases to take records, and when it takes them again."""

    def __init__(self) -> None:
        self._known: dict[str, float] = {}

    def log(self, delivery: Delivery, batch: str, now: float) -> None:
        """Compare with the last look, and log what has changed."""
        current = dict(pair for outlet in delivery.outlets for pair in outlet.troubles())
        for title, trouble in current.items():
            if title not in self._known:
                structlog.get_logger().warning(
                    "sink away", batch=batch, sink=title, message=plain(trouble.message, _LONGEST)
                )
        for title in self._known.keys() - current.keys():
            seconds = round(now - self._known[title], 1)
            structlog.get_logger().info("sink back", batch=batch, sink=title, after_s=seconds)
        self._known = {title: trouble.since for title, trouble in current.items()}
