from __future__ import annotations

import errno
import os
import resource
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from dns_server import dns_server

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.resolver import DnsSettings, MappingResolver


@contextmanager
def no_files_left():
    """Take every file that this process may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 8, hard))
    try:
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        for file in held:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
async def server():
    async with dns_server(name=["127.0.0.1"]) as running:
        yield running


@pytest.fixture
async def resolver(server):
    resolver = MappingResolver({"*.mapped.test": "127.0.0.3"}, DnsSettings(servers=[server.address]))
    yield resolver
    await resolver.close()


async def test_a_mapped_name_is_not_asked_for(resolver, server):
    [found] = await resolver.resolve("A.Mapped.Test.", 80)
    assert found["host"] == "127.0.0.3"
    assert not server.asked


async def test_any_other_name_is_asked_for(resolver, server):
    [found] = await resolver.resolve("name.test", 80)
    assert (found["host"], found["port"]) == ("127.0.0.1", 80)


async def test_a_name_that_the_dns_can_not_have(resolver):
    with pytest.raises(FetchError) as caught:
        await resolver.resolve("a!b.test")
    assert caught.value.kind is ErrorKind.INVALID_URL


async def test_out_of_files_is_told_from_a_name_server_that_is_not_there(resolver):
    with no_files_left(), pytest.raises(OSError, match="Too many open files") as caught:
        await resolver.resolve("name.test")
    assert caught.value.errno == errno.EMFILE
    assert await resolver.resolve("name.test")


@pytest.mark.parametrize("server", ["127.0.0.1:5353", "10.0.0.53", "[::1]:53", "[::1]", "fe80::1"])
def test_name_servers_are_addresses_with_or_without_a_port(server):
    assert DnsSettings(servers=[server]).servers == [server]


@pytest.mark.parametrize("server", ["", "localhost", "1.2.3", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:", "::1]:5"])
def test_what_is_no_name_server(server):
    with pytest.raises(ValueError, match="IP address of a name server"):
        DnsSettings(servers=[server])
