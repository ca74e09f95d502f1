"""Web sockets against a server that is built on aiohttp, by every way that leads to it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from base64 import b64encode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from proxy_process import proxy_process
from pydantic import ValidationError
from raw_server import ok, raw_server
from transport_factories import failure, job, socket_transport
from web_socket_frames import BINARY, accepting, closed, frame, receive_frame, saying, talking

from fetcher.errors import ErrorKind
from fetcher.model import Receive
from fetcher.origin.sockets import Sockets
from fetcher.settings import BodySettings, RequestSettings
from fetcher.transports.http.transport import HttpConfig
from fetcher.transports.websocket import WebSocketConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from proxy_process import ProxyProcess
    from raw_server import Peer, RawServer

    from fetcher.interfaces import Standing, Transport
    from fetcher.model import Job

USERINFO = "user:secret@"


def opened(**sections: Any) -> AbstractAsyncContextManager[Transport]:
    return socket_transport("websocket", **sections)


@pytest.fixture
async def origin() -> AsyncIterator[str]:
    sockets = Sockets()
    await sockets.start("127.0.0.1")
    yield next(place.url for place in sockets.places if place.name == "messages")
    await sockets.close()


@pytest.fixture(scope="module")
def proxy() -> Iterator[ProxyProcess]:
    with proxy_process("user:secret") as running:
        yield running


def ws(server: RawServer, path: str = "/") -> str:
    return server.url(path).replace("http", "ws", 1)


# Messages


async def test_a_message_that_is_sent_comes_back(origin):
    async with opened() as transport:
        response = await transport.fetch(job(f"{origin}/echo?a=b", body="grüße".encode()))
    assert (response.body, response.content_type) == ("grüße".encode(), "text/plain; charset=utf-8")
    assert (response.status, response.method, response.final_url) == (101, "SEND", f"{origin}/echo?a=b")
    assert response.sha256 == hashlib.sha256("grüße".encode()).hexdigest()
    assert (response.remote_ip, response.http_version) == ("127.0.0.1", "1.1")
    assert ("Upgrade", "websocket") in response.headers
    assert response.timings.first_byte is not None
    assert response.timings.connect is not None


@pytest.mark.parametrize(("payload", "body", "kind"), [("auto", b"\xff", BINARY), ("binary", b"text", BINARY)])
async def test_what_is_binary_stays_so(origin, payload, body, kind):
    async with opened(payload=payload) as transport:
        response = await transport.fetch(job(f"{origin}/echo", body=body))
    assert (response.body, response.content_type) == (body, "application/octet-stream")


async def test_text_that_is_none_is_not_sent(origin):
    async with opened(payload="text") as transport:
        error = await failure(transport, job(f"{origin}/echo", body=b"\xff"))
    assert (error.kind, error.sent) == (ErrorKind.INVALID_ROW, False)


async def test_without_a_body_it_listens(origin):
    async with opened() as transport:
        response = await transport.fetch(job(f"{origin}/count/9"))
    assert (response.body, response.method) == (b'{"n": 1, "last": false}', "GET")


async def test_an_empty_message_is_one():
    async with raw_server(saying(frame(""), frame("1"))) as server, opened() as transport:
        assert (await transport.fetch(job(ws(server)))).body == b""
        several = await transport.fetch(job(ws(server), receive=Receive(messages=2)))
    assert several.body == b'["","1"]'


@pytest.mark.parametrize(
    ("section", "own", "count"),
    [
        ({}, Receive(messages=3), 3),
        ({"messages": 3}, None, 3),
        ({"messages": 5, "compress": True}, None, 5),
        ({"messages": 3}, Receive(messages=2), 2),
        ({"until": "last"}, None, 5),
        ({"until": "last"}, Receive(until="n == `2`"), 2),
        ({"until": "last", "messages": 5}, None, 5),
        ({}, Receive(matches='"n": [4-9]'), 4),
        ({"matches": "true"}, Receive(delimiter=b"x"), 5),
    ],
)
async def test_messages_are_taken_up_to_the_one_that_is_waited_for(origin, section, own, count):
    async with opened(**section) as transport:
        response = await transport.fetch(job(f"{origin}/count/5", receive=own))
    messages = [json.loads(text) for text in json.loads(response.body)]
    assert [message["n"] for message in messages] == list(range(1, count + 1))
    assert response.content_type == "application/json"


async def test_a_condition_is_not_met_by_what_is_not_json():
    frames = frame("not json"), frame(b"\xff", BINARY), frame('{"type": null}'), frame('{"type": "done"}')
    async with raw_server(saying(*frames)) as server, opened(until="type == 'done'") as transport:
        response = await transport.fetch(job(ws(server)))
    assert json.loads(response.body) == ["not json", {"base64": "/w=="}, '{"type": null}', '{"type": "done"}']


async def test_messages_in_pieces_are_whole():
    text = "grüße".encode()
    pieces = (frame(text[:3], fin=False), frame("?", 9), frame(text[3:4], 0, fin=False), frame(text[4:], 0))

    async def talk(peer: Peer) -> None:
        for byte in b"".join(pieces):
            await peer.send(bytes((byte,)))
        await closed(peer)

    async with raw_server(talking(talk)) as server, opened() as transport:
        assert (await transport.fetch(job(ws(server)))).body == text


async def test_messages_that_come_with_the_handshake_are_not_lost():
    async def script(peer: Peer) -> None:
        await peer.send(accepting(await peer.request()) + frame("x" * 100_000) + frame("2"))
        await closed(peer)

    async with raw_server(script) as server, opened() as transport:
        response = await transport.fetch(job(ws(server), receive=Receive(messages=2)))
    assert json.loads(response.body) == ["x" * 100_000, "2"]


async def test_a_last_message_of_a_server_that_goes_at_once_counts():
    async def talk(peer: Peer) -> None:
        await peer.send(frame("?", 9) + frame("1"))
        peer.close()

    async with raw_server(talking(talk)) as server, opened() as transport:
        assert (await transport.fetch(job(ws(server)))).body == b"1"


@pytest.mark.parametrize("compress", [False, True])
async def test_large_messages_go_both_ways(origin, compress):
    body = json.dumps(list(range(100_000))).encode()
    async with opened(compress=compress) as transport:
        response = await transport.fetch(job(f"{origin}/echo", body=body))
    assert response.body == body
    assert (response.wire_size < len(body)) is compress


# Handshakes


async def test_the_handshake_is_what_rfc_6455_asks_for():
    async def script(peer: Peer) -> None:
        request = await peer.request()
        requests.append(request)
        await peer.send(accepting(request, "Sec-WebSocket-Protocol: v2") + frame("1"))
        await closed(peer)

    requests: list[bytes] = []
    sections = {"subprotocols": ["v2", "v1"], "user_agent": "tester/1", "request": {"headers": {"X-Usual": "u"}}}
    async with raw_server(script) as server, opened(**sections) as transport:
        headers = [("Origin", "https://a.test"), ("Sec-WebSocket-Key", "mine"), ("Sec-WebSocket-Extensions", "x")]
        response = await transport.fetch(job(ws(server, "/chat?x=1"), headers=headers))
    line, *fields = requests[0].decode().rstrip("\r\n").split("\r\n")
    sent = dict(field.split(": ", 1) for field in fields)
    assert line == "GET /chat?x=1 HTTP/1.1"
    assert len(sent) == len(fields)
    assert len(sent.pop("Sec-WebSocket-Key")) == 24
    assert sent == {
        "Host": f"127.0.0.1:{server.port}",
        "Origin": "https://a.test",
        "X-Usual": "u",
        "User-Agent": "tester/1",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "v2, v1",
    }
    assert ("Sec-WebSocket-Protocol", "v2") in response.headers


async def test_a_job_offers_subprotocols_of_its_own():
    async def script(peer: Peer) -> None:
        request = await peer.request()
        assert b"Sec-WebSocket-Protocol: mine\r\n" in request
        await peer.send(accepting(request, "Sec-WebSocket-Protocol: mine") + frame("1"))
        await closed(peer)

    async with raw_server(script) as server, opened(subprotocols=["v1"]) as transport:
        headers = [("Sec-WebSocket-Protocol", "mine")]
        assert (await transport.fetch(job(ws(server), headers=headers))).body == b"1"


@asynccontextmanager
async def guarded_origin() -> AsyncIterator[tuple[str, list[str | None]]]:
    """Serve web sockets to user:secret alone; yield the URL, and the credentials that it was sent."""

    async def serve(request: web.Request) -> web.StreamResponse:
        given.append(request.headers.get("Authorization"))
        if given[-1] != "Basic " + b64encode(b"user:secret").decode():
            return web.Response(status=401)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("welcome")
        await socket.receive()
        return socket

    given: list[str | None] = []
    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/", given
    finally:
        await runner.cleanup()


async def test_credentials_go_to_their_hosts_and_into_no_record():
    entry = {"hosts": ["127.0.0.1"], "type": "basic", "username": "user", "password": "secret"}
    async with guarded_origin() as (url, given):
        async with opened(auth=[entry | {"insecure": True}]) as transport:
            response = await transport.fetch(job(url))
        async with opened(auth=[entry]) as transport:
            error = await failure(transport, job(url))
    assert response.body == b"welcome"
    assert "secret" not in repr(response)
    assert (error.kind, error.status) == (ErrorKind.HTTP_4XX, 401)
    # Without TLS, they are not sent unless the config says so.
    assert given[1] is None


# Ways


@pytest.mark.parametrize("exchange", ["connection", "session"])
async def test_either_exchange_of_http_will_do(origin, exchange):
    async with opened(http={"exchange": exchange}) as transport:
        assert (await transport.fetch(job(f"{origin}/echo", body=b"x"))).body == b"x"


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
async def test_proxies_lead_there(origin, proxy, scheme):
    port = origin.rpartition(":")[2]
    asked = len(proxy.lines)
    async with opened(http={"proxy": proxy.url(scheme, "user:secret")}) as transport:
        first, second = [await transport.fetch(job(f"{origin}/echo", body=b"x")) for _ in range(2)]
        refused = await failure(transport, job(f"{origin}/nothing"))
    assert (first.body, second.body, first.proxy) == (b"x", b"x", proxy.url(scheme))
    assert (refused.kind, refused.status) == (ErrorKind.HTTP_4XX, 404)
    assert any(f":{port}" in line for line in proxy.lines[asked:])


async def test_a_proxy_of_http_is_asked_for_a_tunnel_and_told_the_credentials_alone():
    async def script(peer: Peer) -> None:
        requests.append(await peer.request())
        await peer.send(b"HTTP/1.1 200 Go\r\n\r\n")
        requests.append(await peer.request())
        await peer.send(accepting(requests[-1]) + frame("1"))
        await closed(peer)

    requests: list[bytes] = []
    async with raw_server(script) as server:
        http = {"proxy": server.url("", "user:secret@127.0.0.1")}
        async with opened(http=http) as transport:
            assert (await transport.fetch(job("ws://example.test/x"))).body == b"1"
    assert requests[0].startswith(b"CONNECT example.test:80 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic" in requests[0]
    assert requests[1].startswith(b"GET /x HTTP/1.1\r\n")
    assert b"Proxy-Auth" not in requests[1]


async def test_what_a_server_says_through_a_tunnel_is_not_taken_for_the_proxys():
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 Go\r\n\r\n")
        await peer.request()
        await peer.send(b"HTTP/1.1 407 Odd\r\nContent-Length: 0\r\n\r\n")

    async with raw_server(script) as server, opened(http={"proxy": server.url("")}) as transport:
        error = await failure(transport, job("ws://example.test/x"))
    assert (error.kind, error.status) == (ErrorKind.HTTP_4XX, 407)


async def test_a_tunnel_and_a_connection_by_which_a_proxy_passes_requests_on_are_not_mistaken():
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            lines.append(request.split(b" HTTP/")[0].decode())
            if not request.startswith(b"CONNECT "):
                await peer.send(ok(b"page"))
                continue
            await peer.send(b"HTTP/1.1 200 Go\r\n\r\n")
            await peer.send(accepting(await peer.request()) + frame("1"))
            await closed(peer)

    lines: list[str] = []
    sections = RequestSettings(), BodySettings()
    async with raw_server(script) as server:
        http = HttpConfig.model_validate({"proxy": server.url("")})
        session = http.session()
        pages, sockets = http.build(*sections, session), WebSocketConfig().build(*sections, session)
        for part in (session, pages, sockets):
            await part.open()
        for _ in range(3):
            assert (await pages.fetch(job("http://example.test/"))).body == b"page"
            assert (await sockets.fetch(job("ws://example.test/"))).body == b"1"
        for part in (sockets, pages, session):
            await part.close()
    assert lines == ["GET http://example.test/", "CONNECT example.test:80"] * 3


async def test_a_proxy_that_is_not_there_is_not_taken_for_the_server(origin):
    async with opened(http={"proxy": "http://127.0.0.1:1"}) as transport:
        assert (await failure(transport, job(f"{origin}/echo"))).kind is ErrorKind.PROXY_UNREACHABLE


# Bodies


async def test_messages_become_a_file(origin, tmp_path):
    body = {"store": "file", "path": str(tmp_path / "{sha256}")}
    async with opened(body=body) as transport:
        response = await transport.fetch(job(f"{origin}/count/1000", receive=Receive(messages=1000)))
    assert response.body is None
    assert len(json.loads(_only(tmp_path, response.sha256).read_bytes())) == 1000


def _only(folder: Path, name: str | None) -> Path:
    return folder / str(name)


async def test_messages_that_nobody_keeps_are_counted_and_checked(origin):
    good, bad = hashlib.sha256(b"hello").hexdigest(), hashlib.sha256(b"other").hexdigest()
    async with opened(body={"store": "none"}) as transport:
        response = await transport.fetch(job(f"{origin}/echo", body=b"hello", checksum=f"sha256:{good}"))
        error = await failure(transport, job(f"{origin}/echo", body=b"hello", checksum=f"sha256:{bad}"))
    assert (response.body, response.body_size) == (None, 5)
    assert error.kind is ErrorKind.CHECKSUM_MISMATCH


# What it tells


async def test_it_tells_what_a_fetch_is_at():
    async def talk(peer: Peer) -> None:
        await receive_frame(peer)
        await asked.wait()
        await peer.send(frame("x" * 100, fin=False))
        await peer.gone()

    asked = asyncio.Event()
    async with raw_server(talking(talk)) as server, opened() as transport:
        wanted = job(ws(server), body=b"?")
        fetching = asyncio.create_task(transport.fetch(wanted))
        await _phase(transport, wanted, "first byte")
        assert [(one, phase) for one, phase, _ in transport.at_work()] == [(wanted, "first byte")]
        asked.set()
        assert (await _phase(transport, wanted, "body")).received == 102
        fetching.cancel()
        await asyncio.wait([fetching])
        assert transport.standing(wanted) is None


async def _phase(transport: Any, wanted: Job, phase: str) -> Standing:
    """Wait until the fetch of a job is in a phase."""
    async with asyncio.timeout(10):
        while (standing := transport.standing(wanted)) is None or standing.phase != phase:  # noqa: ASYNC110  only looked at
            await asyncio.sleep(0.01)
    return standing


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"until": "a ="}, "until: 'a =' is no JMESPath"),
        ({"matches": "("}, "is no regular expression"),
        ({"messages": 0}, "greater than or equal to 1"),
        ({"subprotocols": ["a b"]}, "pattern"),
    ],
)
def test_a_section_that_can_not_work_is_refused(section, words):
    with pytest.raises(ValidationError, match=words.replace("(", r"\(")):
        WebSocketConfig.model_validate(section)


async def test_a_job_that_waits_for_what_can_not_be_is_bad_input(origin):
    async with opened() as transport:
        error = await failure(transport, job(f"{origin}/echo", receive=Receive(until="a =")))
    assert (error.kind, error.sent) == (ErrorKind.INVALID_ROW, False)
