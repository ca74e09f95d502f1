"""What becomes of results between the fetch and the sinks: stage after stage, a batch at a time.

A stage changes or drops records, never what is known of their jobs: a job whose record was dropped still counts with
the outcome that it had. A stage that fails costs the job its outcome, not the run its life: the job ends as
``failed`` with the kind ``stage_failed``, and its record goes on as it was before that stage.
"""

from __future__ import annotations

import asyncio
from inspect import isawaitable
from typing import TYPE_CHECKING, cast

import msgspec

from fetcher.errors import ErrorKind
from fetcher.model import Outcome, Result
from fetcher.pipeline.calls import called

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fetcher.interfaces import Stage

_LONGEST_MESSAGE = 500


class Staged(msgspec.Struct):
    """What stages have made of a batch: the records that sinks get, and the results by which jobs are counted."""

    records: list[Result]
    results: list[Result]
    filtered: int


class Stages:
    """Stages in their order. ``current`` names the one that is at work, for who asks what is waited for."""

    def __init__(self, stages: Mapping[str, Stage]) -> None:
        self._stages = stages
        self.current: str | None = None

    def __bool__(self) -> bool:
        return bool(self._stages)

    async def run(self, results: list[Result]) -> Staged:
        """Send a batch through all stages."""
        records: list[Result | None] = list(results)
        try:
            for name, stage in self._stages.items():
                self.current = name
                left = [index for index, record in enumerate(records) if record is not None]
                given = [record for record in records if record is not None]
                for index, record in zip(left, await _applied(name, stage, given), strict=True):
                    records[index] = record
        finally:
            self.current = None
        counted = [
            result if record is None else _counted(result, record)
            for result, record in zip(results, records, strict=True)
        ]
        kept = [record for record in records if record is not None]
        return Staged(kept, counted, len(results) - len(kept))


async def _applied(name: str, stage: Stage, results: Sequence[Result]) -> list[Result | None]:
    """Return what a stage makes of each result."""
    if not stage.concurrency:
        # On a thread, because reading a page may take longer than other connections can be left alone.
        limit: float | None = getattr(stage, "timeout", None)
        late = ValueError(f"took longer than {limit or 0.0:g} s")
        return await called(
            lambda result: _apply(name, stage, result), results, limit, lambda result: _failed(name, result, late)
        )
    slots = asyncio.Semaphore(stage.concurrency)
    # A function that awaits what was cancelled ends as cancelled though nobody has cancelled it: that is its failure,
    # and no end of the run. Whoever does cancel the run cancels this wait, which then raises, as it should.
    made = await asyncio.gather(*(_await(name, stage, result, slots) for result in results), return_exceptions=True)
    return [
        _failed(name, result, record) if isinstance(record, BaseException) else record
        for result, record in zip(results, made, strict=True)
    ]


def _apply(name: str, stage: Stage, result: Result) -> Result | None:
    try:
        return cast("Result | None", stage.apply(result))
    except BaseException as error:  # noqa: BLE001  an exit, too: on this thread nothing but a function raises it
        return _failed(name, result, error)


async def _await(name: str, stage: Stage, result: Result, slots: asyncio.Semaphore) -> Result | None:
    async with slots:
        try:
            record = stage.apply(result)
            return await record if isawaitable(record) else record
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever happens is about this one job
            return _failed(name, result, error)


def _failed(name: str, result: Result, error: BaseException) -> Result:
    what = (
        str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}".rstrip(": ")
    )
    return msgspec.structs.replace(
        result,
        outcome=Outcome.FAILED,
        error_kind=ErrorKind.STAGE_FAILED,
        error_message=f"stage {name}: {what}"[:_LONGEST_MESSAGE],
    )


def _counted(result: Result, record: Result) -> Result:
    """Return the result by which a job counts: all of what was measured, and the outcome that its record has."""
    if record.outcome == result.outcome and record.error_kind == result.error_kind:
        return result
    return msgspec.structs.replace(
        result, outcome=record.outcome, error_kind=record.error_kind, error_message=record.error_message
    )
