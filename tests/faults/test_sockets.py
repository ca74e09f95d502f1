"""F1 to F11, F14 to F19, F55 to F65 for tcp, tls and udp: no http, the same promises."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from contextlib import asynccontextmanager

import pytest
import trustme
from batches import run_batch
from certificates import encrypted_key, expired, self_signed, serving, without_intermediate, write_authority
from dns_server import dns_server
from dnslib import RCODE
from full_backlog import full_backlog
from raw_server import blackhole, raw_server, unused_port
from tls_server import answering_and_ending
from transport_factories import failure, job, socket_transport
from transport_partners.datagrams import DatagramServer, serving_datagrams

from fetcher.engine.retry import Attempt, Retry, RetrySettings, decide
from fetcher.errors import ErrorKind, FetchError
from fetcher.jobs.intake import make_job
from fetcher.model import Receive

BOTH_LOOPS = True
QUICK = {"timeout": "100ms", "tries": 1}
ALLOWED, FORBIDDEN = "127.0.0.2", "127.0.0.1"
PAUSE = 0.02
both = pytest.mark.parametrize("scheme", ["tcp", "udp"])


def opened(scheme="tcp", **sections):
    """Open the transport of a scheme; the keywords are the sections of a config."""
    return socket_transport("udp" if scheme == "udp" else "tcp", **sections)


@asynccontextmanager
async def echo(scheme="tcp", host="127.0.0.1", port=0):
    """Answer with what was sent; yield the port, and a list of what came."""
    received = []

    async def script(peer):
        data = await peer.receive(5)
        received.append(data)
        await peer.send(data)

    def reply(data):
        received.append(data)
        return data

    if scheme == "udp":
        async with serving_datagrams(DatagramServer(reply), host) as server:
            yield server.port, received
    else:
        async with raw_server(script, host=host) as server:
            yield server.port, received


def ask(scheme, host, port, **fields):
    return job(f"{scheme}://{host}:{port}", **({"method": "SEND", "body": b"hello"} | fields))


def retried(error, settings=None, method="SEND"):
    attempt = Attempt(1, 0.0, method, error.status, error.kind, error.sent)
    return isinstance(decide(settings or RetrySettings(), attempt, lambda: 0.5), Retry)


def asking(dns, **settings):
    return {"dns": {"servers": [dns.address], **settings}}


# F1 to F6: names


@both
async def test_f01_a_name_that_does_not_exist_is_not_asked_for_again_by_sockets(scheme):
    async with dns_server() as dns, opened(scheme, http=asking(dns)) as transport:
        error = await failure(transport, ask(scheme, "nothing.test", 7))
        assert (error.kind, error.sent) == (ErrorKind.DNS_NOT_FOUND, False)
        assert "nothing.test" in error.message
        assert not retried(error)
        assert dns.asked["nothing.test", "A"] == 1


@both
async def test_f02_a_failing_name_server_is_a_reason_to_try_again_by_sockets(scheme):
    async with (
        echo(scheme) as (port, _),
        dns_server(broken=RCODE.SERVFAIL) as dns,
        opened(scheme, http=asking(dns, **QUICK)) as transport,
    ):
        error = await failure(transport, ask(scheme, "broken.test", port))
        assert (error.kind, error.sent) == (ErrorKind.DNS_FAILURE, False)
        assert retried(error)
        dns.names["broken.test"] = ["127.0.0.1"]
        assert (await transport.fetch(ask(scheme, "broken.test", port))).body == b"hello"


@both
async def test_f02_resolving_takes_no_longer_than_connecting_may_by_sockets(scheme):
    request = {"timeout": {"connect": "200ms"}}
    async with (
        dns_server(silent=None) as dns,
        opened(scheme, request=request, http=asking(dns, timeout="60s")) as transport,
    ):
        error = await failure(transport, ask(scheme, "silent.test", 7))
    assert error.kind is ErrorKind.DNS_FAILURE
    assert "the name server took too long" in error.message


@both
async def test_f03_a_slow_name_holds_up_its_own_host_alone_by_sockets(scheme):
    answer = asyncio.Event()

    async def slow(_before):
        await answer.wait()
        return ["127.0.0.1"]

    async with (
        echo(scheme) as (port, _),
        dns_server(slow=slow, quick=["127.0.0.1"]) as dns,
        opened(scheme, http=asking(dns, timeout="30s")) as transport,
    ):
        waiting = asyncio.create_task(transport.fetch(ask(scheme, "slow.test", port)))
        for _ in range(20):
            assert (await transport.fetch(ask(scheme, "quick.test", port))).body == b"hello"
        assert not waiting.done()
        answer.set()
        assert (await waiting).body == b"hello"


@both
@pytest.mark.parametrize("order", [[FORBIDDEN, ALLOWED], [ALLOWED, FORBIDDEN], ["::1", FORBIDDEN, ALLOWED]])
async def test_f04_of_a_mixed_answer_sockets_reach_only_what_is_allowed(scheme, order):
    async with echo(scheme, ALLOWED) as (port, received), dns_server(mixed=order) as dns:
        guarded = asking(dns) | {"guard": {"allow": [ALLOWED], "ports": [port]}}
        async with opened(scheme, http=guarded) as transport:
            for _ in range(4):  # the cache turns the addresses of a name round
                assert (await transport.fetch(ask(scheme, "mixed.test", port))).remote_ip == ALLOWED
    assert len(received) == 4


@both
async def test_f04_a_blocked_address_alone_is_blocked_for_sockets(scheme):
    async with (
        echo(scheme) as (port, received),
        dns_server(inside=[FORBIDDEN, "::1", "10.0.0.1"]) as dns,
        opened(scheme, http=asking(dns) | {"guard": {"allow": [ALLOWED]}}) as transport,
    ):
        error = await failure(transport, ask(scheme, "inside.test", port))
        literal = await failure(transport, ask(scheme, FORBIDDEN, port))
    assert (error.kind, error.sent, retried(error)) == (ErrorKind.BLOCKED, False, False)
    assert literal.kind is ErrorKind.BLOCKED
    assert not received


@both
async def test_f05_a_name_that_is_bound_anew_between_two_attempts_is_checked_again_by_sockets(scheme):
    async def turn(before):
        return [ALLOWED] if before == 0 else [FORBIDDEN]

    async with (
        echo(scheme, ALLOWED) as (port, received),
        dns_server(turn=turn) as dns,
        opened(scheme, http=asking(dns, cache="0s") | {"guard": {"allow": [ALLOWED]}}) as transport,
    ):
        asked = ask(scheme, "turn.test", port)
        assert (await transport.fetch(asked)).remote_ip == ALLOWED
        assert (await failure(transport, asked)).kind is ErrorKind.BLOCKED
    assert len(received) == 1


@pytest.mark.parametrize("scheme", ["tcp", "tls", "udp"])
@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test", "a b.test", "1.2.3.4.5", "\u202ea.test"], ids=ascii)
def test_f06_a_host_that_can_be_no_name_is_refused_for_sockets_too(scheme, host):
    rejected = make_job("1", f"{scheme}://{host}:7").rejected
    assert rejected.kind is ErrorKind.INVALID_URL


@both
async def test_f06_a_name_that_the_resolver_refuses_is_no_url_for_sockets(scheme):
    async with dns_server() as dns, opened(scheme, http=asking(dns)) as transport:
        error = await failure(transport, make_job("1", f"{scheme}://a!b.test:7"))
    assert (error.kind, error.sent) == (ErrorKind.INVALID_URL, False)


# F7 to F11: connections


@both
async def test_f07_a_refused_socket_is_retried_only_so_often(scheme):
    async with opened(scheme) as transport:
        error = await failure(transport, ask(scheme, "127.0.0.1", unused_port()))
    assert (error.kind, error.sent) == (ErrorKind.CONNECT_REFUSED, False)
    assert retried(error)
    last = Attempt(number=4, age=0.0, method="SEND", kind=error.kind, sent=False)
    assert decide(RetrySettings(), last, lambda: 0.5) is None


async def test_f08_a_syn_without_an_answer_is_a_connect_timeout_for_sockets():
    with blackhole() as port:
        async with opened(request={"timeout": {"connect": "300ms"}}) as transport:
            error = await failure(transport, ask("tcp", "127.0.0.1", port))
    assert (error.kind, error.sent) == (ErrorKind.CONNECT_TIMEOUT, False)
    assert retried(error)


async def resetting(peer):
    await peer.receive(5)
    peer.reset()


async def test_f09_a_reset_before_an_answer_is_retried_only_if_nothing_was_sent():
    async def at_once(peer):
        peer.reset()

    async with opened() as transport:
        async with raw_server(resetting) as server:
            error = await failure(transport, ask("tcp", "127.0.0.1", server.port))
        async with raw_server(at_once) as server:
            unasked = await failure(transport, ask("tcp", "127.0.0.1", server.port, body=None))
    assert (error.kind, error.sent) == (ErrorKind.CONNECTION_RESET, True)
    assert not retried(error)
    assert retried(error, RetrySettings(methods={"SEND"}))
    assert (unasked.kind, unasked.sent) == (ErrorKind.CONNECTION_RESET, False)
    assert retried(unasked)


@pytest.mark.parametrize(
    "receive", [None, Receive(length=900), Receive(delimiter=b"\r\n"), Receive(quiet=5.0)], ids=str
)
async def test_f10_a_reset_in_the_middle_of_an_answer_is_never_a_success(receive):
    async def script(peer):
        await peer.receive(5)
        await peer.send(b"x" * 500)
        await arrived.wait()
        peer.reset()

    arrived = asyncio.Event()
    async with raw_server(script) as server, opened() as transport:
        asked = ask("tcp", "127.0.0.1", server.port, receive=receive)
        fetching = asyncio.create_task(failure(transport, asked))
        await has_received(transport, asked, 500)
        arrived.set()
        error = await fetching
    assert error.kind is ErrorKind.BODY_INCOMPLETE
    assert (error.response.body_size, error.response.body) == (500, None)


async def has_received(transport, asked, size):
    async with asyncio.timeout(30):
        while (standing := transport.standing(asked)) is None or standing.received < size:  # noqa: ASYNC110  no event
            await asyncio.sleep(PAUSE)


@pytest.mark.parametrize("addresses", [["::1", "127.0.0.1"], ["127.0.0.1", "::1"]])
async def test_f11_a_dead_ipv6_address_costs_sockets_less_than_a_second(addresses):
    async with echo() as (port, _), dns_server(both=addresses) as dns:
        with full_backlog("::1", port):
            took = []
            for _ in range(3):  # the fastest: a busy machine is not what is measured
                async with opened(http=asking(dns)) as transport:
                    started = time.monotonic()
                    assert (await transport.fetch(ask("tcp", "both.test", port))).remote_ip == "127.0.0.1"
                    took.append(time.monotonic() - started)
            assert min(took) < 1


@pytest.mark.parametrize("addresses", [["::1", "127.0.0.1"], ["127.0.0.1", "::1"]])
async def test_f11_where_no_datagram_is_taken_the_next_address_is_asked(addresses):
    async with (
        echo("udp") as (port, _),
        dns_server(both=addresses) as dns,
        opened("udp", http=asking(dns), timeout="20s", tries=1) as transport,
    ):
        assert (await transport.fetch(ask("udp", "both.test", port))).remote_ip == "127.0.0.1"


@pytest.mark.parametrize("addresses", [[ALLOWED, FORBIDDEN], [FORBIDDEN, ALLOWED]])
async def test_f11_where_datagrams_vanish_the_next_address_is_asked(addresses):
    async with (
        echo("udp") as (port, _),
        dns_server(both=addresses) as dns,
        serving_datagrams(DatagramServer(lambda _: None), ALLOWED, port),
        opened("udp", http=asking(dns), timeout="100ms", tries=4) as transport,
    ):
        assert (await transport.fetch(ask("udp", "both.test", port))).remote_ip == "127.0.0.1"


# F14 to F19: TLS


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def trusting(authority, tmp_path):
    """A function that opens a transport which trusts the authority, with the given keys of ``http.tls``."""
    ca_file = write_authority(authority, tmp_path)

    def make(sections=None, **tls):
        http = {"resolve": {"*.test": "127.0.0.1"}, "tls": {"ca_file": ca_file} | tls}
        return socket_transport("tcp", http=http, **(sections or {}))

    return make


async def greeting(peer):
    await peer.send(b"hello")


def secure(server, **fields):
    return ask("tls", "good.test", server.port, **fields)


@pytest.mark.parametrize("kind", ["tls_expired", "tls_hostname", "tls_self_signed", "tls_untrusted"])
async def test_f14_a_bad_certificate_has_its_kind_and_no_payload_is_sent(trusting, authority, tmp_path, kind):
    context = {
        "tls_expired": lambda: serving(expired(authority, "good.test")),
        "tls_hostname": lambda: serving(authority.issue_cert("other.test")),
        "tls_self_signed": lambda: self_signed("good.test", tmp_path),
        "tls_untrusted": lambda: serving(trustme.CA().issue_cert("good.test")),
    }[kind]()
    async with raw_server(greeting, tls=context) as server, trusting() as transport:
        error = await failure(transport, secure(server))
        # Connections are counted when their handshake is done: nothing was tried again with less.
        assert server.connections == 0
    assert (error.kind, error.sent) == (ErrorKind(kind), False)
    assert error.message.startswith("the certificate of good.test")


async def test_f15_an_incomplete_chain_is_untrusted_for_sockets(trusting, authority, tmp_path):
    context = without_intermediate(authority, "good.test", tmp_path)
    async with raw_server(greeting, tls=context) as server, trusting() as transport:
        error = await failure(transport, secure(server))
    assert error.kind is ErrorKind.TLS_UNTRUSTED
    assert "intermediate" in error.message


async def test_f16_a_handshake_of_sockets_that_stalls(trusting):
    async def script(peer):
        await peer.gone()
        gone.set()

    gone = asyncio.Event()
    timeout = {"request": {"timeout": {"connect": 0.1, "read": 30, "total": 60}}}
    async with raw_server(script) as server, trusting(timeout) as transport:
        error = await failure(transport, secure(server))
        await gone.wait()
    assert (error.kind, error.sent) == (ErrorKind.TLS_TIMEOUT, False)


async def test_f17_a_plain_service_on_a_tls_port(trusting):
    async def script(peer):
        await peer.receive(1)
        await peer.send(b"220 mail.test ESMTP\r\n")

    async with raw_server(script) as server, trusting() as transport:
        error = await failure(transport, secure(server))
    assert (error.kind, error.sent) == (ErrorKind.TLS_PROTOCOL, False)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("receive", [None, Receive(quiet=5.0)], ids=str)
async def test_f18_an_end_without_close_notify_is_no_end_of_an_answer(trusting, authority, version, receive):
    context = serving(authority.issue_cert("good.test"), maximum_version=version)
    with answering_and_ending(context, b"all of it?", politely=False) as port:
        async with trusting() as transport:
            error = await failure(transport, ask("tls", "good.test", port, body=b"go\r\n\r\n", receive=receive))
    assert error.kind is ErrorKind.BODY_INCOMPLETE
    assert "TLS was not closed" in error.message
    assert error.response.body_size == 10


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_f18_an_end_with_close_notify_ends_an_answer(trusting, authority, version):
    context = serving(authority.issue_cert("good.test"), maximum_version=version)
    with answering_and_ending(context, b"all of it", politely=True) as port:
        async with trusting() as transport:
            response = await transport.fetch(ask("tls", "good.test", port, body=b"go\r\n\r\n"))
    assert (response.body, response.length_unknown) == (b"all of it", True)


@pytest.mark.parametrize("receive", [Receive(length=9), Receive(delimiter=b"it")], ids=str)
async def test_f18_an_answer_with_an_end_of_its_own_needs_no_close_notify(trusting, authority, receive):
    context = serving(authority.issue_cert("good.test"))
    with answering_and_ending(context, b"all of it", politely=False) as port:
        async with trusting() as transport:
            response = await transport.fetch(ask("tls", "good.test", port, body=b"go\r\n\r\n", receive=receive))
    assert (response.body, response.length_unknown) == (b"all of it", False)


async def test_f19_a_socket_may_take_any_certificate_and_its_record_says_so(trusting):
    context = serving(trustme.CA().issue_cert("good.test"))
    async with raw_server(greeting, tls=context) as server:
        async with trusting() as transport:
            assert not (await transport.fetch(secure(server, verify=False))).verified
            assert (await failure(transport, secure(server))).kind is ErrorKind.TLS_UNTRUSTED
        async with trusting(verify=False) as transport:
            assert not (await transport.fetch(secure(server))).verified
            assert (await failure(transport, secure(server, verify=True))).kind is ErrorKind.TLS_UNTRUSTED


async def test_f19_what_was_checked_is_recorded_as_such_by_sockets(trusting, authority):
    context = serving(authority.issue_cert("good.test"), minimum_version=ssl.TLSVersion.TLSv1_3)
    async with raw_server(greeting, tls=context) as server, trusting(minimum_version="1.3") as transport:
        response = await transport.fetch(secure(server))
    assert response.verified
    assert response.timings.tls > 0


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_f19_sockets_speak_nothing_older_than_tls_1_2(trusting, authority):
    context = serving(authority.issue_cert("good.test"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with raw_server(greeting, tls=context) as server, trusting() as transport:
        error = await failure(transport, secure(server))
    assert error.kind in {ErrorKind.TLS_PROTOCOL, ErrorKind.CONNECTION_RESET}
    assert not error.sent


async def test_f19_a_socket_shows_its_client_certificate(trusting, authority, tmp_path):
    context = serving(authority.issue_cert("good.test"), verify_mode=ssl.CERT_REQUIRED)
    authority.configure_trust(context)
    certificate, key = encrypted_key(authority.issue_cert("client.test"), "open sesame", tmp_path)
    shown = {"client_cert": certificate, "client_key": key, "client_key_password": "open sesame"}
    async with raw_server(greeting, tls=context) as server:
        async with trusting(**shown) as transport:
            assert (await transport.fetch(secure(server))).body == b"hello"
        async with trusting() as transport:
            refused = await failure(transport, secure(server))
    assert refused.kind in {ErrorKind.TLS_PROTOCOL, ErrorKind.CONNECTION_RESET, ErrorKind.SERVER_DISCONNECTED}


# F27: nothing at all


@pytest.mark.parametrize("receive", [None, Receive(length=9), Receive(delimiter=b"\n"), Receive(quiet=5.0)], ids=str)
async def test_f27_a_server_that_closes_without_a_word_has_not_answered(receive):
    async def script(peer):
        await peer.receive(5)

    async with raw_server(script) as server, opened() as transport:
        error = await failure(transport, ask("tcp", "127.0.0.1", server.port, receive=receive))
    assert (error.kind, error.sent) == (ErrorKind.SERVER_DISCONNECTED, True)
    assert error.message == "the server closed the connection without an answer"


@pytest.mark.parametrize(
    ("receive", "missing"),
    [
        (Receive(length=9), "before all of its 9 bytes"),
        (Receive(delimiter=b"\r\n"), r"before its delimiter '\r\n'"),
    ],
    ids=["length", "delimiter"],
)
async def test_f20_an_answer_that_ends_too_early_is_incomplete_and_says_what_is_missing(receive, missing):
    async def script(peer):
        await peer.send(b"part")

    async with raw_server(script) as server, opened() as transport:
        error = await failure(transport, ask("tcp", "127.0.0.1", server.port, body=None, receive=receive))
    assert error.kind is ErrorKind.BODY_INCOMPLETE
    assert error.message == f"the connection ended after 4 bytes of the answer, {missing}"
    assert error.response.body_size == 4
    assert retried(error)


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
async def test_f63_an_answer_before_the_payload_was_taken_is_none_that_can_be_trusted(secure):
    async def script(peer):
        await peer.receive(5)
        await peer.send(b"half")
        if secure:
            peer.close()
            return
        peer._writer.write_eof()
        await asyncio.sleep(PAUSE)
        peer.reset()

    tls = serving(trustme.CA().issue_cert("127.0.0.1")) if secure else None
    async with raw_server(script, tls=tls) as server, opened(http={"tls": {"verify": False}}) as transport:
        wanted = ask("tls" if secure else "tcp", "127.0.0.1", server.port, body=b"x" * 20_000_000)
        error = await failure(transport, wanted)
    assert (error.kind, error.sent) == (ErrorKind.BODY_INCOMPLETE, True)
    assert not retried(error)


async def test_f63_a_server_that_has_said_all_before_it_has_read_all_is_waited_for():
    taken = []

    async def script(peer):
        await peer.receive(5)
        await peer.send(b"whole")
        peer._writer.write_eof()
        await asyncio.sleep(PAUSE)
        taken.append(len(await peer.rest()))

    async with raw_server(script) as server, opened() as transport:
        response = await transport.fetch(ask("tcp", "127.0.0.1", server.port, body=b"x" * 20_000_000))
        assert response.body == b"whole"
        # What the socket has taken, the server has.
        async with asyncio.timeout(10):
            while not taken:  # noqa: ASYNC110  the script has no event for it
                await asyncio.sleep(0.001)
    assert taken == [20_000_000 - 5]


async def test_f57_a_server_that_has_said_all_and_takes_no_more_is_a_read_timeout():
    async def script(peer):
        await peer.receive(5)
        await peer.send(b"whole")
        peer._writer.transport.pause_reading()
        peer._writer.write_eof()
        await asyncio.Event().wait()

    async with raw_server(script) as server, opened(request={"timeout": {"read": 0.2}}) as transport:
        error = await failure(transport, ask("tcp", "127.0.0.1", server.port, body=b"x" * 20_000_000))
    assert error.kind is ErrorKind.READ_TIMEOUT


@pytest.mark.parametrize("receive", [Receive(length=5), Receive(delimiter=b"e")], ids=["length", "delimiter"])
async def test_f63_an_answer_that_says_itself_where_it_ends_is_whole_whatever_was_taken(receive):
    async def script(peer):
        await peer.receive(5)
        await peer.send(b"whole")
        await asyncio.Event().wait()

    async with raw_server(script) as server, opened() as transport:
        wanted = ask("tcp", "127.0.0.1", server.port, body=b"x" * 20_000_000, receive=receive)
        assert (await transport.fetch(wanted)).body == b"whole"


# F55 to F59: sizes and times


async def flood(peer):
    while True:
        await peer.send(b"x" * 65_536)


async def test_f55_an_endless_answer_stops_at_the_deadline():
    body = {"store": "none", "max_size": "100GB"}
    async with raw_server(flood) as server, opened(body=body, request={"timeout": {"total": 0.3}}) as transport:
        error = await failure(transport, ask("tcp", "127.0.0.1", server.port))
    assert error.kind is ErrorKind.TOTAL_TIMEOUT
    assert error.response.body_size > 0


async def test_f56_an_answer_over_the_cap_is_cut_where_the_cap_is():
    async with raw_server(flood) as server:
        asked = ask("tcp", "127.0.0.1", server.port)
        async with opened(body={"max_size": 100_001, "overflow": "truncate"}) as transport:
            response = await transport.fetch(asked)
        async with opened(body={"max_size": 100_001}) as transport:
            error = await failure(transport, asked)
    assert (response.truncated, response.body_size, len(response.body)) == (True, 100_001, 100_001)
    assert error.kind is ErrorKind.BODY_TOO_LARGE


async def test_f56_a_datagram_over_the_cap_is_flagged_and_its_true_size_is_told():
    async with serving_datagrams(DatagramServer(lambda _: b"x" * 60_000)) as server:
        asked = ask("udp", "127.0.0.1", server.port)
        async with opened("udp", body={"max_size": 512, "overflow": "truncate"}) as transport:
            response = await transport.fetch(asked)
        async with opened("udp", body={"max_size": 512}) as transport:
            error = await failure(transport, asked)
    assert (response.truncated, response.body, response.wire_size) == (True, b"x" * 512, 60_000)
    assert error.kind is ErrorKind.BODY_TOO_LARGE


async def test_f56_the_longest_datagram_there_is_comes_whole():
    async with serving_datagrams(DatagramServer(lambda _: b"x" * 65_507)) as server, opened("udp") as transport:
        response = await transport.fetch(ask("udp", "127.0.0.1", server.port))
    assert (response.truncated, response.body_size) == (False, 65_507)


async def silent(peer):
    await peer.receive(5)
    await peer.send(b"x")
    await asyncio.sleep(60)


async def test_f57_silence_is_a_read_timeout_that_says_what_was_waited_for():
    async with raw_server(silent) as server, opened(request={"timeout": {"read": 0.2}}) as transport:
        error = await failure(transport, ask("tcp", "127.0.0.1", server.port))
        other = await failure(transport, ask("tcp", "127.0.0.1", server.port, receive=Receive(length=2)))
    assert error.kind is other.kind is ErrorKind.READ_TIMEOUT
    assert error.message == (
        "nothing arrived for 0.2 s, and the server has not closed the connection; "
        "`receive` can say when an answer is whole"
    )
    assert other.message == "nothing arrived for 0.2 s"


async def test_f57_silence_after_datagrams_is_a_read_timeout_that_may_be_tried_again():
    async with (
        serving_datagrams(DatagramServer(lambda _: None)) as server,
        opened("udp", timeout="50ms", tries=3) as transport,
    ):
        error = await failure(transport, ask("udp", "127.0.0.1", server.port))
    assert (error.kind, error.message) == (ErrorKind.READ_TIMEOUT, "no answer to 3 datagrams within 0.35 s")
    assert server.contacts == 3
    assert retried(error)


def dripping(count=None):
    async def script(peer):
        await peer.receive(5)
        for _ in range(10_000 if count is None else count):
            await peer.send(b"x")
            await asyncio.sleep(PAUSE)

    return script


@pytest.mark.parametrize("receive", [None, Receive(quiet=2.0)], ids=str)
async def test_f58_an_answer_that_drips_is_too_slow(receive):
    request = {"min_rate": 1000, "min_rate_span": 0.3}
    async with raw_server(dripping()) as server, opened(request=request) as transport:
        error = await failure(transport, ask("tcp", "127.0.0.1", server.port, receive=receive))
    assert error.kind is ErrorKind.TOO_SLOW


async def test_f58_a_drip_may_go_on_if_no_rate_is_asked_for():
    request = {"min_rate": 0, "min_rate_span": 0.2}
    async with raw_server(dripping(30)) as server, opened(request=request) as transport:
        assert (await transport.fetch(ask("tcp", "127.0.0.1", server.port))).body_size == 30


async def test_f58_a_payload_that_is_taken_slowly_is_no_slow_answer():
    async def script(peer):
        for _ in range(len(payload) // piece):
            await peer.receive(piece)
            await asyncio.sleep(PAUSE)
        await peer.send(b"taken")

    piece = 512 * 1024
    payload = b"x" * 40 * piece
    request = {"min_rate": "1MB", "min_rate_span": 0.2, "timeout": {"read": 0.7}}
    async with raw_server(script) as server, opened(request=request) as transport:
        response = await transport.fetch(ask("tcp", "127.0.0.1", server.port, body=payload))
    assert response.body == b"taken"


async def test_f59_waiting_for_a_slot_is_not_charged_to_a_socket(tmp_path):
    async def script(peer):
        await asyncio.sleep(0.2)
        await peer.send(b"ok")

    async with raw_server(script) as server:
        jobs = [{"url": f"tcp://127.0.0.1:{server.port}", "meta": {"n": n}} for n in range(8)]
        sections = {"request": {"timeout": {"total": 1.0}}, "limits": {"concurrency": 1}}
        records = await run_batch(tmp_path, jobs, **sections)
    assert [record["outcome"] for record in records] == ["ok"] * 8


# F63 to F65: retries


@pytest.mark.parametrize(
    ("job_fields", "retry", "connections"),
    [
        ({"body": "hello"}, {}, 1),
        ({"body": "hello"}, {"methods": ["SEND"]}, 3),
        ({}, {}, 3),
    ],
    ids=["payload", "payload that may be sent again", "no payload"],
)
async def test_f63_a_payload_is_not_sent_twice_unless_the_config_says_that_it_may(
    tmp_path, job_fields, retry, connections
):
    async def script(peer):
        if job_fields:
            await peer.receive(5)
        if server.connections == 3:
            await peer.send(b"at last")
        else:
            peer.reset()

    async with raw_server(script) as server:
        jobs = [{"url": f"tcp://127.0.0.1:{server.port}", **job_fields}]
        (record,) = await run_batch(tmp_path, jobs, retry={"backoff": "1ms", **retry})
    assert server.connections == connections
    assert record["attempts"] == connections
    assert record["method"] == "SEND"
    assert record.get("status") is None
    if connections == 3:
        assert (record["outcome"], record["body"]) == ("ok", "at last")
    else:
        assert (record["outcome"], record["error_kind"]) == ("failed", "connection_reset")


async def test_f64_sockets_that_failed_together_do_not_come_back_together(tmp_path):
    async def script(peer):
        if peer.number <= 100:
            peer.reset()
            return
        again.append(time.monotonic())
        await peer.send(b"ok")

    again = []
    async with raw_server(script) as server:
        jobs = [f"tcp://h{n}.test:{server.port}" for n in range(100)]
        records = await run_batch(tmp_path, jobs, limits={"concurrency": 100}, retry={"backoff": "2s"})
    assert {(record["outcome"], record["attempts"]) for record in records} == {("ok", 2)}
    # Drawn from two seconds; the most crowded fifth of a second has about a tenth of them.
    assert max(sum(start <= when < start + 0.2 for when in again) for start in again) < 50
    assert again[-1] - again[0] > 1.0


@both
async def test_f65_no_attempt_of_a_socket_outlasts_the_deadline_of_its_job(scheme):
    async with serving_datagrams(DatagramServer(lambda _: None)) as datagrams, raw_server(silent) as server:
        port = datagrams.port if scheme == "udp" else server.port
        async with opened(scheme) as transport:
            with pytest.raises(FetchError) as caught:
                await transport.fetch(ask(scheme, "127.0.0.1", port), 0.2)
    assert caught.value.kind is ErrorKind.DEADLINE


# F70 is about proxies


@both
async def test_f70_sockets_do_not_go_round_a_proxy_unless_they_are_told_to(scheme):
    async with echo(scheme) as (port, received):
        for no_proxy, answered in (["127.0.0.1"], True), ([], False):
            proxy = {"urls": ["http://127.0.0.1:9"], "no_proxy": no_proxy}
            async with opened(scheme, http={"proxy": proxy}) as transport:
                if answered:
                    assert (await transport.fetch(ask(scheme, "127.0.0.1", port))).body == b"hello"
                else:
                    error = await failure(transport, ask(scheme, "127.0.0.1", port))
    assert (error.kind, error.sent) == (ErrorKind.BLOCKED, False)
    assert "http.proxy.no_proxy" in error.message
    assert len(received) == 1


# Of datagrams alone


async def test_f13_a_datagram_of_a_stranger_is_no_answer():
    class Server(DatagramServer):
        def datagram_received(self, data, addr):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(b"evil", addr)
            super().datagram_received(data, addr)

    async with serving_datagrams(Server(lambda data: data)) as server, opened("udp") as transport:
        assert (await transport.fetch(ask("udp", "127.0.0.1", server.port))).body == b"hello"


async def test_f13_what_comes_late_for_one_job_is_not_the_answer_to_another():
    class Late(DatagramServer):
        earlier = None

        def datagram_received(self, data, addr):
            if self.earlier is not None:
                self._transport.sendto(b"of the first", self.earlier)
                self._transport.sendto(b"of the second", addr)
            self.earlier = addr

    late = Late(lambda _: None)
    async with serving_datagrams(late) as server, opened("udp", timeout="100ms", tries=1) as transport:
        asked = ask("udp", "127.0.0.1", server.port)
        assert (await failure(transport, asked)).kind is ErrorKind.READ_TIMEOUT
        assert (await transport.fetch(asked)).body == b"of the second"


async def test_f63_a_datagram_that_got_lost_is_sent_again():
    server = DatagramServer(lambda data: data if server.contacts == 3 else None)
    async with serving_datagrams(server), opened("udp", timeout="50ms", tries=4) as transport:
        assert (await transport.fetch(ask("udp", "127.0.0.1", server.port))).body == b"hello"
    assert server.contacts == 3
