"""Web sockets: the rows of names, connections, TLS, endless and slow answers, retries and escapes that apply."""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from certificates import expired, serving, write_authority
from dns_server import dns_server
from raw_server import blackhole, ok, raw_server, unused_port
from raw_server import saying as answering_once
from transport_factories import failure, job, socket_transport
from web_socket_frames import (
    BINARY,
    CLOSE,
    MORE,
    PING,
    PONG,
    TEXT,
    accepting,
    close,
    closed,
    frame,
    header,
    receive_frame,
    saying,
    talking,
)

from fetcher.engine.retry import Attempt, RetrySettings, decide
from fetcher.engine.worker import Worker
from fetcher.errors import ErrorKind, FetchError
from fetcher.jobs.objects import job_from_mapping
from fetcher.model import Receive

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from raw_server import Peer, RawServer

    from fetcher.interfaces import Transport

BOTH_LOOPS = True
RESOLVE = {"*.test": "127.0.0.1"}
QUICK = {"timeout": "100ms", "tries": 1}


def opened(**sections: Any) -> AbstractAsyncContextManager[Transport]:
    return socket_transport("websocket", **sections)


def ws(server: RawServer, path: str = "/", host: str | None = None) -> str:
    return server.url(path, host).replace("http", "ws", 1)


def retried(error: FetchError, method: str) -> bool:
    attempt = Attempt(number=1, age=0.0, method=method, status=error.status, kind=error.kind, sent=error.sent)
    return decide(RetrySettings(), attempt, lambda: 0.5) is not None


async def failed(script: Any, *, sections: dict[str, Any] | None = None, **fields: Any) -> FetchError:
    """Fetch from a server with this script, and return what that failed by."""
    async with raw_server(script) as server, opened(**(sections or {})) as transport:
        return await failure(transport, job(ws(server), **fields))


# Names and connections


async def test_f01_the_name_of_a_web_socket_that_does_not_exist():
    async with dns_server() as dns, opened(http={"dns": {"servers": [dns.address]}}) as transport:
        error = await failure(transport, job("ws://nothing.test/"))
    assert (error.kind, error.sent) == (ErrorKind.DNS_NOT_FOUND, False)
    assert not retried(error, "GET")


async def test_f02_a_silent_name_server_for_a_web_socket():
    http = {"dns": {"servers": ["127.0.0.1"], **QUICK}}
    async with dns_server(silent=None) as dns:
        http["dns"]["servers"] = [dns.address]
        async with opened(http=http) as transport:
            error = await failure(transport, job("ws://silent.test/"))
    assert error.kind is ErrorKind.DNS_FAILURE
    assert retried(error, "SEND")


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9/", "ws://localhost:9/", "ws://[::ffff:127.0.0.1]:9/"])
async def test_f04_a_guarded_web_socket_reaches_no_address_that_is_not_public(url):
    async with opened(http={"guard": True}) as transport:
        assert (await failure(transport, job(url))).kind is ErrorKind.BLOCKED


async def test_f06_a_web_socket_with_a_name_that_is_none():
    for url in ("ws://a..b/", f"wss://{'x' * 64}.example/", "ws:///", "ws://ex ample/"):
        rejected = job_from_mapping("1", {"url": url}).rejected
        assert rejected is not None
        assert rejected.kind is ErrorKind.INVALID_URL


async def test_f07_a_refused_web_socket():
    async with opened() as transport:
        error = await failure(transport, job(f"ws://127.0.0.1:{unused_port()}/", body=b"x"))
    assert (error.kind, error.sent) == (ErrorKind.CONNECT_REFUSED, False)
    assert retried(error, "SEND")


async def test_f08_a_web_socket_that_nobody_takes():
    with blackhole() as port:
        async with opened(request={"timeout": {"connect": 0.2}}) as transport:
            error = await failure(transport, job(f"ws://127.0.0.1:{port}/"))
    assert error.kind is ErrorKind.CONNECT_TIMEOUT


@pytest.mark.parametrize("payload", [None, b"x"])
async def test_f09_a_reset_in_the_handshake_does_no_harm(payload):
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    error = await failed(script, body=payload)
    assert error.kind is ErrorKind.CONNECTION_RESET
    # Nothing but the handshake had left.
    assert retried(error, "GET" if payload is None else "SEND")


async def test_f09_a_reset_before_the_first_message_may_have_done_something():
    async def talk(peer: Peer) -> None:
        await receive_frame(peer)
        peer.reset()

    error = await failed(talking(talk), body=b"x")
    assert (error.kind, error.status, error.sent) == (ErrorKind.CONNECTION_RESET, 101, True)
    assert not retried(error, "SEND")


@pytest.mark.parametrize("end", ["reset", "close"])
@pytest.mark.parametrize("part", [header(TEXT, 1000) + b"x" * 500, frame("half", fin=False)], ids=["frame", "message"])
async def test_f10_half_a_message_is_no_message(end, part):
    async def talk(peer: Peer) -> None:
        await peer.send(part)
        await arrived.wait()
        getattr(peer, end)()

    arrived = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, arrived.set)
    error = await failed(talking(talk))
    assert (error.kind, error.status) == (ErrorKind.BODY_INCOMPLETE, 101)


async def test_f10_fewer_messages_than_were_waited_for():
    error = await failed(saying(frame("1"), close(1001, b"restart")), receive=Receive(messages=2))
    assert (error.kind, error.message) == (
        ErrorKind.BODY_INCOMPLETE,
        "the server closed the web socket with 1001 (restart)",
    )
    assert error.response is not None
    assert error.response.body is None


async def test_f10_messages_none_of_which_is_the_one():
    error = await failed(saying(frame("1"), frame("2")), receive=Receive(until="done", messages=2))
    assert (error.kind, error.message) == (
        ErrorKind.BODY_INCOMPLETE,
        "none of 2 messages is what was waited for",
    )


async def test_f12_a_web_socket_over_a_connection_that_was_just_closed_takes_another():
    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.request()
            await peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
            return
        await peer.send(accepting(await peer.request()) + frame("hello"))
        await closed(peer)

    async with raw_server(script) as server, opened() as transport:
        assert (await failure(transport, job(ws(server)))).status == 503
        assert (await transport.fetch(job(ws(server)))).body == b"hello"


async def test_f13_a_connection_that_was_a_web_socket_is_used_for_nothing_else():
    async def script(peer: Peer) -> None:
        await peer.send(accepting(await peer.request()) + frame("1"))
        opcode, _ = await receive_frame(peer)
        assert opcode == CLOSE
        # It stays open, and says more.
        await peer.send(close(1000) + ok(b"poison"))
        await peer.gone()

    async with raw_server(script) as server, opened() as transport:
        for _ in range(3):
            assert (await transport.fetch(job(ws(server)))).body == b"1"
        assert server.connections == 3


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def http(authority: trustme.CA, tmp_path: Path) -> dict[str, Any]:
    return {"resolve": RESOLVE, "tls": {"ca_file": write_authority(authority, tmp_path)}}


@pytest.mark.parametrize("kind", ["tls_expired", "tls_hostname", "tls_untrusted"])
async def test_f14_a_web_socket_with_a_bad_certificate(authority, http, kind):
    certificate = {
        "tls_expired": lambda: expired(authority, "good.test"),
        "tls_hostname": lambda: authority.issue_cert("other.test"),
        "tls_untrusted": lambda: trustme.CA().issue_cert("good.test"),
    }[kind]()
    async with raw_server(saying(frame("1")), tls=serving(certificate)) as server, opened(http=http) as transport:
        error = await failure(transport, job(ws(server, host="good.test")))
    assert (error.kind, error.sent) == (ErrorKind(kind), False)


async def test_f16_a_web_socket_whose_tls_stalls(http):
    async def silent(peer: Peer) -> None:
        await peer.gone()

    sections = {"request": {"timeout": {"connect": 0.1}}, "http": http}
    async with raw_server(silent) as server, opened(**sections) as transport:
        error = await failure(transport, job(f"wss://127.0.0.1:{server.port}/"))
    assert error.kind is ErrorKind.TLS_TIMEOUT


async def test_f17_a_web_socket_where_there_is_no_tls(http):
    async def plain(peer: Peer) -> None:
        await peer.receive(1)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with raw_server(plain) as server, opened(http=http) as transport:
        error = await failure(transport, job(f"wss://127.0.0.1:{server.port}/"))
    assert error.kind is ErrorKind.TLS_PROTOCOL


async def test_f18_tls_that_is_cut_off_in_a_message(authority, http):
    async def talk(peer: Peer) -> None:
        await peer.send(header(TEXT, 100) + b"x" * 50)
        peer.reset()

    context = serving(authority.issue_cert("good.test"))
    async with raw_server(talking(talk), tls=context) as server, opened(http=http) as transport:
        error = await failure(transport, job(ws(server, host="good.test")))
    assert error.kind is ErrorKind.BODY_INCOMPLETE


async def test_f19_a_job_takes_any_certificate_and_its_record_says_so(http):
    context = serving(trustme.CA().issue_cert("other.test"))
    async with raw_server(saying(frame("1")), tls=context) as server, opened(http=http) as transport:
        response = await transport.fetch(job(ws(server, host="good.test"), verify=False))
    assert (response.body, response.verified) == (b"1", False)


# Handshakes


async def test_f26_a_web_socket_that_is_not_http_at_all():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"SSH-2.0-OpenSSH_9.6\r\n")
        await peer.gone()

    assert (await failed(script)).kind is ErrorKind.NOT_HTTP


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda answer: answer.replace(b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x"),
        lambda answer: answer.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
        lambda answer: answer.replace(b"Connection: Upgrade", b"Connection: close"),
        lambda answer: answer.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: chat\r\n\r\n"),
        lambda answer: answer.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
    ],
    ids=["key", "upgrade", "connection", "subprotocol", "extension"],
)
async def test_f29_an_upgrade_to_something_else_is_none(spoilt):
    async def script(peer: Peer) -> None:
        await peer.send(spoilt(accepting(await peer.request())) + frame("1"))
        await peer.gone()

    error = await failed(script, body=b"x")
    assert (error.kind, error.status, error.sent) == (ErrorKind.BAD_ANSWER, 101, False)


async def test_f29_an_answer_instead_of_an_upgrade_is_no_success():
    error = await failed(answering_once(ok(b"<html>")))
    assert (error.kind, error.status) == (ErrorKind.BAD_ANSWER, 200)
    assert error.response is not None
    assert error.response.body == b"<html>"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(302, ErrorKind.HTTP_3XX), (401, ErrorKind.HTTP_4XX), (426, ErrorKind.HTTP_4XX), (503, ErrorKind.HTTP_5XX)],
)
async def test_f29_a_refused_upgrade_is_told_as_http_tells_it(status, kind):
    answer = f"HTTP/1.1 {status} No\r\nLocation: ws://u:p@other/\r\nContent-Length: 4\r\n\r\nwhy?".encode()
    error = await failed(answering_once(answer), body=b"x")
    assert (error.kind, error.status, error.sent) == (kind, status, False)
    response = error.response
    assert response is not None
    assert (response.status, response.body, response.method) == (status, b"why?", "SEND")
    assert "u:p" not in str(response.headers)
    assert retried(error, "SEND") is (status == 503)


def masked(data: bytes) -> bytes:
    """Mask a short frame, with zeros, which change nothing (RFC 6455, section 5.3)."""
    return bytes((data[0], data[1] | 0x80)) + bytes(4) + data[2:]


@pytest.mark.parametrize(
    "frames",
    [
        [masked(frame("x"))],
        [masked(frame("x", PING)), frame("x")],
        [frame("x" * 70_000), masked(frame("y"))],
        [frame("x" * 200) + masked(frame("y"))],
    ],
    ids=["text", "ping", "behind a long one", "in one read"],
)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "byte by byte"])
async def test_f31_a_frame_that_a_server_has_masked_is_a_bad_answer(frames, cut):
    async def talk(peer: Peer) -> None:
        for one in frames:
            for piece in [one[at : at + 1] for at in range(len(one))] if cut and len(one) < 100 else [one]:
                await peer.send(piece)
        await peer.gone()

    error = await failed(talking(talk), receive=Receive(messages=2))
    assert error.kind is ErrorKind.BAD_ANSWER
    assert "masked" in error.message


@pytest.mark.parametrize(
    "frames",
    [
        frame("x", reserved=4),
        frame("x", 3),
        frame("x" * 126, PING),
        frame("x", PING, fin=False),
        frame(b"\xff\xfe", TEXT),
        frame("x", MORE),
        close(1, b""),
        frame(b"\x03", CLOSE),
        header(TEXT, 10_000_000) + b"x",
    ],
    ids=[
        "reserved",
        "opcode",
        "long ping",
        "cut ping",
        "not utf-8",
        "nothing continued",
        "code",
        "half a code",
        "size",
    ],
)
async def test_f31_frames_that_are_none_are_a_bad_answer(frames):
    error = await failed(saying(frames), sections={"max_message_size": 1_000_000})
    too_large = frames.startswith(header(TEXT, 10_000_000))
    assert error.kind is (ErrorKind.BODY_TOO_LARGE if too_large else ErrorKind.BAD_ANSWER)
    assert error.message.isprintable()
    assert not retried(error, "GET")


async def test_f34_a_megabyte_of_fields_in_a_handshake():
    async def script(peer: Peer) -> None:
        fields = [f"X-{number}: {'x' * 1000}" for number in range(1000)]
        await peer.send(accepting(await peer.request(), *fields))
        await peer.gone()

    assert (await failed(script)).kind is ErrorKind.HEADERS_TOO_LARGE


# Too much


async def test_f52_a_message_that_inflates_to_more_than_may_come_is_not_inflated():
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = (deflate.compress(bytes(50_000_000)) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert len(bomb) < 100_000

    async def talk(peer: Peer) -> None:
        await peer.send(frame(bomb, BINARY, reserved=4))
        await peer.gone()

    script = talking(talk, "Sec-WebSocket-Extensions: permessage-deflate")
    error = await failed(script, sections={"compress": True, "body": {"max_size": "1MiB"}})
    assert (error.kind, error.message) == (
        ErrorKind.BODY_TOO_LARGE,
        "a message is longer than body.max_size (1048576 bytes)",
    )


async def test_f55_messages_without_an_end_stop_at_the_cap():
    async def talk(peer: Peer) -> None:
        while True:
            await peer.send(frame("x" * 1000))

    sections = {"body": {"max_size": 10_000}}
    error = await failed(talking(talk), sections=sections, receive=Receive(until="no"))
    assert error.kind is ErrorKind.BODY_TOO_LARGE


async def test_f55_a_message_without_an_end_stops_at_the_cap():
    async def talk(peer: Peer) -> None:
        await peer.send(frame("x", fin=False))
        while True:
            await peer.send(frame("x" * 1000, MORE, fin=False))

    error = await failed(talking(talk), sections={"body": {"max_size": 10_000}})
    assert error.kind is ErrorKind.BODY_TOO_LARGE


async def test_f55_pings_without_an_end_stop_at_the_deadline():
    async def talk(peer: Peer) -> None:
        while True:
            await peer.send(frame("still here", PING))
            await asyncio.sleep(0.01)

    error = await failed(talking(talk), sections={"request": {"timeout": {"total": 0.3, "read": 0.2}}})
    assert error.kind is ErrorKind.TOTAL_TIMEOUT


async def test_f55_pings_that_are_never_read_back_stop_at_the_deadline():
    async def talk(peer: Peer) -> None:
        while True:
            await peer.send(frame("x" * 125, PING) * 100)

    error = await failed(talking(talk), sections={"request": {"timeout": {"total": 0.3}}})
    assert error.kind is ErrorKind.TOTAL_TIMEOUT


async def test_f56_messages_over_the_cap_are_left_out_whole():
    sections = {"body": {"max_size": 40, "overflow": "truncate"}}
    frames = [frame(f"message {number}") for number in range(9)]
    async with raw_server(saying(*frames)) as server, opened(**sections) as transport:
        response = await transport.fetch(job(ws(server), receive=Receive(messages=9)))
    assert response.body is not None
    assert json.loads(response.body) == ["message 0", "message 1", "message 2"]
    assert (response.truncated, response.body_size) == (True, len(response.body))


async def test_f56_a_message_over_the_cap_is_cut_if_it_is_the_only_one():
    sections = {"body": {"max_size": 5, "overflow": "truncate"}}
    async with raw_server(saying(frame("message"))) as server, opened(**sections) as transport:
        response = await transport.fetch(job(ws(server)))
    assert (response.body, response.body_size, response.truncated) == (b"messa", 5, True)


# Too slow


@pytest.mark.parametrize("script", [lambda peer: peer.gone(), saying()], ids=["handshake", "message"])
async def test_f57_a_web_socket_that_says_nothing(script):
    error = await failed(script, sections={"request": {"timeout": {"read": 0.1}}})
    assert error.kind is ErrorKind.READ_TIMEOUT


async def test_f57_a_web_socket_that_never_says_goodbye_costs_nothing_but_a_second():
    async def talk(peer: Peer) -> None:
        await peer.send(frame("1"))
        opcode, _ = await receive_frame(peer)
        assert opcode == CLOSE
        await peer.gone()

    sections = {"request": {"timeout": {"total": 0.3}}}
    async with raw_server(talking(talk)) as server, opened(**sections) as transport:
        assert (await transport.fetch(job(ws(server)))).body == b"1"


async def test_f58_a_message_that_drips_is_too_slow():
    async def talk(peer: Peer) -> None:
        await peer.send(header(TEXT, 10_000))
        while True:
            await peer.send(b"x")
            await asyncio.sleep(0.05)

    error = await failed(talking(talk), sections={"request": {"min_rate": "1KiB/s", "min_rate_span": 0.5}})
    assert error.kind is ErrorKind.TOO_SLOW


async def test_f58_a_long_message_is_not_too_slow_before_it_is_whole():
    async def talk(peer: Peer) -> None:
        await peer.send(header(TEXT, 10_000))
        for _ in range(10):
            await peer.send(b"x" * 1000)
            await asyncio.sleep(0.1)
        await closed(peer)

    sections = {"request": {"min_rate": "1KiB/s", "min_rate_span": 0.4}}
    async with raw_server(talking(talk)) as server, opened(**sections) as transport:
        assert (await transport.fetch(job(ws(server)))).body_size == 10_000


async def test_f58_messages_may_be_few():
    async def talk(peer: Peer) -> None:
        for number in range(8):
            await asyncio.sleep(0.1)
            await peer.send(frame("?", PING) + frame(str(number)))
        await closed(peer)

    sections = {"request": {"min_rate": "1KiB/s", "min_rate_span": 0.4}}
    async with raw_server(talking(talk)) as server, opened(**sections) as transport:
        response = await transport.fetch(job(ws(server), receive=Receive(messages=8)))
    assert response.body == b'["0","1","2","3","4","5","6","7"]'


# Again, or not


async def test_f60_a_refused_upgrade_says_when_to_come_back():
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    async with raw_server(answering_once(answer)) as server, opened() as transport:
        result, attempt = await Worker("test", {"ws": transport}, "GET").attempt(job(ws(server), body=b"x"), 0.0)
    assert (result.outcome, result.error_kind, result.status) == ("failed", ErrorKind.HTTP_5XX, 503)
    assert attempt is not None
    assert (attempt.retry_after, attempt.sent) == (7.0, False)


async def test_f63_a_message_is_not_sent_twice_unless_the_config_says_that_it_may_be():
    asked = job_from_mapping("1", {"url": "ws://example.test/", "body": "x"})
    assert asked.method == "SEND"
    assert job_from_mapping("1", {"url": "ws://example.test/"}).method is None

    async def talk(peer: Peer) -> None:
        await receive_frame(peer)
        peer.close()

    error = await failed(talking(talk), body=b"x", method="SEND")
    assert (error.kind, error.sent) == (ErrorKind.SERVER_DISCONNECTED, True)
    assert not retried(error, "SEND")
    attempt = Attempt(number=1, age=0.0, method="SEND", kind=error.kind, sent=True)
    assert decide(RetrySettings(methods=frozenset({"SEND"})), attempt, lambda: 0.5) is not None


async def test_f65_a_web_socket_ends_with_the_deadline_of_its_job():
    async with raw_server(saying()) as server, opened() as transport:
        with pytest.raises(FetchError) as caught:
            await transport.fetch(job(ws(server)), 0.1)
    assert caught.value.kind is ErrorKind.DEADLINE


# What it says


async def test_f102_a_close_reason_is_escaped():
    error = await failed(saying(close(4000, "\x1b[31mred\r\n\u202e".encode())))
    assert error.message == r"the server closed the web socket with 4000 (\x1b[31mred\r\n\u202e)"


async def test_f102_a_subprotocol_is_escaped():
    async def script(peer: Peer) -> None:
        await peer.send(accepting(await peer.request(), "Sec-WebSocket-Protocol: \x1b[31m"))
        await peer.gone()

    error = await failed(script)
    assert error.kind is ErrorKind.BAD_ANSWER
    assert error.message.isprintable()


async def test_f55_pings_are_answered():
    async def talk(peer: Peer) -> None:
        await peer.send(frame("are you there?", PING))
        answers.append(await receive_frame(peer))
        await peer.send(frame("yes"))
        await closed(peer)

    answers: list[tuple[int, bytes]] = []
    async with raw_server(talking(talk)) as server, opened() as transport:
        assert (await transport.fetch(job(ws(server)))).body == b"yes"
    assert answers == [(PONG, b"are you there?")]
