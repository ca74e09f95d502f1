"""Whose jobs are fetched under load, and whether they may be.

Load is only put on hosts whose every address is loopback or private, unless the user says that it may be put
on others. For the same reason redirects are not followed then: they could lead anywhere.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import socket
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from fetcher.config import load
from fetcher.engine.worker import Worker
from fetcher.errors import ConfigError, FetchError, RefusedError, UnreachableError
from fetcher.load.run import Run
from fetcher.transports.http.resolver import DnsSettings, MappingResolver

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fetcher.config import Config
    from fetcher.interfaces import Source, Transport
    from fetcher.load.measurement import Round
    from fetcher.load.plan import Spec
    from fetcher.model import Job

MOST_JOBS = 10_000
CONSENT = "--i-may-load-this-host"
_RESOLVING = 50
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_MEASURED = ("http://", "https://")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class Target:
    """The jobs of a config, ready to be fetched again and again. ``open`` it before anything else."""

    def __init__(self, config: Config, label: str, *, consent: bool = False) -> None:
        """``consent``: the user has said that the target may be loaded, whatever its addresses."""
        self.config = config if consent else _unredirected(config)
        self.consent = consent
        self.jobs: list[Job] = []
        self.notes: list[str] = []
        self._label = label
        self._follows = bool(config.request.max_redirects)

    @property
    def label(self) -> str:
        """What the target is called in reports; never with a password in it."""
        return self._label if "@" not in self._label else self.jobs[0].url

    async def open(self) -> None:
        """Read the jobs and make sure that they may be fetched. Sends nothing to the target.

        Raises ConfigError if there are none, RefusedError if they are not to be loaded, UnreachableError if a
        host has no address.
        """
        jobs = await _first_jobs(self.config.sources)
        self.jobs = [job for job in jobs if job.rejected is None and job.url.startswith(_MEASURED)]
        if not self.jobs:
            reason = next((f" ({job.rejected.message})" for job in jobs if job.rejected is not None), "")
            reason = reason or " (only http and https are measured)" if jobs else reason
            raise ConfigError(f"{self._label}: has no job that can be fetched{reason}")
        if len(self.jobs) < len(jobs):
            self.notes.append(
                f"{len(jobs) - len(self.jobs):,} rows of the sources can not be fetched by http; left out"
            )
        self._note_methods()
        if not self.consent:
            await vet(
                {job.host for job in self.jobs}, _resolver_map(self.config), getattr(self.config.http, "dns", None)
            )
            if self._follows:
                self.notes.append(f"redirects are not followed without {CONSENT}: they may lead to other hosts")

    async def probe(self, stop: asyncio.Event) -> None:
        """Fetch one job, whatever its status. Raises UnreachableError if nothing answers."""
        probe = asyncio.ensure_future(self._probe())
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait([probe, stopped], return_when=asyncio.FIRST_COMPLETED)
            if probe.done():
                probe.result()
        finally:
            for task in (probe, stopped):
                task.cancel()
            await asyncio.gather(probe, stopped, return_exceptions=True)

    async def _probe(self) -> None:
        transport = self._transport()
        await transport.open()
        try:
            result, _ = await self._worker(transport).attempt(self.jobs[0], 0.0)
        finally:
            await transport.close()
        if result.status is None:
            raise UnreachableError(
                f"{result.url}: does not answer: {result.error_kind}: {result.error_message}; "
                "is the server running, and is this its address?"
            )

    def run(self, spec: Spec, stop: asyncio.Event) -> TargetRun:
        """Return a round on this target, not yet begun."""
        return TargetRun(self, spec, stop)

    def _transport(self) -> Transport:
        http: Any = self.config.http
        transport: Transport = http.build(self.config.request, self.config.body)
        return transport

    def _worker(self, transport: Transport) -> Worker:
        schemes: Sequence[str] = getattr(transport, "schemes", ("http", "https"))
        method = self.config.request.method.upper()
        return Worker(self.config.name, dict.fromkeys(schemes, transport), method)

    def _note_methods(self) -> None:
        default = self.config.request.method.upper()
        methods = {job.method or default for job in self.jobs} - _SAFE_METHODS
        if methods:
            self.notes.append(f"{', '.join(sorted(methods))} requests are sent again and again")


class TargetRun:
    """A round with a transport of its own, so that no setting inherits the connections of another."""

    def __init__(self, target: Target, spec: Spec, stop: asyncio.Event) -> None:
        self._transport = target._transport()  # noqa: SLF001  two halves of one thing
        worker = target._worker(self._transport)  # noqa: SLF001

        async def fetch(job: Job) -> Any:
            result, _ = await worker.attempt(job, 0.0)
            return result

        self.run = Run(spec, target.jobs, fetch, stop)

    async def measure(self) -> Round:
        """Open the transport, run the round, and close it."""
        await self._transport.open()
        try:
            return await self.run.measure()
        finally:
            await self._transport.close()


def is_url(text: str) -> bool:
    """Tell whether this is a URL rather than the name of a config file."""
    return _URL.match(text) is not None


def config_of(target: str, overrides: Sequence[str] = ()) -> Config:
    """Return the config that a target names, or that of a URL or a template. Raises ConfigProblems."""
    if not is_url(target):
        return load(target, overrides)
    sources = f"sources={json.dumps([target])}"
    return load(None, [sources, "queue=memory", 'sinks=["-"]', *overrides])


def _unredirected(config: Config) -> Config:
    request = config.request.model_copy(update={"max_redirects": 0})
    return config.model_copy(update={"request": request})


def _resolver_map(config: Config) -> Mapping[str, str]:
    found: Mapping[str, str] = getattr(config.http, "resolve", {})
    return found


async def _first_jobs(sources: Iterable[Any]) -> list[Job]:
    """Return the first jobs of the sources, in their order."""
    jobs: list[Job] = []
    built: list[Source] = [source.build() for source in sources]
    for source in built:
        source.check()
    for source in built:
        async with aclosing(source.read(None)) as chunks:
            async for chunk in chunks:
                jobs += chunk.jobs[: MOST_JOBS - len(jobs)]
                if len(jobs) >= MOST_JOBS:
                    return jobs
    return jobs


async def vet(hosts: Iterable[str], mapping: Mapping[str, str], dns: DnsSettings | None = None) -> None:
    """Raise RefusedError unless every address of every host is loopback or private.

    Names are resolved as the transport does it, with ``http.resolve`` first.
    """
    resolver = MappingResolver(mapping, dns)
    turns = asyncio.Semaphore(_RESOLVING)

    async def one(host: str) -> tuple[str, list[str]]:
        async with turns:
            return host, await _addresses(host, resolver)

    try:
        found = await asyncio.gather(*(one(host) for host in sorted(hosts)))
    finally:
        await resolver.close()
    for host, addresses in found:
        public = [address for address in addresses if not is_own(address)]
        if public:
            what = host if host in public else f"{host} ({', '.join(public[:3])})"
            raise RefusedError(
                f"{what} is not a loopback or private address, and a load test may break what serves others; "
                f"if it is yours, or you were asked to, say so with {CONSENT}"
            )


async def _addresses(host: str, resolver: MappingResolver) -> list[str]:
    try:
        return [str(ipaddress.ip_address(host.strip("[]")))]
    except ValueError:
        pass
    try:
        found = await resolver.resolve(host, 0, socket.AF_UNSPEC)
    except (OSError, FetchError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreachableError(
            f"{host}: has no address ({reason}); correct the name, or give it one: "
            f"-s 'http.resolve.\"{host}\"=127.0.0.1'"
        ) from None
    return [address["host"] for address in found]


def is_own(address: str) -> bool:
    """Tell whether an address is loopback or private (not routed on the internet)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped if mapped is not None else ip
    return (ip.is_loopback or ip.is_private) and not ip.is_multicast
