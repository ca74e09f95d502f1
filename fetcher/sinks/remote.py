"""What the sinks that talk to a server share: records as JSON, portions of them, TLS, and words for what goes wrong."""

from __future__ import annotations

import hashlib
import re
import ssl
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from fetcher.errors import EXIT_RESUMABLE, ConfigError, SinkError
from fetcher.model import Result
from fetcher.registry import config_class

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fetcher.interfaces import Format

_SHOWN = 200


class Packed(msgspec.Struct, frozen=True):
    """A result and its record as one line of JSON, without the line end."""

    result: Result
    line: bytes


def json_records() -> Format:
    """Return the format that makes a line of JSON of each result."""
    config: Any = config_class("formats", "jsonl")()
    form: Format = config.build()
    return form


def packed(form: Format, results: Sequence[Result]) -> list[Packed]:
    """Return each result with its record."""
    lines = form.encode(results).split(b"\n")[:-1]
    return [Packed(result, line) for result, line in zip(results, lines, strict=True)]


def portions(items: Iterable[Packed], count: int, size: int) -> Iterator[list[Packed]]:
    """Yield items in portions of so many at most, and of so many bytes unless a single one has more."""
    portion: list[Packed] = []
    weight = 0
    for item in items:
        if portion and (len(portion) >= count or weight + len(item.line) > size):
            yield portion
            portion, weight = [], 0
        portion.append(item)
        weight += len(item.line)
    if portion:
        yield portion


def identity(results: Iterable[Result]) -> str:
    """Return a hash that says which jobs of which batch these are the results of."""
    digest = hashlib.sha256()
    for result in results:
        for text in (result.batch, result.job_id):
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


class Written:
    """Which portions of a batch a server has, for the case that the same batch is written again after a failure."""

    def __init__(self) -> None:
        self._batch = ""
        self._keys: set[str] = set()

    def begin(self, batch: str) -> None:
        """Forget everything unless this is the batch that was not written to its end."""
        if batch != self._batch:
            self._batch, self._keys = batch, set()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        """Note that the server has this portion."""
        self._keys.add(key)

    def end(self) -> None:
        """Forget the batch: all of it is written."""
        self._batch, self._keys = "", set()


def new_run() -> str:
    """Return a name for a run: by it, what is sent again after a crash is told from the same batch run once more."""
    return uuid.uuid4().hex[:16]


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a context that checks certificates, by the system's authorities or by those of a PEM file."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or "it is no PEM file of certificates"
        raise ConfigError(f"ca_file {ca_file!r} can not be used: {reason}") from error


def has_userinfo(url: str) -> bool:
    """Tell whether there is a user or a password in a URL, even in one that can not be parsed."""
    return "@" in re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]


def away(place: str, error: BaseException | str, *, resume: bool = True) -> SinkError:
    """Return what to raise if a server can not be reached. Before the first fetch of a batch that is exit 78."""
    reason = shown(str(error)) or type(error).__name__
    return SinkError(
        f"{place}: can not be reached: {reason}",
        retryable=True,
        exit_code=EXIT_RESUMABLE if resume else ConfigError.exit_code,
    )


def shown(text: str) -> str:
    """Return text of a server as it may stand in a message: one line, short, nothing that a terminal would obey."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text[: _SHOWN * 4]).split())
    return words if len(words) <= _SHOWN else words[:_SHOWN] + "..."
