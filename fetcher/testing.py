"""Fakes that tests, benchmarks and the authors of parts share. They ship with the package."""

from __future__ import annotations

import hashlib
from math import inf
from typing import TYPE_CHECKING

from fetcher.errors import SinkError
from fetcher.model import Job, Response, Result

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence


class FakeClock:
    """A clock that moves when it is told to. Call it for the time in seconds."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class MockTransport:
    """Answers from a function, by default with 200 and no body. Counts calls and concurrency.

    ``respond`` takes the job and returns a Response, or raises what the transport is to raise.
    """

    def __init__(self, respond: Callable[[Job], Response] | None = None, *, gate: asyncio.Event | None = None) -> None:
        self._respond = respond or ok
        self._gate = gate
        self.jobs: list[Job] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.is_open = False

    async def open(self) -> None:
        """Note that it was opened."""
        self.is_open = True

    async def close(self) -> None:
        """Note that it was closed."""
        self.is_open = False

    async def fetch(self, job: Job, within: float = inf) -> Response:  # noqa: ARG002  it takes no time
        """Answer one job; wait for ``gate`` first if there is one."""
        self.jobs.append(job)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self._gate is not None:
                await self._gate.wait()
            return self._respond(job)
        finally:
            self.in_flight -= 1


class NullTransport:
    """Answers at once and remembers nothing, for measuring everything else."""

    async def open(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""

    async def fetch(self, job: Job, within: float = inf) -> Response:  # noqa: ARG002  it takes no time
        """Answer 200 without a body."""
        return Response(200, "GET", job.url, [])


class MemorySink:
    """Keeps results in a list. Can be told to fail, for good or while it is ``down``, and to wait."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.batches: list[int] = []
        self.fail_with: str | None = None
        self.down = False
        self.gate: asyncio.Event | None = None
        self.is_open = False

    async def check(self, mark: str | None, *, resume: bool) -> None:
        """Do nothing: it is always usable."""

    async def open(self, mark: str | None) -> str:
        """Cut back to ``mark``, the number of results that were acknowledged."""
        del self.results[int(mark or 0) :]
        self.is_open = True
        return str(len(self.results))

    async def write(self, results: Sequence[Result]) -> str:
        """Keep results and return their number so far."""
        if self.gate is not None:
            await self.gate.wait()
        if self.fail_with is not None:
            raise SinkError(self.fail_with)
        if self.down:
            raise SinkError("memory: is down", retryable=True)
        self.results.extend(results)
        self.batches.append(len(results))
        return str(len(self.results))

    async def discard(self, mark: str) -> None:  # noqa: ARG002  there is one batch at most
        """Forget everything."""
        self.results.clear()

    async def close(self) -> None:
        """Note that it was closed."""
        self.is_open = False


def ok(job: Job, body: bytes = b"", status: int = 200) -> Response:
    """Return a plain response to a job."""
    return Response(
        status=status,
        method=job.method or "GET",
        final_url=job.url,
        headers=[("Content-Length", str(len(body)))],
        body=body,
        body_size=len(body),
        wire_size=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
    )
