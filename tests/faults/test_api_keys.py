"""API keys: F46, F47 and F107 of the faults for them. Where they go, and that nothing but a body can show them."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import trustme
from aiohttp import ClientTimeout
from batches import run_batch
from certificates import serving, write_authority
from proxy_process import proxy_process
from pydantic import ValidationError
from raw_server import ok, raw_server
from transport_factories import HTTP_EXCHANGES, http_transport, job

from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.credentials.api_key import ApiKey, ApiKeySettings, with_parameter
from fetcher.transports.http.exchange import Hop
from fetcher.transports.http.tracing import HopTrace
from fetcher.transports.http.transport import HttpConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from raw_server import Peer, Script

    from fetcher.interfaces import Transport
    from fetcher.transports.http.exchange import Answer

KEY = "k3y/with+all&of=it 1"
RESOLVE = {"*.test": "127.0.0.1"}
IN_QUERY = {"type": "api_key", "hosts": ["a.test"], "name": "appid", "in": "query", "key": KEY, "insecure": True}
IN_HEADER = {"type": "api_key", "hosts": ["a.test"], "name": "X-Api-Key", "key": KEY, "insecure": True}


@pytest.fixture(params=HTTP_EXCHANGES)
def opened(request: pytest.FixtureRequest) -> Any:
    """A function that opens a transport with the given entries of ``http.auth``."""

    def make(*auth: dict[str, Any], **http: Any) -> AbstractAsyncContextManager[Transport]:
        return http_transport(request.param, resolve=RESOLVE, auth=list(auth), **http)

    return make


def noting(asked: list[bytes], answer: Callable[[bytes], bytes] = lambda _: ok()) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            asked.append(request)
            await peer.send(answer(request))

    return script


def lines(asked: list[bytes]) -> list[str]:
    return [request.split(b"\r\n", 1)[0].decode() for request in asked]


def keys(asked: list[bytes]) -> list[bytes | None]:
    """Return the key that each request has as a header."""
    found = (re.search(rb"\r\nx-api-key: ([^\r]*)", request, re.IGNORECASE) for request in asked)
    return [match and match[1] for match in found]


def moved(to: str, *headers: str) -> bytes:
    more = "".join(f"{header}\r\n" for header in headers)
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\n{more}Content-Length: 0\r\n\r\n".encode("latin-1")


def shows(thing: object) -> bool:
    """Tell whether anything of a key is to be seen, in whatever way it is encoded."""
    text = repr(thing) + json.dumps(thing, default=repr)
    return any(form in text for form in ("k3y", "%6b3y", "6B3y"))


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


# Where it goes


async def test_f107_a_key_in_a_query_is_in_the_request_and_nowhere_else(opened):
    asked: list[bytes] = []
    async with raw_server(noting(asked)) as server, opened(IN_QUERY) as transport:
        wanted = job(server.url("/w?q=a%20b&appid=mine&x", host="a.test"))
        response = await transport.fetch(wanted)
        plain = await transport.fetch(job(server.url("", host="a.test")))
    assert lines(asked) == [
        f"GET /w?q=a%20b&appid={quote(KEY, safe='')}&x HTTP/1.1",
        f"GET /?appid={quote(KEY, safe='')} HTTP/1.1",
    ]
    assert response.final_url == wanted.url
    assert not shows([response, plain, wanted])


async def test_f107_a_key_in_a_header_is_in_the_request_and_nowhere_else(opened):
    asked: list[bytes] = []
    async with raw_server(noting(asked)) as server, opened(IN_HEADER) as transport:
        wanted = job(server.url(host="a.test"), headers=[("Authorization", "Basic own")])
        response = await transport.fetch(wanted)
        own = await transport.fetch(job(server.url(host="a.test"), headers=[("x-api-key", "own")]))
        other = await transport.fetch(job(server.url(host="b.test")))
    assert keys(asked) == [KEY.encode(), b"own", None]
    assert b"Basic own" in asked[0]
    assert not shows([response, own, other, wanted])


@pytest.mark.parametrize("entry", [IN_QUERY, IN_HEADER])
async def test_f46_a_key_goes_over_tls_alone(opened, entry, tmp_path: Path):
    authority = trustme.CA()
    plain: list[bytes] = []
    secure: list[bytes] = []
    safe = entry | {"insecure": False}
    async with (
        raw_server(noting(plain)) as server,
        raw_server(
            noting(secure, lambda _: moved(server.url(host="a.test"))), tls=serving(authority.issue_cert("a.test"))
        ) as first,
        opened(safe, tls={"ca_file": write_authority(authority, tmp_path)}) as transport,
    ):
        response = await transport.fetch(job(first.url(host="a.test")))
    assert (response.status, shows(secure), shows(plain)) == (200, True, False)


async def test_f47_a_redirect_that_repeats_the_query_gets_the_right_key_where_it_is_meant_for(opened):
    asked: list[bytes] = []

    def answer(request: bytes) -> bytes:
        target = request.split(b" ", 2)[1].decode()
        return moved(target.replace("/a", "/b"), f"X-Echo: was {target}") if target.startswith("/a") else ok()

    async with raw_server(noting(asked, answer)) as server, opened(IN_QUERY) as transport:
        response = await transport.fetch(job(server.url("/a?q=1", host="a.test")))
    encoded = quote(KEY, safe="")
    assert lines(asked) == [f"GET /{path}?q=1&appid={encoded} HTTP/1.1" for path in "ab"]
    assert response.final_url == server.url("/b?q=1&appid=***", host="a.test")
    assert [redirect.location for redirect in response.redirects] == ["/b?q=1&appid=***"]
    assert not shows(response)


@pytest.mark.parametrize("entry", [IN_QUERY, IN_HEADER])
async def test_f47_a_redirect_to_another_host_takes_no_key_along(opened, entry):
    asked: list[bytes] = []
    repeated = f"?appid={quote(KEY)}" if entry is IN_QUERY else ""
    async with (
        raw_server(noting(asked)) as other,
        raw_server(noting([], lambda _: moved(other.url(f"/{repeated}", host="b.test")))) as server,
        opened(entry) as transport,
    ):
        response = await transport.fetch(job(server.url(host="a.test")))
    assert not shows([asked, response])


@pytest.mark.parametrize("entry", [IN_QUERY, IN_HEADER])
@pytest.mark.parametrize("to", [f"/{quote(KEY, safe='')}/x", f"/?to={quote(quote(KEY))}", f"ftp://b.test/?k={KEY}"])
async def test_f107_a_redirect_that_has_the_key_where_records_would_show_it_is_not_followed(opened, entry, to):
    asked: list[bytes] = []
    async with raw_server(noting(asked, lambda _: moved(to))) as server, opened(entry) as transport:
        with pytest.raises(FetchError) as caught:
            await transport.fetch(job(server.url(host="a.test")))
    assert (caught.value.kind, len(asked)) == (ErrorKind.BAD_REDIRECT, 1)
    assert "the API key" in caught.value.message
    assert not shows([caught.value.message, caught.value.args, caught.value.redirects, caught.value.response])


@pytest.mark.parametrize("entry", [IN_QUERY, IN_HEADER])
async def test_f47_a_short_key_that_is_a_word_changes_no_redirect(opened, entry):
    asked: list[bytes] = []

    def answer(request: bytes) -> bytes:
        return ok() if b"/demo/" in request else moved("/demo/items?cat=demo&appid=demo#demo")

    async with raw_server(noting(asked, answer)) as server, opened(entry | {"key": "demo"}) as transport:
        response = await transport.fetch(job(server.url("/items", host="a.test")))
    assert lines(asked)[1] == "GET /demo/items?cat=demo&appid=demo HTTP/1.1"
    parameter = "***" if entry is IN_QUERY else "demo"
    assert response.final_url == server.url(f"/demo/items?cat=demo&appid={parameter}", host="a.test")
    assert "appid=demo" not in response.redirects[0].location


async def test_f107_the_names_of_headers_have_no_key_either(opened):
    answer = b"HTTP/1.1 200 OK\r\nX-0123456789abcdef: 1\r\nx-0123456789ABCDEF: 2\r\nContent-Length: 0\r\n\r\n"
    entry = IN_QUERY | {"key": "0123456789abcdef"}
    async with raw_server(noting([], lambda _: answer)) as server, opened(entry) as transport:
        response = await transport.fetch(job(server.url(host="a.test")))
    assert [name.lower() for name, _ in response.headers] == ["x-***", "x-***", "content-length"]


async def test_f47_nor_does_one_to_another_port(opened):
    asked: list[bytes] = []
    async with (
        raw_server(noting(asked)) as other,
        raw_server(noting([], lambda _: moved(other.url(host="a.test")))) as server,
        opened(IN_QUERY) as transport,
    ):
        await transport.fetch(job(server.url(host="a.test")))
    assert lines(asked) == ["GET / HTTP/1.1"]


async def test_f107_neither_robots_nor_a_token_endpoint_gets_a_key(opened):
    asked: list[bytes] = []
    async with raw_server(noting(asked)) as server:
        oauth = {
            "type": "oauth2",
            "hosts": ["b.test"],
            "token_url": server.url("/token", host="a.test"),
            "client_id": "id",
            "client_secret": "hidden",
            "insecure": True,
        }
        async with opened(IN_QUERY, oauth, robots="obey") as transport:
            await transport.fetch(job(server.url("/page", host="a.test")))
            with pytest.raises(FetchError):
                await transport.fetch(job(server.url("/page", host="b.test")))
    assert [line for line in lines(asked) if "appid" in line] == [f"GET /page?appid={quote(KEY, safe='')} HTTP/1.1"]
    assert {line.split()[1] for line in lines(asked)} >= {"/robots.txt", "/token"}


async def test_f107_robots_that_refuse_do_not_say_what_the_key_is(opened):
    rules = ok(b"User-agent: *\nDisallow: /*appid")
    async with raw_server(noting([], lambda _: rules)) as server, opened(IN_QUERY, robots="obey") as transport:
        with pytest.raises(FetchError) as caught:
            await transport.fetch(job(server.url("/page", host="a.test")))
    assert caught.value.kind is ErrorKind.ROBOTS_DISALLOWED
    assert not shows([caught.value.message, caught.value.args])


async def test_f107_a_proxy_has_to_know_it_and_no_record_of_it_does(opened):
    asked: list[bytes] = []
    with proxy_process() as proxy:
        async with raw_server(noting(asked)) as server, opened(IN_QUERY, proxy=proxy.url("http")) as transport:
            response = await transport.fetch(job(server.url("/w", host="127.0.0.1")))
            entry = IN_QUERY | {"hosts": ["127.0.0.1"]}
            async with opened(entry, proxy=proxy.url("http")) as knowing:
                keyed = await knowing.fetch(job(server.url("/w")))
    assert ["appid" in line for line in lines(asked)] == [False, True]
    assert not shows([response, keyed])


# What servers say of it


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        quote(KEY),
        quote(KEY, safe=""),
        quote(KEY, safe="").lower(),
        quote(quote(KEY, safe=""), safe=""),
        KEY.replace(" ", "+"),
        "".join(f"%{ord(character):02x}" for character in KEY),
    ],
)
async def test_f107_a_key_that_comes_back_in_a_header_is_masked_however_it_is_encoded(opened, form: str):
    answer = f"HTTP/1.1 200 OK\r\nX-Echo: <{form}>\r\nContent-Type: text/{form}\r\nContent-Length: 2\r\n\r\nok"
    async with raw_server(noting([], lambda _: answer.encode())) as server, opened(IN_QUERY) as transport:
        response = await transport.fetch(job(server.url(host="a.test")))
    assert ("X-Echo", "<***>") in response.headers
    assert response.content_type == "text/***"
    assert not shows(response)


async def test_f107_what_is_not_the_key_stays_as_it_is(opened):
    headers = "Set-Cookie: a=b; Path=/\r\nX-Raw: \xe4\r\nx-raw: 2\r\n"
    answer = f"HTTP/1.1 200 OK\r\n{headers}Content-Length: 2\r\n\r\nok".encode("latin-1")
    async with raw_server(noting([], lambda _: answer)) as server, opened(IN_QUERY) as transport:
        keyed = await transport.fetch(job(server.url(host="a.test")))
        plain = await transport.fetch(job(server.url(host="b.test")))
    assert keyed.headers == plain.headers


@pytest.mark.parametrize(
    ("key", "text", "masked"),
    [
        ("abc", "a=abc&b=abcd&c=xabc", "a=***&b=abcd&c=xabc"),
        ("abc", "to%3Fa%3Dabc", "to%3Fa%3D***"),
        ("12345678", "x12345678y", "x***y"),
        ("Grüße-an-alle", "Gr%C3%BC%C3%9Fe-an-alle", "***"),
        ("a.c*e(g)i", "abcde(g)i a.c*e(g)i", "abcde(g)i ***"),
        ("one+two+six", "one two six, one%20two%2bsix, one%2Btwo+six", "***, ***, ***"),
        ("0123456789abcdef", "0123456789ABCDEF", "***"),
    ],
)
def test_f107_a_short_key_is_masked_where_it_stands_alone_and_a_long_one_anywhere(key: str, text: str, masked: str):
    assert ApiKey("a", key, in_query=True).mask(text) == masked


@pytest.mark.parametrize(
    "answer",
    [
        b"GET /?appid=" + quote(KEY, safe="").encode() + b" is what you said\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + KEY.encode() + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + KEY.encode() + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://" + quote(KEY, safe="").encode() + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[" + KEY.encode() + b"/\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_f107_no_message_has_it_though_it_quotes_what_a_server_said(opened, answer: bytes):
    async with raw_server(noting([], lambda _: answer)) as server, opened(IN_QUERY) as transport:
        with pytest.raises(FetchError) as caught:
            await transport.fetch(job(server.url(host="a.test")))
    assert not shows([caught.value.message, caught.value.args, caught.value.redirects, caught.value.response])


async def test_f107_nor_has_that_of_a_fault_of_ours():
    class Broken:
        async def send(self, hop: Hop, trace: HopTrace) -> Answer:
            raise LookupError(hop.url)

    hop = Hop("GET", "http://a.test/?q=1", [], None, ClientTimeout())
    with pytest.raises(FetchError) as caught:
        await ApiKey("appid", KEY, in_query=True).send(hop, HopTrace(), Broken())
    assert caught.value.message == "LookupError: http://a.test/?q=1&appid=***"
    assert hop.url == "http://a.test/?q=1"


# All of it


async def test_f107_no_output_log_or_dump_of_a_whole_run_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.DEBUG)

    def answer(request: bytes) -> bytes:
        target = request.split(b" ", 2)[1]
        if target.startswith(b"/bad"):
            return b"nonsense " + target + b"\r\n\r\n"
        if target.startswith(b"/moved"):
            return moved(target.replace(b"/moved", b"/then").decode())
        return b"HTTP/1.1 404 Not Found\r\nX-Echo: " + target + b"\r\nContent-Length: 0\r\n\r\n"

    entry = IN_QUERY | {"hosts": ["127.0.0.1"], "budget": ["50/s", "1000/d"]}
    asked: list[bytes] = []
    async with raw_server(noting(asked, answer)) as server:
        records = await run_batch(
            tmp_path,
            [server.url(path) for path in ("/missing", "/bad", "/moved?x=1")],
            http={"auth": [entry], "cache": {"path": str(tmp_path / "cache.db")}},
            retry={"attempts": 1},
        )
    assert len(records) == 3
    assert all(b"appid=k3y" in request for request in asked)
    written = everything(tmp_path)
    assert b"missing" in written
    assert (tmp_path / "state" / "budgets.json").exists()
    assert b"k3y" not in written
    assert not shows(caplog.text)
    settings = HttpConfig.model_validate({"auth": [entry]})
    assert not shows([settings, settings.model_dump(mode="json"), settings.model_dump_json(), settings.auth[0].rule()])


def test_f107_an_entry_that_is_wrong_does_not_show_its_key():
    with pytest.raises(ValidationError) as caught:
        HttpConfig.model_validate({"auth": [IN_QUERY | {"budget": "k3y"}]})
    assert "whole numbers of requests" in str(caught.value)
    with pytest.raises(ValidationError):
        HttpConfig.model_validate({"auth": [IN_HEADER | {"name": "not a name"}]})


def test_an_entry_can_be_written_out_and_read_again():
    settings = HttpConfig.model_validate({"auth": [IN_QUERY | {"budget": ["10/s", "600/min", "5/h", "50000/d"]}]})
    written = settings.model_dump(mode="json")["auth"][0]
    assert written["in"] == "query"
    assert written["budget"] == ["10/s", "600/m", "5/h", "50000/d"]
    assert HttpConfig.model_validate({"auth": [written | {"key": KEY}]}) == settings


def test_the_identity_is_that_of_the_key_wherever_it_is_sent():
    first, second = (ApiKeySettings.model_validate(entry | {"hosts": ["x.test"]}) for entry in (IN_QUERY, IN_HEADER))
    other = ApiKeySettings.model_validate(IN_QUERY | {"key": KEY + "2"})
    assert first.rule().identity == second.rule().identity != other.rule().identity


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://h", "http://h/?k=v%20%26"),
        ("http://h/", "http://h/?k=v%20%26"),
        ("http://h?x=1", "http://h/?x=1&k=v%20%26"),
        ("http://h/p?k", "http://h/p?k=v%20%26"),
        ("http://h/p?a=%2f&%6B=1&b=&k=2", "http://h/p?a=%2f&k=v%20%26&b="),
        ("http://h/p?", "http://h/p?k=v%20%26"),
    ],
)
def test_a_parameter_is_replaced_and_the_rest_stays_byte_for_byte(url: str, wanted: str):
    assert with_parameter(url, "k", "v &") == wanted
