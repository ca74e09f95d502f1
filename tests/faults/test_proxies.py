"""Rows F68 and F69 of the faults: proxies that fail, and what only they may know, on both event loops."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from contextlib import asynccontextmanager
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from certificates import serving, write_authority
from proxy_process import proxy_process
from raw_server import answering, ok, raw_server, refusing_port, saying, unused_port
from transport_factories import HTTP_EXCHANGES, http_transport, job

from fetcher.engine.hosts.signs import Sign, sign_of
from fetcher.engine.retry import Attempt
from fetcher.errors import ErrorKind, FetchError
from fetcher.origin import Origin, OriginConfig
from fetcher.transports.http.proxies import proxying

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from proxy_process import ProxyProcess
    from raw_server import Peer, RawServer, Script

    from fetcher.interfaces import Transport
    from fetcher.model import Job

BOTH_LOOPS = True
# A session knows no SOCKS.
WAYS = [("connection", "http"), ("session", "http"), ("connection", "socks5"), ("connection", "socks5h")]
BASIC = "Basic " + b64encode(b"user:secret@pass").decode()
USERINFO = "user:secret%40pass"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_authority(authority, tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def plain_proxy() -> Iterator[ProxyProcess]:
    with proxy_process("user:secret@pass") as proxy:
        yield proxy


@pytest.fixture(scope="module")
def tls_proxy(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    path: Path = tmp_path_factory.mktemp("proxy") / "proxy.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    with proxy_process("user:secret@pass", certificate=path) as proxy:
        yield proxy


@pytest.fixture(params=HTTP_EXCHANGES)
def exchange(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(exchange: str, ca_file: str) -> Any:
    """A function that opens a transport with these proxies, which trusts the authority."""

    def make(proxy: Any, **sections: Any) -> AbstractAsyncContextManager[Transport]:
        return http_transport(exchange, proxy=proxy, tls={"ca_file": ca_file}, **sections)

    return make


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    server = Origin(OriginConfig())
    await server.start()
    yield server
    await server.close()


async def failure(transport: Transport, wanted: Job) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await transport.fetch(wanted)
    return caught.value


def blames_the_proxy(error: FetchError, kind: ErrorKind) -> None:
    """Check that nothing of the failure could be taken for an answer of the origin."""
    assert (error.kind, error.status, error.response, error.sent) == (kind, None, None, False)
    assert sign_of(Attempt(1, 0.0, "GET", error.status, error.kind), redirected=False) is Sign.NOTHING
    assert "secret" not in error.message


@asynccontextmanager
async def proxy_that(script: Script, **options: Any) -> AsyncIterator[RawServer]:
    async with raw_server(script, **options) as server:
        yield server


def address(server: RawServer, scheme: str = "http", userinfo: str = USERINFO) -> str:
    return f"{scheme}://{userinfo}{'@' if userinfo else ''}{server.host}:{server.port}"


# What works


@pytest.mark.parametrize(("exchange", "scheme"), WAYS, indirect=["exchange"])
async def test_f68_requests_go_by_the_proxy_and_the_record_names_it(opened, plain_proxy, origin, scheme):
    asked = len(plain_proxy.lines)
    async with opened(plain_proxy.url(scheme, USERINFO)) as transport:
        first = await transport.fetch(job(f"{origin.url}/headers"))
        second = await transport.fetch(job(f"{origin.url}/json/1", method="POST", body=b"x"))
    assert first.proxy == second.proxy == plain_proxy.url(scheme)
    assert first.remote_ip is None
    assert (second.status, json.loads(second.body)["method"]) == (200, "POST")
    # One connection for both.
    ways = [line for line in plain_proxy.lines[asked:] if f":{origin.url.rpartition(':')[2]}" in line]
    assert len(ways) <= 1


@pytest.mark.parametrize(("exchange", "scheme"), WAYS, indirect=["exchange"])
async def test_f68_tls_goes_through_to_the_origin(opened, plain_proxy, authority, scheme):
    context = serving(authority.issue_cert("localhost"))
    async with (
        raw_server(answering(ok(b"1"), ok(b"2")), tls=context) as server,
        opened(plain_proxy.url(scheme, USERINFO)) as transport,
    ):
        url = server.url(host="localhost")
        bodies = [(await transport.fetch(job(url))).body for _ in range(2)]
        assert (bodies, server.connections) == ([b"1", b"2"], 1)


@pytest.mark.parametrize("tls", [False, True])
async def test_f68_a_proxy_with_tls(opened, tls_proxy, authority, tls):
    context = serving(authority.issue_cert("localhost")) if tls else None
    async with (
        raw_server(answering(ok()), tls=context) as server,
        opened(tls_proxy.url("https", USERINFO)) as transport,
    ):
        response = await transport.fetch(job(server.url(host="localhost")))
    assert (response.status, response.proxy) == (200, tls_proxy.url("https"))


async def test_f68_a_bad_certificate_behind_a_proxy_is_the_origins(opened, plain_proxy, authority):
    context = serving(authority.issue_cert("other.test"))
    async with (
        raw_server(saying(ok()), tls=context) as server,
        opened(plain_proxy.url("http", USERINFO)) as transport,
    ):
        error = await failure(transport, job(server.url(host="localhost")))
        unchecked = await transport.fetch(job(server.url(host="localhost"), verify=False))
    assert error.kind is ErrorKind.TLS_HOSTNAME
    assert (unchecked.verified, unchecked.proxy) == (False, plain_proxy.url("http"))


async def test_f68_a_proxys_own_certificate_is_always_checked(exchange, tls_proxy, origin):
    async with http_transport(exchange, proxy=tls_proxy.url("https", USERINFO), tls={"verify": False}) as transport:
        blames_the_proxy(await failure(transport, job(f"{origin.url}/json")), ErrorKind.PROXY_UNREACHABLE)


# What fails


async def test_f68_a_proxy_that_wants_credentials(opened):
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno"
    async with proxy_that(answering(refusal)) as proxy:
        for url in ("http://a.test/", "https://a.test/"):
            async with opened(address(proxy)) as transport:
                error = await failure(transport, job(url))
            assert "does not accept the credentials" in error.message
            async with opened(address(proxy, userinfo="")) as transport:
                other = await failure(transport, job(url))
            assert "asks for credentials" in other.message
            for each in (error, other):
                assert (each.kind, each.status, each.response) == (ErrorKind.PROXY_AUTH, None, None)


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Busy", "403 Forbidden", "200 OK\r\n\r\nmore"])
async def test_f68_a_proxy_that_refuses_a_tunnel(opened, status):
    async with (
        proxy_that(saying(f"HTTP/1.1 {status}\r\n\r\n".encode())) as proxy,
        opened(address(proxy)) as transport,
    ):
        error = await failure(transport, job("https://a.test/"))
    blames_the_proxy(error, ErrorKind.PROXY_REFUSED)
    assert f"the proxy {address(proxy, userinfo='')} " in error.message


async def test_f68_a_proxy_that_speaks_no_http(opened):
    async with proxy_that(saying(b"SSH-2.0-x\r\n\r\n")) as proxy, opened(address(proxy)) as transport:
        error = await failure(transport, job("https://a.test/"))
    blames_the_proxy(error, ErrorKind.PROXY_REFUSED)
    assert "not HTTP" in error.message


async def test_f68_a_proxy_that_hangs_up(opened):
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    for behaviour in (saying(b""), script):
        async with proxy_that(behaviour) as proxy, opened(address(proxy)) as transport:
            blames_the_proxy(await failure(transport, job("https://a.test/")), ErrorKind.PROXY_UNREACHABLE)


async def test_f68_a_dead_proxy(opened):
    for url in ("http://a.test/", "https://a.test/"):
        with refusing_port() as port:
            async with opened(f"http://127.0.0.1:{port}") as transport:
                error = await failure(transport, job(url))
        blames_the_proxy(error, ErrorKind.PROXY_UNREACHABLE)
        assert "refused the connection" in error.message


async def test_f68_a_proxy_without_an_address(opened):
    async with opened("http://proxy.invalid:3128") as transport:
        error = await failure(transport, job("http://a.test/"))
    blames_the_proxy(error, ErrorKind.PROXY_UNREACHABLE)
    assert "no address for proxy.invalid" in error.message


@pytest.mark.parametrize(
    ("exchange", "scheme"), [*product(HTTP_EXCHANGES, ["http", "https"]), WAYS[-1]], indirect=["exchange"]
)
async def test_f68_a_proxy_that_is_silent(opened, scheme):
    async def silent(peer: Peer) -> None:
        await peer.gone()

    timeout = {"timeout": {"connect": 0.2, "read": 30, "total": 60}}
    async with proxy_that(silent) as proxy, opened(address(proxy, scheme), request=timeout) as transport:
        blames_the_proxy(await failure(transport, job("https://a.test/")), ErrorKind.PROXY_UNREACHABLE)


def socks(*answers: tuple[int, bytes]) -> Script:
    """Read so many bytes, then answer, and so on; in the end close."""

    async def script(peer: Peer) -> None:
        for count, answer in answers:
            await peer.receive(count)
            await peer.send(answer)

    return script


_SIGN_IN = 3 + len("user") + len("secret@pass")


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (socks((4, b"\x05\xff")), ErrorKind.PROXY_AUTH),
        (socks((4, b"\x05\x02"), (_SIGN_IN, b"\x01\x01")), ErrorKind.PROXY_AUTH),
        (socks((4, b"\x05\x00"), (4, b"\x05\x05\x00\x01\0\0\0\0\0\0")), ErrorKind.PROXY_REFUSED),
        (socks((4, b"\x05\x00"), (4, b"\x05\x02\x00\x01\0\0\0\0\0\0")), ErrorKind.PROXY_REFUSED),
        (socks((4, b"HTTP/1.1 400 Bad Request\r\n\r\n")), ErrorKind.PROXY_UNREACHABLE),
        (socks((4, b"")), ErrorKind.PROXY_UNREACHABLE),
    ],
)
async def test_f68_a_socks_proxy_that_refuses(ca_file, script, kind):
    async with (
        proxy_that(script) as proxy,
        http_transport("connection", proxy=address(proxy, "socks5h")) as transport,
    ):
        blames_the_proxy(await failure(transport, job("http://a.test/")), kind)


async def test_f68_a_dead_socks_proxy():
    with refusing_port() as port:
        async with http_transport("connection", proxy=f"socks5h://127.0.0.1:{port}") as transport:
            blames_the_proxy(await failure(transport, job("http://a.test/")), ErrorKind.PROXY_UNREACHABLE)


async def test_f68_socks5_resolves_here_and_socks5h_there():
    asked: list[bytes] = []

    async def script(peer: Peer) -> None:
        await peer.receive(3)
        await peer.send(b"\x05\x00")
        head = await peer.receive(4)
        asked.append(head[3:] + await peer.receive(6 if head[3] == 1 else 9))

    async with proxy_that(script) as proxy:
        for scheme in ("socks5", "socks5h"):
            url = address(proxy, scheme, userinfo="")
            async with http_transport("connection", proxy=url, resolve={"a.test": "192.0.2.7"}) as transport:
                await failure(transport, job("http://a.test/"))
    assert asked == [b"\x01\xc0\x00\x02\x07\x00\x50", b"\x03\x06a.test\x00\x50"]


async def test_f68_a_name_that_socks5_can_not_resolve_is_the_origins_fault(plain_proxy):
    async with http_transport("connection", proxy=plain_proxy.url("socks5", USERINFO)) as transport:
        error = await failure(transport, job("http://a.invalid/"))
    assert error.kind in {ErrorKind.DNS_NOT_FOUND, ErrorKind.DNS_FAILURE}


# Whose answer it is


async def test_f68_what_a_proxy_says_of_itself_is_not_the_origins(opened):
    answer = (
        b"HTTP/1.1 502 Bad Gateway\r\nProxy-Status: cdn.test; error=x; details=1, ours; error=connection_timeout\r\n"
        b"Content-Length: 4\r\n\r\nsigh"
    )
    async with proxy_that(answering(answer)) as proxy, opened(address(proxy)) as transport:
        error = await failure(transport, job("http://a.test/"))
    assert (error.kind, error.status, error.response) == (ErrorKind.PROXY_REFUSED, None, None)
    assert error.message.endswith("answers 502 in its own name: connection_timeout")


@pytest.mark.parametrize("more", ["", "Proxy-Status: ours; received-status=502\r\n", "Proxy-Status: ours\r\n"])
async def test_f68_a_502_of_which_the_proxy_does_not_say_so_is_the_origins(opened, more):
    answer = f"HTTP/1.1 502 Bad Gateway\r\n{more}Content-Length: 0\r\n\r\n".encode()
    async with proxy_that(answering(answer)) as proxy, opened(address(proxy)) as transport:
        assert (await transport.fetch(job("http://a.test/"))).status == 502


async def test_f68_a_407_through_a_tunnel_is_the_origins(opened, plain_proxy, authority):
    context = serving(authority.issue_cert("localhost"))
    answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    async with (
        raw_server(answering(answer), tls=context) as server,
        opened(plain_proxy.url("http", USERINFO)) as transport,
    ):
        assert (await transport.fetch(job(server.url(host="localhost")))).status == 407


# Several


async def test_f68_a_dead_one_is_passed_over_at_once_and_rests(opened):
    with refusing_port() as port:
        async with (
            proxy_that(answering(ok(), ok(), ok())) as live,
            opened([f"http://127.0.0.1:{port}", address(live)]) as transport,
        ):
            for _ in range(3):
                response = await transport.fetch(job("http://a.test/"))
                assert (response.status, response.proxy) == (200, address(live, userinfo=""))


async def test_f68_proxies_take_turns(opened):
    async with (
        proxy_that(answering(ok(), ok())) as first,
        proxy_that(answering(ok(), ok())) as second,
        opened([address(first), address(second)]) as transport,
    ):
        used = [(await transport.fetch(job("http://a.test/"))).proxy for _ in range(4)]
    assert used == [address(first, userinfo=""), address(second, userinfo="")] * 2


async def test_f68_the_least_used_proxy_is_the_next(opened):
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def slow(peer: Peer) -> None:
        await peer.request()
        reached.set()
        await go_on.wait()
        await peer.send(ok(b"slow"))

    async with proxy_that(slow) as busy, proxy_that(answering(ok(), ok(), ok())) as free:
        settings = {"urls": [address(busy), address(free)], "rotation": "least_used"}
        async with opened(settings) as transport:
            waiting = asyncio.create_task(transport.fetch(job("http://a.test/")))
            await reached.wait()
            for _ in range(3):
                assert (await transport.fetch(job("http://a.test/"))).proxy == address(free, userinfo="")
            go_on.set()
            assert (await waiting).body == b"slow"


async def test_f68_while_all_rest_a_job_waits_and_uses_up_no_attempt(opened):
    async def back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ok(b"back"))
        await reader.read()
        writer.close()

    port = unused_port()
    async with opened([f"http://127.0.0.1:{port}"], request={"timeout": {"read": 0.5}}) as transport:
        error = await failure(transport, job("http://a.test/"))
        blames_the_proxy(error, ErrorKind.PROXY_UNREACHABLE)
        server = await asyncio.start_server(back, "127.0.0.1", port)
        # It rests for a second now, which is longer than silence may last, and not this job's to answer for.
        assert (await transport.fetch(job("http://a.test/"))).body == b"back"
    server.close()


async def test_f68_a_wait_that_is_too_long_is_told_with_its_reason(opened, monkeypatch):
    monkeypatch.setattr(proxying, "_LONGEST_WAIT", 0.1)
    async with opened([f"http://127.0.0.1:{unused_port()}"]) as transport:
        await failure(transport, job("http://a.test/"))
        error = await failure(transport, job("http://a.test/"))
    blames_the_proxy(error, ErrorKind.PROXY_UNREACHABLE)
    assert "rests after failures, the last one: " in error.message
    assert "refused" in error.message


# F69: what only the proxy may know


async def test_f69_credentials_go_to_the_proxy_in_its_own_header(opened):
    asked: list[bytes] = []

    async def script(peer: Peer) -> None:
        asked.append(await peer.request())
        await peer.send(ok())

    async with proxy_that(script) as proxy, opened(address(proxy)) as transport:
        await transport.fetch(job("http://a.test/x?y=1"))
        await failure(transport, job("https://a.test/"))
    forwarded, tunnel = asked
    assert forwarded.startswith(b"GET http://a.test/x?y=1 HTTP/1.1\r\n")
    assert tunnel.startswith(b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n")
    for request in asked:
        assert request.lower().count(b"proxy-authorization: " + BASIC.lower().encode()) == 1
        assert b"\nauthorization" not in request.lower()


@pytest.mark.parametrize(("exchange", "scheme"), WAYS[:3], indirect=["exchange"])
async def test_f69_and_never_to_the_origin(opened, plain_proxy, authority, scheme):
    asked: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            asked.append(await peer.request())
            await peer.send(ok())

    async with (
        raw_server(script) as plain,
        raw_server(script, tls=serving(authority.issue_cert("localhost"))) as tls,
        opened(plain_proxy.url(scheme, USERINFO)) as transport,
    ):
        if scheme != "http":  # the proxy of these tests passes a request on as it is
            await transport.fetch(job(plain.url(host="localhost")))
        for _ in range(2):
            await transport.fetch(job(tls.url(host="localhost")))
    assert len(asked) >= 2
    for request in asked:
        assert request.startswith(b"GET / HTTP/1.1\r\n")
        assert b"proxy-authorization" not in request.lower()
        assert BASIC.encode() not in request


async def test_f69_nor_to_a_host_that_needs_no_proxy_after_a_redirect(opened):
    asked: list[bytes] = []

    async def direct(peer: Peer) -> None:
        asked.append(await peer.request())
        await peer.send(ok())

    async with raw_server(direct) as server:
        moved = f"HTTP/1.1 302 Found\r\nLocation: {server.url('/there')}\r\nContent-Length: 0\r\n\r\n".encode()
        async with (
            proxy_that(answering(moved)) as proxy,
            opened({"urls": address(proxy), "no_proxy": ["127.0.0.0/8"]}) as transport,
        ):
            response = await transport.fetch(job("http://a.test/"))
    assert (response.status, response.proxy, len(response.redirects)) == (200, None, 1)
    assert asked[0].startswith(b"GET /there HTTP/1.1\r\n")
    assert b"proxy" not in asked[0].lower()


async def test_f69_a_redirect_is_followed_by_the_proxy(opened):
    answers = [b"HTTP/1.1 302 Found\r\nLocation: http://b.test/\r\nContent-Length: 0\r\n\r\n", ok(b"b")]
    asked: list[bytes] = []

    async def script(peer: Peer) -> None:
        while answers:
            asked.append(await peer.request())
            await peer.send(answers.pop(0))
        await peer.gone()

    async with proxy_that(script) as proxy, opened(address(proxy)) as transport:
        response = await transport.fetch(job("http://a.test/"))
    assert (response.body, response.proxy) == (b"b", address(proxy, userinfo=""))
    assert [request.split(b" ")[1] for request in asked] == [b"http://a.test/", b"http://b.test/"]


async def test_f69_credentials_beside_the_urls(opened, monkeypatch):
    monkeypatch.setenv("PROXY_PASSWORD", "secret@pass")
    asked: list[bytes] = []

    async def script(peer: Peer) -> None:
        asked.append(await peer.request())
        await peer.send(ok())

    async with proxy_that(script) as proxy:
        settings = {"urls": address(proxy, userinfo=""), "username": "user", "password": {"env": "PROXY_PASSWORD"}}
        async with opened(settings) as transport:
            await transport.fetch(job("http://a.test/"))
    assert BASIC.encode() in asked[0]


async def test_f69_the_environment_counts_only_if_the_config_says_so(opened, monkeypatch):
    async with proxy_that(answering(ok(b"proxy"))) as proxy, raw_server(answering(ok(b"direct"))) as server:
        monkeypatch.setenv("http_proxy", address(proxy))
        monkeypatch.setenv("no_proxy", "b.test, 127.0.0.1")
        async with opened(None) as transport:
            assert (await transport.fetch(job(server.url()))).body == b"direct"
        async with opened("env") as transport:
            assert (await transport.fetch(job("http://a.test/"))).body == b"proxy"
            assert (await transport.fetch(job(server.url()))).proxy is None
