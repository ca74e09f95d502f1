"""Credentials of the config: F46 and F47 of the faults for them, and how they are asked for, refused and renewed."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from base64 import b64encode
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from aiohttp import ClientTimeout
from certificates import serving, write_authority
from origin_process import origin_process
from proxy_process import proxy_process
from pydantic import ValidationError
from raw_server import RawServer, ok, raw_server, refusing_port
from transport_factories import HTTP_EXCHANGES, http_transport, job

from fetcher.engine.retry import Attempt, RetrySettings, decide
from fetcher.errors import ErrorKind, FetchError
from fetcher.transports.http.credentials.authentication import AuthenticatingExchange, BearerSettings
from fetcher.transports.http.redirects import RedirectedHop
from fetcher.transports.http.tracing import HopTrace

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from raw_server import Peer, Script

    from fetcher.interfaces import Transport
    from fetcher.model import Header, Job
    from fetcher.transports.http.exchange import Answer, Hop

RESOLVE = {"*.test": "127.0.0.1"}
BASIC = "Basic " + b64encode(b"user:secret@pass").decode()
ENTRY = {"hosts": ["a.test"], "type": "basic", "username": "user", "password": "secret@pass", "insecure": True}


@pytest.fixture(params=HTTP_EXCHANGES)
def opened(request: pytest.FixtureRequest) -> Any:
    """A function that opens a transport with the given entries of ``http.auth``."""

    def make(*auth: dict[str, Any], **http: Any) -> AbstractAsyncContextManager[Transport]:
        return http_transport(request.param, resolve=RESOLVE, auth=list(auth), **http)

    return make


async def failure(transport: Transport, wanted: Job) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await transport.fetch(wanted)
    return caught.value


def authorization(request: bytes) -> str | None:
    """Return the one ``Authorization`` of a request as it was received."""
    found = re.findall(rb"\r\nauthorization: ([^\r]*)", request, re.IGNORECASE)
    assert len(found) <= 1
    return found[0].decode() if found else None


def noting(asked: list[str | None], answer: Callable[[bytes], bytes] = lambda _: ok()) -> Script:
    """Note what each request is authorised by, and answer it."""

    async def script(peer: Peer) -> None:
        while True:
            request = await peer.request()
            asked.append(authorization(request))
            await peer.send(answer(request))

    return script


def moved(to: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


def refusal(*headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 401 Unauthorized\r\n{lines}Content-Length: 4\r\n\r\nno!!".encode()


# F46, F47: where they go


async def test_f46_credentials_go_over_tls_alone(opened, tmp_path: Path):
    authority = trustme.CA()
    ca_file = write_authority(authority, tmp_path)
    plain: list[str | None] = []
    secure: list[str | None] = []
    entry = {key: value for key, value in ENTRY.items() if key != "insecure"}
    async with (
        raw_server(noting(plain)) as server,
        raw_server(
            noting(secure, lambda _: moved(server.url(host="a.test"))), tls=serving(authority.issue_cert("a.test"))
        ) as first,
        opened(entry, tls={"ca_file": ca_file}) as transport,
    ):
        response = await transport.fetch(job(first.url(host="a.test")))
    assert (response.status, secure, plain) == (200, [BASIC], [None])


async def test_f46_unless_the_config_says_so(opened):
    asked: list[str | None] = []
    async with raw_server(noting(asked)) as server, opened(ENTRY) as transport:
        await transport.fetch(job(server.url(host="a.test")))
    assert asked == [BASIC]


async def test_f47_each_host_gets_what_its_own_entry_says(opened):
    asked: list[str | None] = []

    def answer(request: bytes) -> bytes:
        hosts = ["a.test", "b.test", "c.test", "a.test"]
        return moved(server.url(f"/{len(asked)}", host=hosts[len(asked)])) if len(asked) < 4 else ok()

    token = {"hosts": ["b.*:*"], "type": "bearer", "token": "secret@token", "insecure": True}
    async with raw_server(noting(asked, answer)) as server, opened(ENTRY, token) as transport:
        response = await transport.fetch(job(server.url(host="a.test")))
    assert len(response.redirects) == 3
    assert asked == [BASIC, "Bearer secret@token", None, BASIC]
    assert "secret" not in repr(response)


async def test_f47_a_redirect_to_another_port_gets_no_credentials(opened):
    asked: list[str | None] = []
    other: list[str | None] = []
    async with (
        raw_server(noting(other, lambda _: moved(first.url("/back", host="a.test")))) as second,
        raw_server(
            noting(asked, lambda request: ok() if b"/back" in request else moved(second.url(host="a.test")))
        ) as first,
        opened(ENTRY) as transport,
    ):
        response = await transport.fetch(job(first.url(host="a.test")))
        assert (response.status, asked, other) == (200, [BASIC, BASIC], [None])
        # What the job itself asks for is another matter, before and after it.
        await transport.fetch(job(second.url(host="a.test")))
        assert other == [None, BASIC]
    assert asked[2:] == [None]


async def test_f47_another_port_gets_no_credentials_with_what_the_cache_adds(opened, tmp_path: Path):
    other: list[str | None] = []
    cache = {"path": str(tmp_path / "cache.db")}
    async with (
        raw_server(noting(other)) as second,
        raw_server(noting([], lambda _: moved(second.url(host="a.test")))) as first,
        opened(ENTRY, cache=cache) as transport,
    ):
        await transport.fetch(job(first.url(host="a.test")))
    assert other == [None]


async def test_f47_an_entry_with_a_port_is_for_that_port(opened):
    asked: list[str | None] = []
    async with raw_server(noting(asked)) as one, raw_server(noting(asked)) as other:
        entry = ENTRY | {"hosts": [f"*.test:{one.port}", f"[::1]:{other.port}"]}
        async with opened(entry) as transport:
            for url in (one.url(host="a.test"), other.url(host="a.test")):
                await transport.fetch(job(url))
    assert asked == [BASIC, None]


@pytest.mark.parametrize(
    ("hosts", "url", "first", "there"),
    [
        ("a.test", "https://a.test/x", "https://b.test/", True),
        ("a.test", "https://a.test:443/x", "https://b.test/", True),
        ("a.test", "https://a.test:8443/x", "https://b.test:8443/", False),
        ("a.test", "https://a.test:8443/x", "https://A.test:8443/", True),
        ("a.test", "https://a.test:80/x", "https://a.test/", False),
        ("a.test:8443", "https://a.test:8443/x", "https://b.test/", True),
        ("a.test:8443", "https://a.test/x", "https://a.test/", False),
        ("a.test:443", "https://a.test/x", "https://b.test/", True),
        ("*:*", "https://a.test:1/x", "https://b.test/", True),
        ("::1", "https://[::1]/x", "https://b.test/", True),
        ("::1", "https://[::1]:81/x", "https://b.test/", False),
        ("[::1]:81", "https://[::1]:81/x", "https://b.test/", True),
        ("[::1]", "https://[::1]/x", "https://b.test/", True),
    ],
)
async def test_f47_which_ports_of_a_host_an_entry_is_for(hosts, url, first, there):
    sent = Sent()
    entry = BearerSettings(hosts=[hosts], type="bearer", token="t")
    exchange = AuthenticatingExchange(sent, [entry], tokens=sent, timeout=ClientTimeout(), lane=None)
    led = RedirectedHop("GET", url, [], None, ClientTimeout(), first=first)
    with pytest.raises(FetchError):
        await exchange.send(led, HopTrace())
    assert sent.headers == ([("Authorization", "Bearer t")] if there else [])


class Sent:
    """Notes what it should send."""

    headers: list[Header]

    async def send(self, hop: Hop, trace: HopTrace) -> Answer:
        self.headers = hop.headers
        raise FetchError(ErrorKind.CONNECT_REFUSED, "x", sent=False)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a.test:",
        "a.test:0",
        "a.test:65536",
        "a.test:x",
        "a.test:\u0661",
        "a.test/x",
        "[::1]:",
        "[::1]:080",
        "[::1]:1:2",
        ":80",
    ],
)
def test_what_is_no_host_of_an_entry(host):
    with pytest.raises(ValidationError, match="is no host; write its name, or name:port"):
        BearerSettings(hosts=["a.test", host], type="bearer", token="t")


async def test_f47_a_jobs_own_authorization_is_left_alone_and_not_taken_elsewhere(opened):
    asked: list[str | None] = []

    def answer(request: bytes) -> bytes:
        return moved(server.url(host="b.test")) if b"Host: a.test" in request else ok()

    async with raw_server(noting(asked, answer)) as server, opened(ENTRY) as transport:
        await transport.fetch(job(server.url(host="a.test"), headers=[("authorization", "Mine 1")]))
    assert asked == ["Mine 1", None]


async def test_f47_the_first_entry_that_names_a_host_counts(opened):
    asked: list[str | None] = []
    everyone = {"hosts": ["*"], "type": "bearer", "token": "t", "insecure": True}
    async with raw_server(noting(asked)) as server, opened(ENTRY, everyone) as transport:
        for host in ("A.test", "b.test"):
            await transport.fetch(job(server.url(host=host)))
        await transport.fetch(job(server.url()))
    assert asked == [BASIC, "Bearer t", "Bearer t"]


async def test_a_refusal_of_constant_credentials_is_the_answer(opened):
    asked: list[str | None] = []
    async with (
        raw_server(noting(asked, lambda _: refusal("WWW-Authenticate: Basic"))) as server,
        opened(ENTRY) as transport,
    ):
        assert (await transport.fetch(job(server.url(host="a.test")))).status == 401
    assert asked == [BASIC]


# Digest


class DigestServer:
    """Accepts each number of its nonce once, and a response that it has computed by itself (RFC 7616)."""

    def __init__(self) -> None:
        self.nonce = "n1"
        self.numbers: list[tuple[str, int]] = []
        self.refused = 0

    def answer(self, request: bytes) -> bytes:
        method, target, _ = request.split(b"\r\n")[0].decode().split(" ")
        given = authorization(request) or ""
        fields = dict(re.findall(r'(\w+)="?([^",]*)"?', given.removeprefix("Digest ")))
        number = (fields.get("nonce", ""), int(fields.get("nc", "0"), 16))
        if fields.get("nonce") == self.nonce and number not in self.numbers and fields["uri"] == target:
            keys = [self._hash("user:r:secret@pass"), self.nonce, fields["nc"], fields["cnonce"], "auth"]
            if fields["response"] == self._hash(":".join([*keys, self._hash(f"{method}:{target}")])):
                self.numbers.append(number)
                return ok(b"in")
        self.refused += 1
        stale = ", stale=true" if given else ""
        return refusal(
            f'WWW-Authenticate: Digest realm="r", nonce="{self.nonce}", qop="auth", algorithm=SHA-256{stale}'
        )

    @staticmethod
    def _hash(text: str) -> str:
        return sha256(text.encode()).hexdigest()


DIGEST = ENTRY | {"type": "digest"}


async def test_a_digest_challenge_costs_one_more_request_and_then_none(opened):
    digest = DigestServer()
    async with raw_server(noting([], digest.answer)) as server, opened(DIGEST) as transport:
        for path in ("/", "/x?a=1", "/y"):
            assert (await transport.fetch(job(server.url(path, host="a.test")))).body == b"in"
        assert server.connections == 1
    assert (digest.refused, digest.numbers) == (1, [("n1", 1), ("n1", 2), ("n1", 3)])


async def test_a_digest_nonce_that_is_stale_is_replaced(opened):
    digest = DigestServer()
    async with raw_server(noting([], digest.answer)) as server, opened(DIGEST) as transport:
        await transport.fetch(job(server.url(host="a.test")))
        digest.nonce = "n2"
        response = await transport.fetch(job(server.url(host="a.test"), method="POST", body=b"x"))
    assert (response.body, digest.refused, digest.numbers) == (b"in", 2, [("n1", 1), ("n2", 1)])


async def test_a_cookie_that_comes_with_a_challenge_goes_with_its_answer(opened):
    asked: list[bytes] = []

    async def script(peer: Peer) -> None:
        challenge = ("WWW-Authenticate: Digest realm=r, nonce=n", "Set-Cookie: session=1")
        for answer in (refusal(*challenge), ok()):
            asked.append(await peer.request())
            await peer.send(answer)

    async with raw_server(script) as server, opened(DIGEST, cookies=True) as transport:
        assert (await transport.fetch(job(server.url(host="a.test")))).status == 200
    assert [b"Cookie: session=1\r\n" in request for request in asked] == [False, True]


async def test_a_wrong_digest_is_not_tried_for_ever(opened):
    asked: list[str | None] = []
    answer = refusal('WWW-Authenticate: Digest realm="r", nonce="n", qop="auth"')
    async with raw_server(noting(asked, lambda _: answer)) as server, opened(DIGEST) as transport:
        assert (await transport.fetch(job(server.url(host="a.test")))).status == 401
        assert (await transport.fetch(job(server.url(host="a.test")))).status == 401
    assert [value is not None for value in asked] == [False, True, True]


# OAuth 2.0


class TokenEndpoint:
    """Gives out t1, t2, ... and notes the requests; ``answers`` go before that."""

    def __init__(self, **fields: Any) -> None:
        self.requests: list[bytes] = []
        self.answers: list[bytes] = []
        self.fields = {"token_type": "Bearer", "expires_in": 3600} | fields
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def serve(self, peer: Peer) -> None:
        while True:
            self.requests.append(await peer.request())
            self.asked.set()
            await self.go_on.wait()
            if self.answers:
                await peer.send(self.answers.pop(0))
            else:
                token = {"access_token": f"t{len(self.requests)}"} | self.fields
                await peer.send(ok(json.dumps(token).encode(), "Content-Type: application/json"))


def oauth(server: RawServer, **fields: Any) -> dict[str, Any]:
    entry = {"hosts": ["a.test"], "type": "oauth2", "token_url": server.url("/token"), "insecure": True}
    return entry | {"client_id": "id", "client_secret": "secret@client"} | fields


async def test_one_token_for_all_who_wait(opened):
    endpoint, asked = TokenEndpoint(), []
    endpoint.go_on.clear()
    async with (
        raw_server(endpoint.serve) as tokens,
        raw_server(noting(asked)) as server,
        opened(oauth(tokens, scope="read write", parameters={"audience": "x"})) as transport,
    ):
        fetches = [asyncio.create_task(transport.fetch(job(server.url(host="a.test")))) for _ in range(20)]
        await endpoint.asked.wait()
        endpoint.go_on.set()
        ended = await asyncio.gather(*fetches, return_exceptions=True)
        # One goes on; for the others it is as if they had not begun.
        waited = [error for error in ended if isinstance(error, FetchError) and error.postpone is not None]
        assert (len(waited), asked) == (19, ["Bearer t1"])
        await asyncio.gather(*(transport.fetch(job(server.url(host="a.test"))) for _ in waited))
    assert asked == ["Bearer t1"] * 20
    (request,) = endpoint.requests
    assert request.startswith(b"POST /token HTTP/1.1\r\n")
    assert authorization(request) == "Basic " + b64encode(b"id:secret%40client").decode()
    assert request.endswith(b"grant_type=client_credentials&scope=read+write&audience=x")


async def test_a_client_in_the_body(opened):
    endpoint = TokenEndpoint()
    async with (
        raw_server(endpoint.serve) as tokens,
        raw_server(noting([])) as server,
        opened(oauth(tokens, client_auth="body")) as transport,
    ):
        await transport.fetch(job(server.url(host="a.test")))
    assert authorization(endpoint.requests[0]) is None
    assert endpoint.requests[0].endswith(b"client_id=id&client_secret=secret%40client")


async def test_one_who_gives_up_takes_no_token_from_the_others(opened):
    endpoint, asked = TokenEndpoint(), []
    endpoint.go_on.clear()
    async with (
        raw_server(endpoint.serve) as tokens,
        raw_server(noting(asked)) as server,
        opened(oauth(tokens)) as transport,
    ):
        impatient = asyncio.create_task(transport.fetch(job(server.url(host="a.test"))))
        await endpoint.asked.wait()
        patient = asyncio.create_task(transport.fetch(job(server.url(host="a.test"))))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait([impatient])
        endpoint.go_on.set()
        assert (await patient).status == 200
    assert (asked, len(endpoint.requests)) == (["Bearer t1"], 1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("fetcher.transports.http.credentials.oauth.monotonic", lambda: now[0])
    return now


async def test_a_token_is_replaced_before_it_ends(opened, clock):
    endpoint, asked = TokenEndpoint(expires_in="600"), []
    async with (
        raw_server(endpoint.serve) as tokens,
        raw_server(noting(asked)) as server,
        opened(oauth(tokens)) as transport,
    ):
        for elapsed in (0, 539, 2):
            clock[0] += elapsed
            await transport.fetch(job(server.url(host="a.test")))
        # Nobody waits for it while the old one is good.
        assert asked == ["Bearer t1"] * 3
        async with asyncio.timeout(10):
            while asked[-1] != "Bearer t2":
                await transport.fetch(job(server.url(host="a.test")))
    assert len(endpoint.requests) == 2


async def test_a_token_that_is_refused_is_replaced_once(opened, clock):
    endpoint, asked, good = TokenEndpoint(), [], {"Bearer t1"}

    def answer(request: bytes) -> bytes:
        return ok() if authorization(request) in good else refusal("WWW-Authenticate: Bearer error=invalid_token")

    async with (
        raw_server(endpoint.serve) as tokens,
        raw_server(noting(asked, answer)) as server,
        opened(oauth(tokens)) as transport,
    ):
        url = server.url(host="a.test")
        assert (await transport.fetch(job(url))).status == 200
        good.clear()
        good.add("Bearer t2")
        clock[0] += 60
        assert (await transport.fetch(job(url))).status == 200
        good.clear()
        # What a new token is refused for, another would be refused for, too.
        assert (await transport.fetch(job(url))).status == 401
        clock[0] += 60
        assert (await transport.fetch(job(url))).status == 401
    assert asked == ["Bearer t1", "Bearer t1", "Bearer t2", "Bearer t2", "Bearer t2", "Bearer t3"]
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 26\r\n\r\n" + b'{"error":"invalid_client"}',
            "refused: 401 inv",
        ),
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 13\r\n\r\nsecret@client", "refused: 400"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "refused: 302"),
        (ok(b"{}"), "answered without an access_token"),
        (ok(b'{"access_token": "secret@client", "token_type": "mac"}'), "another type than bearer"),
        (ok(b'{"access_token": "secret@client\\r\\nX: y"}'), "can not be sent"),
    ],
)
async def test_a_token_endpoint_that_gives_none(opened, clock, answer, words):
    endpoint, asked = TokenEndpoint(), []
    endpoint.answers.append(answer)
    async with (
        raw_server(endpoint.serve) as tokens,
        raw_server(noting(asked)) as server,
        opened(oauth(tokens)) as transport,
    ):
        url = server.url(host="a.test")
        error = await failure(transport, job(url))
        # It is left alone for a while, and then asked again.
        again = await failure(transport, job(url))
        assert len(endpoint.requests) == 1
        clock[0] += 31
        assert (await transport.fetch(job(url))).status == 200
    for each in (error, again):
        assert (each.kind, each.sent, each.status) == (ErrorKind.AUTH_FAILED, False, None)
        assert words in each.message
        assert each.postpone is None
        assert "secret" not in each.message
    assert asked == ["Bearer t2"]


async def test_refused_credentials_are_not_tried_again():
    attempt = Attempt(1, 0.0, "GET", None, ErrorKind.AUTH_FAILED, sent=False)
    assert decide(RetrySettings(), attempt, lambda: 0.0) is None


async def test_closing_gives_up_a_token_that_is_awaited(opened):
    endpoint = TokenEndpoint()
    endpoint.go_on.clear()
    async with raw_server(endpoint.serve) as tokens:
        async with opened(oauth(tokens)) as transport:
            fetching = asyncio.create_task(transport.fetch(job("http://a.test/")))
            await endpoint.asked.wait()
            fetching.cancel()
            await asyncio.wait([fetching])
        assert len(asyncio.all_tasks()) <= 2


# Where they never appear


CONFIG = """
sources: [{{type: inline, jobs: [{{url: "{url}/bytes/10"}}, {{url: "{url}/status/500"}}]}}]
sinks: [out.jsonl]
retry: {{attempts: 1}}
http:
  proxy: {{urls: "{proxy}", username: user, password: {{file: password.txt}}}}
  auth: [{{hosts: [127.0.0.1], type: digest, username: user, password: "secret@digest", insecure: true}}]
"""


@pytest.mark.parametrize("works", [True, False])
def test_f69_no_secret_is_written_anywhere(tmp_path: Path, works):
    with origin_process() as origin, proxy_process("user:secret@proxy") as proxy, refusing_port() as port:
        url = proxy.url("http") if works else f"http://user:secret%40url@127.0.0.1:{port}"
        (tmp_path / "password.txt").write_text("secret@proxy\n")
        (tmp_path / "x.yaml").write_text(CONFIG.format(url=origin.url, proxy=url))
        command = [sys.executable, "-m", "fetcher", "run", "x.yaml"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(records) == 2, done.stderr
    if works:
        assert {record["proxy"] for record in records} == {url}
    else:
        assert {record["error_kind"] for record in records} == {"proxy_unreachable"}
    written = [
        path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.name not in {"password.txt", "x.yaml"} and path.is_file()
    ]
    assert len(written) >= 2
    for content in [done.stdout.encode(), done.stderr.encode(), *written]:
        assert b"secret" not in content
        assert b64encode(b"user:secret@proxy") not in content
