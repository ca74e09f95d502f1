"""Servers for the contract suite of transports (``tests/contract/test_transports.py``), one module per protocol.

To join: write ``tests/transport_partners/<protocol>.py`` with a class that is a ``Partner``, and add a line to ``WAYS``
in ``tests/transport_factories.py``. Whatever the suite asks of a transport, it then asks of yours, over real sockets.

A partner starts a server that does one thing (``answer``, ``stall``, ...) and yields it as a ``Served``, which counts
who comes and goes, and makes jobs for it. ``Server`` is a ``Served`` to inherit from; it may be counted in from another
thread. What a protocol can not do at all is named in ``lacks`` and left out: ``endless`` of datagrams, say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from fetcher.model import Job

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractAsyncContextManager

    from fetcher.errors import ErrorKind


class Served(Protocol):
    """A server that is up."""

    contacts: int
    """How often anybody has come: connections that were opened, or datagrams."""
    asked: int
    """How many requests it has read so far that it is to answer; a suite waits for it before it cancels."""
    open: int
    """Connections that are open now, as far as the server can see; 0 where there are none."""

    def job(self, number: int = 0, **fields: Any) -> Job:
        """Return a job that asks this server; ``number`` tells many of them apart."""
        ...


class Partner(Protocol):
    """Starts servers that speak one protocol. Each method is a context manager around a server that is up."""

    scheme: str
    lacks: AbstractSet[str]
    """Methods below that make no sense for this protocol."""
    jobs: int
    """How many jobs the leak test makes by default, so that it takes a second or two."""
    failures: AbstractSet[ErrorKind]
    """The kinds that jobs of ``mixed`` fail with."""
    http: Mapping[str, Any]
    """What the section ``http`` of its transport has to have so that the servers are trusted."""

    def answer(self, size: int) -> AbstractAsyncContextManager[Served]:
        """Serve a whole body of so many bytes to everybody who asks."""
        ...

    def own(self) -> AbstractAsyncContextManager[Served]:
        """Serve each job number a body of its own, which is the number in decimal digits."""
        ...

    def stall(self) -> AbstractAsyncContextManager[Served]:
        """Say nothing more once asked: nothing at all to jobs with an even number, a beginning to others.

        The connection stays open until the client closes it.
        """
        ...

    def drip(self) -> AbstractAsyncContextManager[Served]:
        """Send a body that has no end, a byte every few hundredths of a second."""
        ...

    def endless(self) -> AbstractAsyncContextManager[Served]:
        """Send a body that has no end, as fast as it is taken."""
        ...

    def reset(self) -> AbstractAsyncContextManager[Served]:
        """Reset the connection once asked, before a byte of an answer (kind ``connection_reset``)."""
        ...

    def mixed(self) -> AbstractAsyncContextManager[Served]:
        """Serve jobs by their number in all the ways that there are, good and bad; see ``failures``."""
        ...


class Server:
    """A ``Served`` to inherit from. ``port`` is set once it listens; ``path`` names what a job asks for."""

    def __init__(self, scheme: str, host: str = "127.0.0.1") -> None:
        self.scheme = scheme
        self.host = host
        self.port = 0
        self.contacts = 0
        self.asked = 0
        self.open = 0

    def job(self, number: int = 0, **fields: Any) -> Job:
        """Return a job for this server."""
        url = f"{self.scheme}://{self.host}:{self.port}{self.path(number)}"
        return Job(id=f"test-{number}", url=url, host=self.host, **(self.fields(number) | fields))

    def path(self, number: int) -> str:
        """Return the path of a job's URL."""
        return ""

    def fields(self, number: int) -> dict[str, Any]:
        """Return what else its jobs have."""
        return {}
