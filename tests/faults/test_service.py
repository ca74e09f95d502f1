"""Rows F108, F110 and F112: who may use the API, and what becomes of those who use it badly."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import io
import json
import re
import tracemalloc
from contextlib import AsyncExitStack
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import uvloop
from api_service import api_service
from serve_process import serve_process
from structlog.testing import capture_logs

from fetcher.config import ConfigProblems
from fetcher.config.loading import load_text
from fetcher.service import settings
from fetcher.service.api import connections, reception
from fetcher.service.settings import ServiceConfig, hash_token

READER, WRITER = "r" * 43, "w" * 43
TOKENS = [
    {"name": "reader", "hash": hash_token(READER)},
    {"name": "writer", "hash": hash_token(WRITER), "scopes": ["read", "write"]},
]
CONFIG = {"sources": [{"type": "inline", "jobs": [{"url": "http://127.0.0.1:9/"}]}]}
PROBLEM = "application/problem+json"
# It has begun, and does not go on.
UPLOAD = b"POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\nhttp"


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


async def exchange(port, request):
    """Send bytes, and return everything that comes back until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def say(stack, port, words):
    """Say something to the service and leave the connection as it is then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stack.callback(writer.close)
    writer.write(words)
    return reader


async def ended(reader):
    """Return what comes until the service ends the connection, in whatever way."""
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(2**20):
            received += part
    return bytes(received)


async def receiving(folder, count):
    """Wait until so many uploads have begun."""
    async with asyncio.timeout(20):
        while len(list((folder / "state" / "incoming").iterdir())) < count:  # noqa: ASYNC110  it is the service's
            await asyncio.sleep(0.01)


def get(path, *fields, host="localhost"):
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def status(answer):
    return int(answer.split(b" ", 2)[1])


# F108: an API without a token


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "fetcher.example.org"])
def test_f108_without_tokens_nothing_but_loopback_is_bound(host):
    with pytest.raises(ConfigProblems, match="takes tokens; make one: fetcher token"):
        load_text(ServiceConfig, json.dumps({"service": {"host": host}}), "service.yaml")


@pytest.mark.parametrize(
    "headers", [{}, bearer("x" * 43), bearer(""), {"Authorization": "Basic eDp5"}, bearer(hash_token(READER))]
)
async def test_f108_who_has_no_token_sees_nothing(tmp_path, headers):
    async with api_service(tmp_path, tokens=TOKENS) as api:
        for path in ("batches", "snapshot", "events", "why", "hosts", "sinks", "failures", "batches/x/results"):
            answer, fields, body = await api.ask("GET", f"/v1/{path}", headers=headers)
            assert (answer, fields["Content-Type"], body["status"]) == (401, PROBLEM, 401)
            assert fields["WWW-Authenticate"].startswith('Bearer realm="fetcher"')
        assert (await api.ask("GET", "/metrics", headers=headers))[0] == 401


async def test_f108_a_token_that_is_no_ascii_is_no_fault(tmp_path):
    async with api_service(tmp_path, tokens=TOKENS) as api:
        request = get("/v1/batches").replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer \xff\xfe\xc3\xa4\r\n\r\n")
        assert status(await exchange(api.port, request)) == 401


async def test_f108_a_token_to_read_changes_nothing(tmp_path):
    async with api_service(tmp_path, tokens=TOKENS) as api:
        answer, fields, _ = await api.ask("POST", "/v1/batches", json=CONFIG, headers=bearer(READER))
        assert (answer, 'scope="write"' in fields["WWW-Authenticate"]) == (403, True)
        answer, _, _ = await api.ask("DELETE", "/v1/batches/x", headers=bearer(READER))
        assert answer == 403
        assert (await api.ask("GET", "/v1/batches", headers=bearer(READER)))[2]["batches"] == []
        batch = await api.submit(CONFIG, **bearer(WRITER))
        assert (await api.ask("GET", f"/v1/batches/{batch}", headers=bearer(READER)))[0] == 200


async def test_f108_a_token_is_in_no_log_and_in_no_answer(tmp_path):
    async with api_service(tmp_path, tokens=TOKENS) as api:
        with capture_logs() as logs:
            told = [await api.ask("POST", "/v1/batches", json=CONFIG, headers=bearer(WRITER))]
            told += [await api.ask("DELETE", "/v1/batches/x", headers=bearer(token)) for token in (READER, "x" * 43)]
        assert [answer[0] for answer in told] == [201, 403, 401]
        assert "writer" in [line.get("who") for line in logs]
        shown = repr(logs) + repr([(dict(headers), body) for _, headers, body in told])
        for secret in (READER, WRITER, "x" * 43, *(token["hash"] for token in TOKENS)):
            assert secret not in shown


async def test_f108_probes_and_the_empty_page_take_no_token(tmp_path):
    async with api_service(tmp_path, tokens=TOKENS) as api:
        for path in ("/livez", "/readyz", "/", "/docs", "/openapi.json"):
            assert (await api.ask("GET", path))[0] == 200


async def test_f108_tokens_are_compared_in_constant_time_and_all_of_them(tmp_path, monkeypatch):
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(settings, "hmac", SimpleNamespace(compare_digest=compare))
    async with api_service(tmp_path, tokens=TOKENS) as api:
        assert (await api.ask("GET", "/v1/batches", headers=bearer(READER)))[0] == 200
    assert compared == [(token["hash"], hash_token(READER)) for token in TOKENS]


# F110: an API that is flooded, slow clients, deep JSON, huge bodies


async def test_f110_five_hundred_slow_clients_keep_nobody_from_an_answer(tmp_path):
    async with api_service(tmp_path, max_connections=100) as api, AsyncExitStack() as stack:
        await asyncio.gather(*(say(stack, api.port, b"GET /v1/batches HTTP/1.1\r\nHost: loc") for _ in range(500)))
        assert status(await exchange(api.port, get("/livez"))) == 200
        assert status(await exchange(api.port, get("/v1/batches"))) == 200


async def test_f110_nor_do_five_hundred_slow_uploads(tmp_path):
    with serve_process(tmp_path, "service.max_connections=10") as process:
        port = urlsplit(process.url).port
        async with AsyncExitStack() as stack:
            await asyncio.gather(*(say(stack, port, UPLOAD) for _ in range(500)))
            assert status(await exchange(port, get("/livez"))) == 200
            assert status(await exchange(port, get("/readyz"))) == 200
            # Whether there is room for more than probes is a matter of who came first.
            assert status(await exchange(port, get("/v1/batches"))) in {200, 503}
        assert process.stop() == 0


async def test_f110_a_head_that_does_not_end_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    async with api_service(tmp_path) as api, AsyncExitStack() as stack:
        silent = await say(stack, api.port, b"")
        slow = await say(stack, api.port, b"GET / HTTP/1.1\r\nHost: localhost\r\nx-y:")
        second = await say(stack, api.port, get("/livez").replace(b"Connection: close\r\n", b"") + b"GET /livez HT")
        assert await ended(silent) == b""
        assert await ended(slow) == b""
        assert (await ended(second)).startswith(b"HTTP/1.1 200 OK")


async def test_f110_clients_that_have_all_asked_leave_room_for_probes(tmp_path):
    async with api_service(tmp_path, max_connections=20) as api, AsyncExitStack() as stack:
        for _ in range(20):
            await say(stack, api.port, UPLOAD)
        await receiving(tmp_path, 20)
        assert status(await exchange(api.port, get("/livez"))) == 200
        assert status(await exchange(api.port, get("/readyz"))) == 200
        crowded = await exchange(api.port, get("/v1/batches"))
        assert (status(crowded), b"Retry-After" in crowded) == (503, True)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_f110_connections_beyond_the_reserve_are_closed_at_once(tmp_path, monkeypatch, loop):
    monkeypatch.setattr(connections, "RESERVE", 0)

    async def main():
        async with api_service(tmp_path, max_connections=10) as api, AsyncExitStack() as stack:
            for _ in range(10):
                await say(stack, api.port, UPLOAD)
            await receiving(tmp_path, 10)
            assert await exchange(api.port, get("/livez")) == b""

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


async def test_f110_a_body_that_does_not_come_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(reception, "GRACE_SECONDS", 0.1)
    head = "POST /v1/batches HTTP/1.1\r\nHost: localhost\r\nContent-Type: {}\r\nContent-Length: 99\r\n\r\n"
    async with api_service(tmp_path) as api, AsyncExitStack() as stack:
        for kind in ("text/plain", "application/json", "multipart/form-data; boundary=x"):
            reader = await say(stack, api.port, head.format(kind).encode() + b"{")
            answer = await reader.readuntil(b"\r\n\r\n")
            assert (status(answer), PROBLEM.encode() in answer) == (408, True)
        assert list((tmp_path / "state" / "incoming").iterdir()) == []


async def test_f110_more_submissions_at_once_than_are_taken_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reception, "MOST_AT_ONCE", 1)
    async with api_service(tmp_path) as api, AsyncExitStack() as stack:
        await say(stack, api.port, UPLOAD)
        await receiving(tmp_path, 1)
        answer, fields, _ = await api.ask("POST", "/v1/batches", json=CONFIG)
        assert (answer, fields["Retry-After"]) == (503, "5")


@pytest.mark.parametrize("kind", ["application/json", "application/yaml", "text/plain"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_f110_a_body_that_is_too_large_is_refused(tmp_path, kind, chunked):
    async def parts():
        for _ in range(30):
            yield b"#" * 100_000

    async with api_service(tmp_path, max_config="1MiB", max_upload="2MiB") as api:
        body = parts() if chunked else io.BytesIO(b"#" * 3_000_000)
        answer, fields, problem = await api.ask("POST", "/v1/batches", data=body, headers={"Content-Type": kind})
        assert (answer, fields["Content-Type"]) == (413, PROBLEM)
        assert re.search(r"larger than [\d,]+ bytes", problem["detail"])
        assert list((tmp_path / "state" / "incoming").iterdir()) == []


async def test_f110_a_large_upload_is_never_in_memory(tmp_path):
    async def parts():
        for _ in range(640):
            yield b"# a line that is no URL\n" * 4_000

    async with api_service(tmp_path) as api:
        await api.submit(CONFIG)  # what is loaded once is loaded now
        tracemalloc.start()
        try:
            kind = {"Content-Type": "text/plain"}
            answer, _, batch = await api.ask("POST", "/v1/batches", data=parts(), headers=kind)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert answer == 201
        upload = tmp_path / "state" / "batches" / batch["id"] / "urls.txt"
        assert upload.stat().st_size == 640 * 96_000 > 4 * peak


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
        ("application/json", '{"a":' * 5_000 + "1" + "}" * 5_000),
        ("application/yaml", "a: " + "[" * 5_000 + "]" * 5_000),
        ("application/yaml", "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
        )),
    ],
    ids=["deep list", "deep mapping", "deep yaml", "aliases"],
)  # fmt: skip
async def test_f110_deep_and_bloated_configs_are_refused(tmp_path, kind, body):
    async with api_service(tmp_path) as api:
        answer, _, problem = await api.ask("POST", "/v1/batches", data=body.encode(), headers={"Content-Type": kind})
        assert (answer, problem["status"]) == (422, 422)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(1_000)) + b"\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
    ids=["long field", "many fields", "long target", "TLS", "two lengths", "nonsense"],
)
async def test_f110_what_is_no_request_gets_a_problem_and_no_more(tmp_path, request_, caplog):
    async with api_service(tmp_path) as api:
        answer = await exchange(api.port, request_)
        assert (status(answer), PROBLEM.encode() in answer) == (400, True)
        assert b"Traceback" not in answer
        assert caplog.records == []


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_f110_who_does_not_read_the_results_is_cut_off(tmp_path, monkeypatch, loop):
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.2)
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.05)

    async def main():
        async with api_service(tmp_path) as api, AsyncExitStack() as stack:
            batch = await api.finished(CONFIG)
            record = (tmp_path / "state" / "batches" / batch / "results.jsonl").read_bytes()
            _grow(api, tmp_path, batch, record, 64 * 1024 * 1024)
            reader = await say(stack, api.port, get(f"/v1/batches/{batch}/results"))
            received = await reader.readexactly(1000)
            async with asyncio.timeout(20):
                while api.connections > 1:  # noqa: ASYNC110  it is the service that cuts this one off
                    await asyncio.sleep(0.05)
            assert len(received + await ended(reader)) < 32 * 1024 * 1024

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def _grow(api, folder, batch, record, size):
    """Let a batch have results of about that size."""
    times = size // len(record)
    (folder / "state" / "batches" / batch / "results.jsonl").write_bytes(record * times)
    api.keeper.acknowledged = lambda _: len(record) * times


# F112: pages of other sites that call the API from a browser


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:8080", "192.0.2.1"])
async def test_f112_a_name_that_is_not_ours_is_refused(tmp_path, host):
    async with api_service(tmp_path) as api:
        for path in ("/", "/v1/batches", "/readyz", "/static/app.js"):
            assert status(await exchange(api.port, get(path, host=host))) == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "fetcher.example.org"])
async def test_f112_our_own_names_are_answered(tmp_path, host):
    async with api_service(tmp_path, hosts=["fetcher.example.org"]) as api:
        assert status(await exchange(api.port, get("/v1/batches", host=host))) == 200


@pytest.mark.parametrize(
    "fields",
    [["Host: localhost", "Host: evil.example"], [], ["Host:"], ["Host: a@localhost"], ["Host: localhost:port"]],
)
async def test_f112_a_request_says_once_and_well_whom_it_asks(tmp_path, fields):
    request = "\r\n".join(["GET /v1/batches HTTP/1.1", "Connection: close", *fields]) + "\r\n\r\n"
    async with api_service(tmp_path) as api:
        assert status(await exchange(api.port, request.encode())) == 400


async def test_f112_probes_may_use_any_name(tmp_path):
    async with api_service(tmp_path) as api:
        assert status(await exchange(api.port, get("/livez", host="10.0.0.7:8080"))) == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "https://localhost", "file://", "http://", ""]
)
async def test_f112_pages_of_other_origins_change_nothing(tmp_path, origin):
    async with api_service(tmp_path) as api:
        answer, fields, _ = await api.ask("POST", "/v1/batches", json=CONFIG, headers={"Origin": origin})
        assert answer == 403
        assert not any(name.lower().startswith("access-control-") for name in fields)
        assert api.keeper.list().batches == []


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
async def test_f112_requests_that_another_site_makes_a_browser_send_are_refused(tmp_path, site):
    async with api_service(tmp_path) as api:
        for path in ("/v1/batches", "/v1/events", "/static/app.js"):
            assert (await api.ask("GET", path, headers={"Sec-Fetch-Site": site}))[0] == 403
        form = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Content-Type": "text/plain"}
        assert (await api.ask("POST", "/v1/batches", data=b"http://127.0.0.1:9/", headers=form))[0] == 403
        framed = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
        assert (await api.ask("GET", "/", headers=framed))[0] == 403
        link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert (await api.ask("GET", "/", headers=link))[0] == 200


async def test_f112_our_own_page_may_do_everything(tmp_path):
    async with api_service(tmp_path, hosts=["fetcher.example.org"]) as api:
        ours = {"Origin": api.url, "Sec-Fetch-Site": "same-origin"}
        assert (await api.ask("POST", "/v1/batches", json=CONFIG, headers=ours))[0] == 201
        # A proxy in front of it speaks TLS, and says another Host.
        proxied = {"Origin": "https://fetcher.example.org", "Sec-Fetch-Site": "same-origin"}
        assert (await api.ask("POST", "/v1/batches", json=CONFIG, headers=proxied))[0] == 201


async def test_f112_there_is_no_cors(tmp_path):
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    async with api_service(tmp_path) as api:
        answer, fields, _ = await api.ask("OPTIONS", "/v1/batches", headers=preflight)
        assert answer in {403, 405}
        assert not any(name.lower().startswith("access-control-") for name in fields)


async def test_f112_no_page_may_frame_ours_or_guess_what_an_answer_is(tmp_path):
    async with api_service(tmp_path) as api:
        for path in ("/", "/docs", "/v1/batches", "/nothing", "/static/app.js"):
            _, fields, _ = await api.ask("GET", path)
            policy = fields["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert fields["X-Content-Type-Options"] == "nosniff"
            assert fields["Referrer-Policy"] == "no-referrer"
            assert fields["Cross-Origin-Resource-Policy"] == "same-origin"
            assert fields["Server"] == "fetcher"
