"""What JetStream answers to published messages. Pure: the sink ``nats`` talks to the server."""

from __future__ import annotations

import asyncio

import msgspec


class Refusal(msgspec.Struct):
    """Why JetStream has not done something: a status as of HTTP, the server's own code (0: none), and words."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Answer(msgspec.Struct):
    """What JetStream says to a message; of one that was taken, nothing is of interest."""

    error: Refusal | None = None


class Acks:
    """Answers to the messages of a portion. ``complete`` is set once each has one.

    The driver's own way of publishing without waiting drops what the server refuses, and then waits for ever.
    """

    def __init__(self) -> None:
        self.refused: dict[str, Refusal] = {}
        self.complete = asyncio.Event()
        self._seen: set[str] = set()
        self._expected: int | None = None

    def expect(self, count: int) -> None:
        """Say how many there will be."""
        self._expected = count
        self._look()

    def take(self, token: str, data: bytes, status: str | None) -> None:
        """Note an answer; ``status`` is there if nobody was asked, because no stream takes the subject."""
        self._seen.add(token)
        try:
            refusal = Refusal(int(status)) if status is not None else msgspec.json.decode(data, type=Answer).error
        except (ValueError, msgspec.DecodeError):
            refusal = Refusal(description="an answer that can not be read")
        if refusal is not None:
            self.refused[token] = refusal
        self._look()

    def _look(self) -> None:
        if len(self._seen) == self._expected:
            self.complete.set()
