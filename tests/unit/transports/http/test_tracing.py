from __future__ import annotations

import asyncio
import socket
import ssl
from unittest.mock import Mock

import pytest

from fetcher.transports.http import tracing
from fetcher.transports.http.connection import Suspects
from fetcher.transports.http.tracing import HopTrace, TracedContext, current_trace, noting_socket


@pytest.fixture
def clock(monkeypatch):
    """A performance counter that goes on by a second at each look."""
    ticks = iter(range(100))
    monkeypatch.setattr(tracing, "_now", lambda: float(next(ticks)))


ADDRESS = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 1))


async def open_connection(trace, *, name=True, tls=True):
    await trace.send_connection_create_start()
    if name:
        await trace.send_dns_resolvehost_start("a.test")
        await trace.send_dns_resolvehost_end("a.test")
    noting_socket(ADDRESS).close()
    noting_socket(ADDRESS).close()  # a second address is tried
    if tls:
        TracedContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="a.test")
    await trace.send_connection_create_end()


async def test_the_phases_of_a_new_connection(clock):
    trace = HopTrace()
    await open_connection(trace)
    assert (trace.dns, trace.connect, trace.tls) == (1.0, 1.0, 1.0)
    assert (trace.reused, trace.connected, trace.sent) == (False, True, True)


async def test_a_phase_that_did_not_happen_has_no_duration(clock):
    trace = HopTrace()
    await open_connection(trace, name=False, tls=False)
    assert (trace.dns, trace.connect, trace.tls) == (None, 1.0, None)


async def test_waiting_for_a_resolution_of_somebody_else_is_no_connecting(clock):
    trace = HopTrace()
    await trace.send_connection_create_start()
    await trace.send_dns_cache_hit("a.test")
    noting_socket(ADDRESS).close()
    await trace.send_connection_create_end()
    assert (trace.dns, trace.connect) == (1.0, 1.0)


async def test_a_reused_connection_has_no_phases():
    trace = HopTrace()
    await trace.send_connection_reuseconn()
    assert (trace.dns, trace.connect, trace.tls) == (None, None, None)
    assert (trace.reused, trace.connected, trace.sent) == (True, True, True)


async def test_a_second_connection_after_a_reused_one():
    trace = HopTrace()
    await trace.send_connection_reuseconn()
    await trace.send_connection_create_start()
    assert (trace.reused, trace.connected, trace.sent) == (False, False, True)


async def test_the_read_timeout_rests_while_connecting():
    watch = Mock()
    trace = HopTrace(watch)
    await trace.send_connection_create_start()
    watch.pause.assert_called_once_with()
    watch.resume.assert_not_called()
    await trace.send_connection_create_end()
    watch.resume.assert_called_once_with()


async def test_what_a_hop_is_at_is_noted_as_it_goes():
    noted = []

    class Watch(Mock):
        def __setattr__(self, name, value):
            if name == "phase":
                noted.append(value)
            super().__setattr__(name, value)

    trace = HopTrace(Watch())
    await open_connection(trace)
    await trace.send_connection_reuseconn()
    assert noted == ["connect", "dns", "connect", "tls", "first byte"]


async def test_hops_at_the_same_time_do_not_mix():
    async def hop(trace: HopTrace, first: asyncio.Event, second: asyncio.Event) -> None:
        await trace.send_connection_create_start()
        first.set()
        await second.wait()
        assert current_trace.get() is trace

    here, there = asyncio.Event(), asyncio.Event()
    await asyncio.gather(hop(HopTrace(), here, there), hop(HopTrace(), there, here))


def test_a_socket_and_a_handshake_outside_of_a_hop():
    current_trace.set(None)
    noting_socket(ADDRESS).close()
    TracedContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="a.test")


def test_suspects_are_forgotten_in_time_and_bounded(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("fetcher.transports.http.connection.monotonic", lambda: now[0])
    suspects = Suspects()
    assert "a" not in suspects
    suspects.add("a")
    assert "a" in suspects
    now[0] += 61
    assert "a" not in suspects
    for number in range(2000):
        suspects.add(number)
    assert len(suspects._until) == 1024
    assert 1999 in suspects
