"""Rows F37 to F39 of the faults: cookies, and servers that set too many of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trustme
from certificates import serving, write_authority
from raw_server import ok, raw_server
from transport_factories import HTTP_EXCHANGES, http_transport, job

from fetcher.transports.http.credentials.cookies import Cookies

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from raw_server import Peer, Script

    from fetcher.interfaces import Transport

RESOLVE = {"*": "127.0.0.1"}


@pytest.fixture(params=HTTP_EXCHANGES)
def opened(request: pytest.FixtureRequest) -> Any:
    """A function that opens a transport with the given keys of ``http``."""

    def make(**http: Any) -> AbstractAsyncContextManager[Transport]:
        return http_transport(request.param, resolve=RESOLVE, **http)

    return make


class Sent(list[dict[str, str]]):
    """The header fields of each request, by their names in lower case."""

    def cookies(self) -> list[str | None]:
        return [fields.get("cookie") for fields in self]


def setting(sent: Sent, *cookies: str) -> Script:
    """Answer every request by setting the same cookies."""
    answer = ok(b"", *(f"Set-Cookie: {cookie}" for cookie in cookies))

    async def script(peer: Peer) -> None:
        while True:
            lines = (await peer.request()).decode("latin-1").split("\r\n")[1:]
            pairs = [line.split(": ", 1) for line in lines if ": " in line]
            sent.append({name.lower(): value for name, value in pairs})
            await peer.send(answer)

    return script


async def test_f37_a_flood_of_cookies_is_bounded(opened):
    sent = Sent()
    flood = [f"c{number}={'x' * 1000}" for number in range(200)]
    async with raw_server(setting(sent, *flood)) as server, opened(cookies=True) as transport:
        for _ in range(2):
            await transport.fetch(job(server.url(host="a.example.org")))
    cookie = sent[1]["cookie"]
    assert len(cookie) <= 8190
    assert 0 < cookie.count("x" * 1000) < 50


async def test_f37_the_cookies_of_a_host_and_of_all_are_bounded():
    cookies = Cookies()
    for turn in range(20):
        cookies.learn("http://a.example.org/", [f"c{turn}-{number}=1" for number in range(50)])
    assert 100 <= len(cookies) <= 180
    for host in range(100):
        cookies.learn(f"http://h{host}.example.org/", [f"c{number}=1" for number in range(50)])
    assert 2000 <= len(cookies) <= 3300
    # The last to come is still there.
    assert "c49=1" in (cookies.header("http://h99.example.org/") or "")


async def test_f37_a_cookie_that_is_too_long_is_not_kept(opened):
    sent = Sent()
    async with raw_server(setting(sent, "long=" + "x" * 5000, "short=1")) as server, opened(cookies=True) as transport:
        for _ in range(2):
            await transport.fetch(job(server.url(host="a.example.org")))
    assert sent.cookies() == [None, "short=1"]


async def test_f38_off_by_default(opened):
    sent = Sent()
    async with raw_server(setting(sent, "a=1")) as server, opened() as transport:
        for _ in range(2):
            await transport.fetch(job(server.url(host="a.example.org")))
    assert sent.cookies() == [None, None]


async def test_f38_each_batch_has_its_own(opened):
    sent = Sent()
    async with raw_server(setting(sent, "a=1")) as server:
        url = server.url(host="a.example.org")
        async with opened(cookies=True) as one, opened(cookies=True) as other:
            for transport in (one, one, other):
                await transport.fetch(job(url))
    assert sent.cookies() == [None, "a=1", None]


async def test_f38_cookies_go_where_they_were_set_and_nowhere_else(opened):
    sent = Sent()
    cookies = ["host=1", "domain=2; Domain=example.org", "path=3; Path=/deep", "secure=4; Secure", "over=5; Max-Age=0"]
    async with raw_server(setting(sent, *cookies)) as server, opened(cookies=True) as transport:
        for host, path in [
            ("a.example.org", "/"),
            ("a.example.org", "/"),
            ("a.example.org", "/deep/er"),
            ("b.example.org", "/"),
            ("c.example.com", "/"),
        ]:
            await transport.fetch(job(server.url(path, host=host)))
    found = [set((cookie or "").split("; ")) - {""} for cookie in sent.cookies()]
    assert found == [set(), {"host=1", "domain=2"}, {"host=1", "domain=2", "path=3"}, {"domain=2"}, set()]


async def test_f38_a_cookie_of_a_redirect_is_sent_on_the_next_hop_and_not_to_another_origin(opened):
    asked: list[bytes] = []

    async def script(peer: Peer) -> None:
        while True:
            asked.append(await peer.request())
            if b"GET / " in asked[-1]:
                to = server.url("/next", host="a.example.org")
                head = f"HTTP/1.1 302 Found\r\nSet-Cookie: a=1\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
            elif b"GET /next " in asked[-1]:
                to = server.url("/end", host="b.example.com")
                head = f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
            else:
                head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            await peer.send(head.encode())

    async with raw_server(script) as server, opened(cookies=True) as transport:
        response = await transport.fetch(job(server.url(host="a.example.org")))
    assert len(response.redirects) == 2
    assert [b"Cookie: a=1\r\n" in request for request in asked] == [False, True, False]


async def test_f38_a_jobs_own_cookie_header_is_kept_as_it_is(opened):
    sent = Sent()
    async with raw_server(setting(sent, "a=1")) as server, opened(cookies=True) as transport:
        url = server.url(host="a.example.org")
        await transport.fetch(job(url))
        await transport.fetch(job(url, headers=[("cookie", "mine=2")]))
    assert sent.cookies() == [None, "mine=2"]


async def test_f38_an_address_has_cookies_of_its_own(opened):
    sent = Sent()
    async with raw_server(setting(sent, "a=1")) as server, opened(cookies=True) as transport:
        for _ in range(2):
            await transport.fetch(job(server.url()))
    assert sent.cookies() == [None, "a=1"]


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("a.co.uk", "co.uk"),
        ("a.co.uk", ".CO.UK"),
        ("a.co.uk", "uk"),
        ("a.github.io", "github.io"),
        ("a.co.uk", "a.co.uk; Domain=co.uk"),
        ("a.test", "test"),
    ],
)
async def test_f39_a_cookie_for_a_public_suffix_is_refused(opened, host, domain):
    sent = Sent()
    async with raw_server(setting(sent, f"a=1; Domain={domain}")) as server, opened(cookies=True) as transport:
        for name in (host, host, "b." + host.partition(".")[2]):
            await transport.fetch(job(server.url(host=name)))
    assert sent.cookies() == [None, None, None]


@pytest.mark.parametrize(
    "field",
    [
        'a=1; Domain=co.uk; x="; domain=a.co.uk"',
        'a=1; Domain=co.uk; Path="/;domain=a.co.uk"',
        'a=1; domain="co\\.uk"',
        'a=1; domain="\\143o.uk"',
        'a="x;domain=a.co.uk"; domain=co.uk',
        "a=1; Domain=co.uk Domain=co.uk",
        "a=1; domain=..co.uk",
    ],
)
async def test_f39_a_public_suffix_is_refused_however_it_is_written(field):
    cookies = Cookies()
    cookies.learn("http://a.co.uk/", [field])
    for path in ("/", "/;domain=a.co.uk"):
        assert cookies.header(f"http://b.co.uk{path}") is None
    assert len(cookies) == 0


async def test_f39_a_host_that_is_a_public_suffix_has_cookies_for_itself(opened):
    sent = Sent()
    async with raw_server(setting(sent, "a=1; Domain=github.io")) as server, opened(cookies=True) as transport:
        for name in ("github.io", "github.io", "somebody.github.io"):
            await transport.fetch(job(server.url(host=name)))
    assert sent.cookies() == [None, "a=1", None]


async def test_f39_a_cookie_for_somebody_else_is_refused(opened):
    sent = Sent()
    async with raw_server(setting(sent, "a=1; Domain=example.com")) as server, opened(cookies=True) as transport:
        for name in ("a.example.org", "a.example.org", "example.com"):
            await transport.fetch(job(server.url(host=name)))
    assert sent.cookies() == [None, None, None]


async def test_f46_a_cookie_that_came_over_tls_goes_over_tls_alone(opened, tmp_path: Path):
    plain, secure = Sent(), Sent()
    authority = trustme.CA()
    serving_tls = serving(authority.issue_cert("a.example.org"))
    async with (
        raw_server(setting(plain)) as http,
        raw_server(setting(secure, "a=1"), tls=serving_tls) as https,
        opened(cookies=True, tls={"ca_file": write_authority(authority, tmp_path)}) as transport,
    ):
        for server in (https, http, https):
            await transport.fetch(job(server.url(host="a.example.org")))
    assert (secure.cookies(), plain.cookies()) == ([None, "a=1"], [None])


async def test_f46_a_downgrade_takes_no_cookie_along(opened, tmp_path: Path):
    plain = Sent()
    authority = trustme.CA()

    async def script(peer: Peer) -> None:
        await peer.request()
        to = http.url(host="a.example.org")
        await peer.send(
            f"HTTP/1.1 302 Found\r\nSet-Cookie: a=1\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()
        )

    async with (
        raw_server(setting(plain)) as http,
        raw_server(script, tls=serving(authority.issue_cert("a.example.org"))) as https,
        opened(cookies=True, tls={"ca_file": write_authority(authority, tmp_path)}) as transport,
    ):
        response = await transport.fetch(job(https.url(host="a.example.org")))
    assert (response.status, plain.cookies()) == (200, [None])


async def test_f38_who_is_not_verified_shares_no_cookies_with_who_is(opened, tmp_path: Path):
    genuine, impostor = Sent(), Sent()
    authority = trustme.CA()
    forged = serving(trustme.CA().issue_cert("a.example.org"))
    async with (
        raw_server(setting(genuine, "a=1; Secure"), tls=serving(authority.issue_cert("a.example.org"))) as one,
        raw_server(setting(impostor, "b=2; Secure"), tls=forged) as other,
        opened(cookies=True, tls={"ca_file": write_authority(authority, tmp_path)}) as transport,
    ):
        for _ in range(2):
            await transport.fetch(job(one.url(host="a.example.org")))
            await transport.fetch(job(other.url(host="a.example.org"), verify=False))
    assert genuine.cookies() == [None, "a=1"]
    assert impostor.cookies() == [None, "b=2"]
