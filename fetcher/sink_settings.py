"""What every sink may have in its config beside what is its own: the delivery reads it, the sink never does."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fetcher.conditions import ConditionText
from fetcher.fields import Droppable, FieldName
from fetcher.settings import ByteSize, Duration, Settings

REJECTED = "state/{batch}.{sink}.rejected.jsonl"
"""Where a sink keeps, unless it says otherwise, what its server will never take: its field is called ``rejected``."""


class SinkBatchSettings(Settings):
    """How many records a sink is given at once: what comes first decides."""

    size: int = Field(default=10_000, ge=1)
    """Records. They are held in memory, and their jobs acknowledged only when the sink has them."""
    bytes: Annotated[ByteSize, Field(gt=0)] = 64 * 1024 * 1024
    """Bytes of their bodies, headers, ``meta`` and ``extracted``."""
    linger: Duration = 10.0
    """For how long a record waits for others at most."""


class SinkSettings(Settings):
    """The base of every sink's config."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$")
    """What the sink is called in messages and figures; by default its type and its place, such as ``file-1``."""
    required: bool = True
    """Whether jobs wait until this sink has their records. With ``false`` it has ``patience``, and no longer: what
    it does not take goes to ``state/<batch>.<name>.dead.jsonl``."""
    patience: Duration | None = None
    """For how long a sink that is away is tried again; by default for ever if it is required, or else for 30 s."""
    where: ConditionText | None = None
    """Which records the sink gets, such as ``outcome != 'ok'``; by default all."""
    select: list[FieldName] | None = None
    """Which fields records have here; those that say which job it is and how it ended they have always."""
    drop: tuple[Droppable, ...] = ()
    """Which fields records do not have here."""
    batch: SinkBatchSettings | None = None
    """Larger and rarer batches than the usual ones, for a sink that prefers them."""

    @property
    def identity(self) -> str:
        """Which output this is, without secrets; nothing if there are no two of the kind.

        A batch is only resumed with the same output.
        """
        path = getattr(self, "path", None)
        return path if isinstance(path, str) else ""


def title_of(sink: Settings, index: int) -> str:
    """Return what a sink is called in messages, figures and file names; ``index`` counts from 1."""
    name = sink.name if isinstance(sink, SinkSettings) else None
    return name or f"{getattr(sink, 'type', 'sink')}-{index}"


def titled(sink: Settings, title: str, batch: str) -> Settings:
    """Return a sink whose file of rejected records has its name and its batch's, if it has one."""
    path = getattr(sink, "rejected", None)
    if not isinstance(path, str):
        return sink
    return sink.model_copy(update={"rejected": path.replace("{batch}", batch).replace("{sink}", title)})
