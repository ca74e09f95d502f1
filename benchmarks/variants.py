"""What each guarantee is taken away or put on with, to measure what it costs.

What is a setting is changed as a user would. What is always on has no switch, as nobody should be without it: it is
patched away here, and the figures are the only use of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from fetcher.transports.bodies import checksums
from fetcher.transports.http import connection

if TYPE_CHECKING:
    from _hashlib import HASH


def _nothing() -> None:
    return


class _NoHash:
    """Stands where a hash is made."""

    def update(self, data: bytes) -> None:
        pass

    def hexdigest(self) -> str:
        return ""


def _without_hash() -> None:
    def no_hash(_data: bytes = b"") -> HASH | _NoHash:
        return _NoHash()

    checksums.hashlib.sha256 = no_hash  # type: ignore[assignment, attr-defined]


def _without_look() -> None:
    connection._arrivals = lambda _transport: None  # noqa: SLF001  there is no other way to be without


class Variant(msgspec.Struct, frozen=True):
    """How a batch differs from the usual one: its settings, and what is done to the program."""

    about: str
    settings: tuple[str, ...] = ()
    patch: Callable[[], None] = _nothing


USUAL = "usual"
VARIANTS = {
    USUAL: Variant("everything that is on by itself"),
    "no hash": Variant("without the SHA-256 of each body", patch=_without_hash),
    "no look": Variant("without a look for unasked bytes before a connection is reused", patch=_without_look),
    "no adaptation": Variant("without limits that adapt to each host", ("limits.adapt=false",)),
    "no breaker": Variant("without a circuit breaker", ("limits.breaker=off",)),
    "no minimum rate": Variant("without a minimum rate of bodies", ("request.min_rate=0",)),
    "aiohttp's client": Variant("through every layer of aiohttp's client, with its parser", ("http.exchange=session",)),
    "guard": Variant("with the guard against internal addresses", ("http.guard={{allow: [127.0.0.0/8]}}",)),
    "robots": Variant("with robots.txt obeyed", ("http.robots=obey",)),
    "cookies": Variant("with cookies", ("http.cookies=true",)),
    "cache": Variant("with the cache for revalidation", ("http.cache={{path: {folder}/cache.db}}",)),
    "body: inline": Variant("with bodies in the records", ("body.store=inline",)),
    "body: file": Variant(
        "with a file for each body", ("body.store=file", "body.path={folder}/bodies/{{job_id}}-{{batch}}")
    ),
}
