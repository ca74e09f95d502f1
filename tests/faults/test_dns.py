"""F1 to F6 and F11: names and what they lead to. A name server on the loopback answers what each test tells it to."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from dns_server import dns_server
from dnslib import RCODE
from full_backlog import full_backlog
from open_doors import open_doors
from raw_server import answering, ok, raw_server
from transport_factories import HTTP_EXCHANGES, http_transport, job

from fetcher.engine.retry import Attempt, Retry, RetrySettings, decide
from fetcher.errors import ErrorKind, FetchError
from fetcher.jobs.intake import make_job

BOTH_LOOPS = True
ALLOWED, FORBIDDEN = "127.0.0.2", "127.0.0.1"
QUICK = {"timeout": "100ms", "tries": 1}
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(params=HTTP_EXCHANGES)
def exchange(request):
    return request.param


def asking(dns, **settings):
    return {"servers": [dns.address], **settings}


async def fetch_failed(transport, url):
    with pytest.raises(FetchError) as caught:
        await transport.fetch(job(url))
    return caught.value


def retried(error):
    attempt = Attempt(1, 0.0, "POST", error.status, error.kind, error.sent)
    return isinstance(decide(RetrySettings(), attempt, lambda: 0.5), Retry)


async def test_f01_a_name_that_does_not_exist_is_not_asked_for_again(exchange):
    async with dns_server() as dns, http_transport(exchange, dns=asking(dns)) as transport:
        error = await fetch_failed(transport, "http://nothing.test/")
        assert error.kind is ErrorKind.DNS_NOT_FOUND
        assert "nothing.test" in error.message
        assert not retried(error)
        assert dns.asked["nothing.test", "A"] == 1


async def test_f01_a_name_without_addresses_has_not_been_found(exchange):
    async with dns_server(empty=[]) as dns, http_transport(exchange, dns=asking(dns)) as transport:
        assert (await fetch_failed(transport, "http://empty.test/")).kind is ErrorKind.DNS_NOT_FOUND


async def test_f02_a_failing_name_server_is_a_reason_to_try_again(exchange):
    async with (
        open_doors() as doors,
        dns_server(broken=RCODE.SERVFAIL) as dns,
        http_transport(exchange, dns=asking(dns, **QUICK)) as transport,
    ):
        error = await fetch_failed(transport, f"http://broken.test:{doors.port}/")
        assert error.kind is ErrorKind.DNS_FAILURE
        assert retried(error)
        dns.names["broken.test"] = ["127.0.0.1"]
        assert (await transport.fetch(job(f"http://broken.test:{doors.port}/"))).status == 200


@pytest.mark.parametrize("tries", [1, 3])
async def test_f02_a_silent_name_server_is_given_up_after_its_tries(exchange, tries):
    settings = {"timeout": "100ms", "tries": tries}
    async with dns_server(silent=None) as dns, http_transport(exchange, dns=asking(dns, **settings)) as transport:
        error = await fetch_failed(transport, "http://silent.test/")
        assert error.kind is ErrorKind.DNS_FAILURE
        assert retried(error)
        assert dns.asked["silent.test", "A"] == tries


async def test_f02_resolving_takes_no_longer_than_connecting_may(exchange):
    request = {"timeout": {"connect": "200ms"}}
    async with (
        dns_server(silent=None) as dns,
        http_transport(exchange, request=request, dns=asking(dns, timeout="60s")) as transport,
    ):
        error = await fetch_failed(transport, "http://silent.test/")
        assert error.kind is ErrorKind.DNS_FAILURE
        assert "the name server took too long" in error.message


async def test_f03_a_slow_name_holds_up_its_own_host_alone(exchange):
    answer = asyncio.Event()

    async def slow(_before):
        await answer.wait()
        return ["127.0.0.1"]

    quick = {f"quick{number}": ["127.0.0.1"] for number in range(50)}
    async with (
        open_doors() as doors,
        dns_server(slow=slow, **quick) as dns,
        http_transport(exchange, dns=asking(dns, timeout="30s")) as transport,
    ):
        waiting = [asyncio.create_task(transport.fetch(job(f"http://slow.test:{doors.port}/"))) for _ in range(20)]
        others = [transport.fetch(job(f"http://{name}.test:{doors.port}/")) for name in quick]
        assert {response.status for response in await asyncio.gather(*others)} == {200}
        assert not any(task.done() for task in waiting)
        assert dns.asked["slow.test", "A"] == 1
        answer.set()
        assert {response.status for response in await asyncio.gather(*waiting)} == {200}


async def test_f03_names_do_not_wait_behind_threads_that_are_busy(exchange):
    release = threading.Event()
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as pool:
        loop.set_default_executor(pool)
        busy = [loop.run_in_executor(None, release.wait) for _ in range(8)]
        try:
            async with (
                open_doors() as doors,
                dns_server(name=["127.0.0.1"]) as dns,
                http_transport(exchange, dns=asking(dns)) as transport,
            ):
                response = await transport.fetch(job(f"http://name.test:{doors.port}/"))
                assert response.remote_ip == "127.0.0.1"
                assert not any(future.done() for future in busy)
        finally:
            release.set()
            await asyncio.gather(*busy)


@pytest.mark.parametrize("order", [[FORBIDDEN, ALLOWED], [ALLOWED, FORBIDDEN], ["::1", FORBIDDEN, ALLOWED]])
async def test_f04_of_a_mixed_answer_only_what_is_allowed_is_connected_to(exchange, order):
    async with open_doors(lambda _: CLOSING) as doors, dns_server(mixed=order) as dns:
        async with http_transport(exchange, dns=asking(dns), guard={"allow": [ALLOWED]}) as transport:
            for _ in range(4):  # the cache turns the addresses of a name round
                response = await transport.fetch(job(f"http://mixed.test:{doors.port}/"))
                assert response.remote_ip == ALLOWED
        assert doors.entered == {ALLOWED: 4}


async def test_f04_a_blocked_address_does_not_stand_in_for_an_allowed_one_that_is_dead(exchange):
    async with raw_server(answering(ok()), host=FORBIDDEN) as server, dns_server(mixed=[FORBIDDEN, ALLOWED]) as dns:
        url = server.url(host="mixed.test")
        async with http_transport(exchange, dns=asking(dns), guard={"allow": [ALLOWED]}) as transport:
            error = await fetch_failed(transport, url)
        assert error.kind is ErrorKind.CONNECT_REFUSED
        assert not server.connections
        async with http_transport(exchange, dns=asking(dns)) as transport:
            assert (await transport.fetch(job(url))).remote_ip == FORBIDDEN  # it would have


async def test_f04_an_answer_of_blocked_addresses_alone_is_blocked(exchange):
    async with open_doors() as doors, dns_server(inside=[FORBIDDEN, "::1", "10.0.0.1"]) as dns:
        async with http_transport(exchange, dns=asking(dns), guard={"allow": [ALLOWED]}) as transport:
            error = await fetch_failed(transport, f"http://inside.test:{doors.port}/")
        assert error.kind is ErrorKind.BLOCKED
        assert not error.sent
        assert not retried(error)
        assert not doors.entered


def first_allowed_then_not():
    async def answer(before):
        return [ALLOWED] if before == 0 else [FORBIDDEN]

    return answer


async def test_f05_a_name_that_is_bound_anew_between_two_attempts_is_checked_again(exchange):
    async with open_doors(lambda _: CLOSING) as doors, dns_server(turn=first_allowed_then_not()) as dns:
        url = f"http://turn.test:{doors.port}/"
        settings = asking(dns, cache="0s")
        async with http_transport(exchange, dns=settings, guard={"allow": [ALLOWED]}) as transport:
            assert (await transport.fetch(job(url))).remote_ip == ALLOWED
            assert (await fetch_failed(transport, url)).kind is ErrorKind.BLOCKED
        assert doors.entered == {ALLOWED: 1}
        async with http_transport(exchange, dns=settings) as transport:
            assert (await transport.fetch(job(url))).remote_ip == FORBIDDEN  # it was bound anew


async def test_f05_a_name_that_is_bound_anew_between_two_hops_is_checked_again(exchange):
    async with open_doors() as doors, dns_server(turn=first_allowed_then_not()) as dns:
        url = f"http://turn.test:{doors.port}/"
        head = f"HTTP/1.1 302 Found\r\nLocation: {url}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        doors.answer = lambda _: head.encode()
        settings = asking(dns, cache="0s")
        async with http_transport(exchange, dns=settings, guard={"allow": [ALLOWED]}) as transport:
            error = await fetch_failed(transport, url)
        assert error.kind is ErrorKind.BLOCKED
        assert len(error.redirects) == 1
        assert doors.entered == {ALLOWED: 1}


async def test_f05_what_the_cache_has_was_checked_like_any_other(exchange):
    async with open_doors(lambda _: CLOSING) as doors, dns_server(turn=first_allowed_then_not()) as dns:
        url = f"http://turn.test:{doors.port}/"
        async with http_transport(exchange, dns=asking(dns, cache="1h"), guard={"allow": [ALLOWED]}) as transport:
            for _ in range(3):
                assert (await transport.fetch(job(url))).remote_ip == ALLOWED
        assert doors.entered == {ALLOWED: 3}
        assert dns.asked["turn.test", "A"] == 1


BAD_HOSTS = [
    "a" * 64 + ".test",
    ".".join(["a" * 60] * 5),
    "\u00fc" * 60 + ".test",
    "a..test",
    ".test",
    "xn--\u00fc.test",
    "a\u00ad.test",
    "\u2f00" + "\u0000.test",
    "a b.test",
    "a%20b.test",
    "-\u0308.test\ud800",
    "\u202ea.test",
    "1.2.3.4.5",
]


@pytest.mark.parametrize("host", BAD_HOSTS, ids=ascii)
def test_f06_a_host_that_can_be_no_name_is_refused_at_the_intake(host):
    rejected = make_job("1", f"http://{host}/").rejected
    assert rejected.kind is ErrorKind.INVALID_URL


@pytest.mark.parametrize("host", [host for host in BAD_HOSTS if host.isascii() and host.isprintable()], ids=ascii)
async def test_f06_a_redirect_to_such_a_host_is_a_bad_one(host):
    answer = f"HTTP/1.1 302 Found\r\nLocation: http://{host}/\r\nContent-Length: 0\r\n\r\n".encode()
    async with open_doors(lambda _: answer) as doors, http_transport("connection") as transport:
        error = await fetch_failed(transport, f"http://127.0.0.1:{doors.port}/")
        assert error.kind is ErrorKind.BAD_REDIRECT


async def test_f06_a_name_that_the_resolver_refuses_is_no_url(exchange):
    async with dns_server() as dns, http_transport(exchange, dns=asking(dns)) as transport:
        made = make_job("1", "http://a!b.test/")
        with pytest.raises(FetchError) as caught:
            await transport.fetch(made)
        assert caught.value.kind is ErrorKind.INVALID_URL
        assert not caught.value.sent
        assert not dns.asked


async def test_f06_a_broken_ascii_form_is_a_name_like_any_other(exchange):
    async with dns_server() as dns, http_transport(exchange, dns=asking(dns)) as transport:
        with pytest.raises(FetchError) as caught:
            await transport.fetch(make_job("1", "http://xn--a.test/"))
        assert caught.value.kind is ErrorKind.DNS_NOT_FOUND


async def test_f06_an_international_name_is_asked_for_in_its_ascii_form(exchange):
    async with open_doors(lambda _: ok()) as doors, dns_server() as dns:
        dns.names["xn--bcher-kva.test"] = ["127.0.0.1"]
        async with http_transport(exchange, dns=asking(dns)) as transport:
            made = make_job("1", f"http://B\u00fccher.test:{doors.port}/")
            assert (await transport.fetch(made)).status == 200
        assert doors.hosts == [f"xn--bcher-kva.test:{doors.port}"]


@pytest.mark.parametrize("addresses", [["::1", "127.0.0.1"], ["127.0.0.1", "::1"]])
async def test_f11_a_dead_ipv6_address_costs_less_than_a_second(addresses):
    async with raw_server(answering(ok())) as server, dns_server(both=addresses) as dns:
        with full_backlog("::1", server.port):
            took = []
            for _ in range(3):  # the fastest: a busy machine is not what is measured
                async with http_transport("connection", dns=asking(dns)) as transport:
                    started = time.monotonic()
                    assert (await transport.fetch(job(server.url(host="both.test")))).remote_ip == "127.0.0.1"
                    took.append(time.monotonic() - started)
            assert min(took) < 1


async def test_f11_a_blackhole_alone_is_waited_for():
    async with raw_server(answering(ok())) as server, dns_server(six=["::1"]) as dns:
        request = {"timeout": {"connect": "500ms"}}
        with full_backlog("::1", server.port):
            async with http_transport("connection", request=request, dns=asking(dns)) as transport:
                error = await fetch_failed(transport, server.url(host="six.test"))
        assert error.kind is ErrorKind.CONNECT_TIMEOUT


async def test_names_of_the_hosts_file_need_no_name_server(exchange):
    async with open_doors() as doors, dns_server() as dns, http_transport(exchange, dns=asking(dns)) as transport:
        response = await transport.fetch(job(f"http://localhost:{doors.port}/"))
        assert response.remote_ip in {"127.0.0.1", "::1"}
        assert not dns.asked
