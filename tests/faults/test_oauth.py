"""OAuth 2.0 as it goes wrong: token endpoints that are down, slow or strict, tokens that end, and where none appears.

That every run ends is F65 of the faults, that no secret is shown F107, and that a kill loses nothing F80.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import sys
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from raw_server import ok, raw_server
from servers.oauth import CLIENT, REFRESH, SECRET, OAuthServer, oauth_server
from transport_factories import failure, http_transport, job

from fetcher.errors import ConfigError, ErrorKind, FetchError, StateBusyError
from fetcher.model import Response
from fetcher.settings import BodySettings, RequestSettings
from fetcher.transports.http.credentials.tokens import Token
from fetcher.transports.http.transport import HttpConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from raw_server import Peer

    from fetcher.transports.http.transport import HttpTransport

JOBS = 1000
URLS = "".join(f"{{base}}/{n}\n" for n in range(JOBS))
CONFIG = """
name: tokens
sources: [urls.txt]
sinks: [out.jsonl]
{more}
http:
  auth:
    - hosts: [127.0.0.1]
      type: oauth2
      token_url: "{server.token_url}"
      client_id: client
      client_secret: {{file: secret.txt}}
      insecure: true
"""


def entry(server: OAuthServer, **fields: Any) -> dict[str, Any]:
    found = {"hosts": ["127.0.0.1"], "type": "oauth2", "token_url": server.token_url, "insecure": True}
    return found | {"client_id": CLIENT, "client_secret": SECRET} | fields


def opened(server: OAuthServer, *, request: dict[str, Any] | None = None, **fields: Any):
    """Open a transport that gets tokens of a server."""
    return http_transport("connection", auth=[entry(server, **fields)], request=request)


def refreshing(server: OAuthServer, **fields: Any) -> AbstractAsyncContextManager[HttpTransport]:
    return opened(server, grant="refresh_token", **{"refresh_token": REFRESH} | fields)


async def opening(server: OAuthServer, **fields: Any) -> None:
    """Open a transport that can not be, and close it as who opens one does."""
    auth = [entry(server, grant="refresh_token", refresh_token=REFRESH, **fields)]
    transport = HttpConfig.model_validate({"auth": auth}).build(RequestSettings(), BodySettings())
    try:
        await transport.open()
    finally:
        await transport.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("fetcher.transports.http.credentials.oauth.monotonic", lambda: now[0])
    return now


# A whole run


class Run:
    """``fetcher run`` as its own process, in a folder."""

    def __init__(self, folder: Path, server: OAuthServer, more: str = "") -> None:
        self.folder = folder
        (folder / "urls.txt").write_text(URLS.format(base=server.url("")))
        (folder / "secret.txt").write_text(f"{SECRET}\n")
        (folder / "tokens.yaml").write_text(CONFIG.format(server=server, more=more))
        self.shown = b""

    @asynccontextmanager
    async def begun(self, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
        command = [sys.executable, "-m", "fetcher", "run", "tokens.yaml", *options]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, cwd=self.folder, stdout=pipe, stderr=pipe)
        try:
            yield process
            async with asyncio.timeout(60):
                for shown in await process.communicate():
                    self.shown += shown
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def delayed(self) -> int:
        """Return how many jobs wait for their time, once nobody has the queue open."""
        with closing(sqlite3.connect(self.folder / "state" / "tokens.db")) as queue:
            return int(queue.execute("SELECT count(*) FROM delayed").fetchone()[0])

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "out.jsonl").read_text().splitlines()]

    def written(self) -> list[bytes]:
        """Everything that was said or written."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and path.name != "secret.txt"]
        return [self.shown, *(path.read_bytes() for path in files)]


async def test_f65_jobs_wait_for_a_token_endpoint_that_is_down_and_none_fails(tmp_path: Path):
    async with oauth_server() as server:
        server.failures += [(0, {}), (503, {})]
        run = Run(tmp_path, server)
        async with run.begun() as process:
            pass
        assert process.returncode == 0, run.shown
    assert {(record["outcome"], record["attempts"]) for record in run.records()} == {("ok", 1)}
    assert len(run.records()) == JOBS == server.served.total() == len(server.served)
    assert re.search(rb"\nretries +0 ", run.shown)
    # Each time it is asked once, whoever waits.
    assert (len(server.forms), server.refused) == (3, 0)
    # F107
    written = run.written()
    assert len(written) >= 4
    assert [content for content in written if b"secret-" in content or SECRET.encode() in content] == []


async def test_f80_a_kill_while_jobs_wait_for_a_token_loses_none(tmp_path: Path):
    async with oauth_server() as server:
        server.failures += [(503, {})] * 100
        run = Run(tmp_path, server)
        async with run.begun() as process:
            # At the second time, those that waited for the first are back in the queue, or in the window again.
            async with asyncio.timeout(30):
                for _ in range(2):
                    await server.asked.wait()
                    server.asked.clear()
            process.kill()
        assert run.delayed()
        server.failures.clear()
        async with run.begun() as process:
            pass
        assert process.returncode == 0, run.shown
    assert {(record["outcome"], record["attempts"]) for record in run.records()} == {("ok", 1)}
    assert len(run.records()) == JOBS == len(server.served)


async def test_f65_a_run_that_waits_for_a_token_ends_at_its_deadline_and_can_be_resumed(tmp_path: Path):
    async with oauth_server(up=False) as server:
        run = Run(tmp_path, server)
        async with run.begun("--deadline", "1s") as process:
            pass
        assert process.returncode == 75, run.shown
        assert b"1,000 jobs left; run the same command again" in run.shown
        assert run.records() == []


async def test_f65_a_token_endpoint_that_stays_down_fails_jobs_once_the_patience_is_over(tmp_path: Path):
    async with oauth_server(up=False) as server:
        run = Run(tmp_path, server, "max_failures: 100%")
        path = tmp_path / "tokens.yaml"
        path.write_text(f"{path.read_text()}      patience: 1s\n")
        async with run.begun() as process:
            pass
        assert process.returncode == 0, run.shown
    kinds = {(record["outcome"], record["error_kind"], record["attempts"]) for record in run.records()}
    assert kinds == {("failed", "auth_failed", 1)}
    assert len(run.records()) == JOBS
    assert "for longer than the patience of 1 s" in run.records()[0]["error_message"]


# The page

PAGE = (Path(__file__).parents[2] / "docs" / "api-jobs.md").read_text()


def example(name: str, server: OAuthServer) -> str:
    """Return a config of the page, for a server that is nearer than its own."""
    text = PAGE.partition(f"<!-- example: {name} -->\n```yaml\n")[2].partition("```")[0]
    assert "type: oauth2" in text
    text = text.replace("https://login.example.org/token", server.token_url)
    text = text.replace("https://api.example.org", server.url("")).replace("[api.example.org]", "[127.0.0.1]")
    return text.replace("type: oauth2", "type: oauth2\n      insecure: true").replace(
        "client_id: shop", f"client_id: {CLIENT}"
    )


async def run_example(
    name: str, server: OAuthServer, folder: Path, environ: dict[str, str] | None = None, *, fresh: bool = False
) -> None:
    (folder / "example.yaml").write_text(example(name, server))
    command = [sys.executable, "-m", "fetcher", "run", "example.yaml", *(["--fresh"] if fresh else [])]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stderr=pipe, env=os.environ | (environ or {}))
    async with asyncio.timeout(60):
        _, shown = await process.communicate()
    assert process.returncode == 0, shown


async def test_the_example_oauth(tmp_path: Path):
    async with oauth_server() as server:
        await run_example("oauth", server, tmp_path, {"SHOP_SECRET": SECRET})
        assert (len(server.served), server.forms[0]["scope"]) == (20, "orders.read")


async def test_the_example_refreshing(tmp_path: Path):
    (tmp_path / "refresh-token.txt").write_text(f"{REFRESH}\n")
    async with oauth_server() as server:
        server.public = server.rotates = True
        await run_example("refreshing", server, tmp_path)
        await run_example("refreshing", server, tmp_path, fresh=True)
        assert set(server.served.values()) == {2}
        assert [form["refresh_token"] for form in server.forms] == [REFRESH, "secret-refresh-1"]


# How often it is asked, and for how long


async def test_f65_probes_are_ever_rarer_and_end_with_the_patience(clock):
    async with oauth_server() as server:
        server.failures += [(503, {})] * 40
        pauses = []
        async with opened(server, patience="2m") as transport:
            wanted = job(server.url("/"))
            while (error := await failure(transport, wanted)).postpone is not None:
                assert error.kind is ErrorKind.AUTH_FAILED
                assert error.sent is False
                assert "answered 503" in error.message
                # Whoever comes meanwhile is told so at once.
                clock[0] += error.postpone / 2
                assert (await failure(transport, wanted)).postpone == pytest.approx(error.postpone / 2)
                pauses.append(round(error.postpone, 6))
                clock[0] += error.postpone / 2
            asked = len(server.forms)
            assert "for longer than the patience of 120 s" in error.message
            assert (await failure(transport, wanted)).postpone is None
            assert len(server.forms) == asked
            # It may be back at any time.
            server.failures.clear()
            clock[0] += 30.0
            assert (await transport.fetch(wanted)).status == 200
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 29]
    assert asked == len(pauses) + 1


@pytest.mark.parametrize(
    ("status", "said", "seconds"), [(429, "7", 7.0), (503, "90", 90.0), (429, "0", 1.0), (429, "x", 1.0)]
)
async def test_f60_a_token_endpoint_that_asks_to_be_left_alone_is(clock, status, said, seconds):
    async with oauth_server() as server, opened(server) as transport:
        server.failures.append((status, {"Retry-After": said}))
        assert (await failure(transport, job(server.url("/")))).postpone == seconds
        clock[0] += seconds
        assert (await transport.fetch(job(server.url("/")))).status == 200


async def test_f62_no_retry_after_of_a_token_endpoint_is_longer_than_the_patience(clock):
    async with oauth_server() as server, opened(server, patience="10s") as transport:
        server.failures.append((503, {"Retry-After": "9" * 400}))
        assert (await failure(transport, job(server.url("/")))).postpone == 10.0
        clock[0] += 10.0
        assert (await transport.fetch(job(server.url("/")))).status == 200


async def test_a_token_endpoint_where_nobody_listens_puts_jobs_off(clock):
    async with oauth_server(up=False) as server, opened(server) as transport:
        error = await failure(transport, job(server.url("/")))
        assert (error.kind, error.postpone) == (ErrorKind.AUTH_FAILED, 1.0)
        assert "the token endpoint 127.0.0.1 can not be reached: " in error.message
        await server.up()
        clock[0] += 1
        assert (await transport.fetch(job(server.url("/")))).status == 200


async def test_a_token_endpoint_that_the_guard_blocks_fails_jobs_at_once():
    guard = {"allow": ["127.0.0.2/32"]}
    async with oauth_server() as server, http_transport("connection", auth=[entry(server)], guard=guard) as transport:
        error = await failure(transport, job(server.url("/")))
    assert (error.kind, error.postpone, server.forms) == (ErrorKind.AUTH_FAILED, None, [])


async def test_credentials_that_are_refused_fail_jobs_at_once():
    async with oauth_server() as server, opened(server, client_secret="secret@wrong") as transport:
        for _ in range(3):
            error = await failure(transport, job(server.url("/")))
            assert (error.kind, error.postpone) == (ErrorKind.AUTH_FAILED, None)
            assert "refused: 401 invalid_client" in error.message
        assert len(server.forms) == 1


@pytest.mark.parametrize("auth", ["basic", "body"])
@pytest.mark.parametrize("echo", ["secret", "authorization", "piece", "refresh", "text"])
async def test_f107_a_token_endpoint_that_repeats_what_it_was_sent_is_not_quoted(auth: str, echo: str):
    secret = "geheim-0123456789-abcdefghijklmnop"

    async def script(peer: Peer) -> None:
        request = (await peer.request()).decode()
        said = re.search(r"\r\nauthorization: basic (\S+)", request, re.IGNORECASE)
        token = {
            "secret": secret,
            "authorization": (said[1] if said else secret).lower()[:40],
            "piece": "x_" + secret[4:14],
            "refresh": REFRESH,
            "text": "not good",
        }[echo]
        body = json.dumps({"error": token}).encode()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    async with raw_server(script) as server:
        fields = {"token_url": server.url("/token"), "client_secret": secret, "client_auth": auth}
        grant = {"grant": "refresh_token", "refresh_token": REFRESH}
        made = {"hosts": ["*"], "type": "oauth2", "client_id": "id", "insecure": True} | fields | grant
        async with http_transport("connection", auth=[made]) as transport:
            error = await failure(transport, job(server.url("/")))
    assert error.message == "the token endpoint 127.0.0.1 refused: 400"


async def test_f107_nor_is_one_that_is_no_http():
    secret = "geheim-0123456789-abcdefghijklmnop"

    async def script(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n" + request.partition(b"\r\n\r\n")[2][-58:] + b"\r\n\r\n")

    async with raw_server(script) as server:
        made = {"hosts": ["*"], "type": "oauth2", "client_id": "id", "insecure": True, "client_secret": secret}
        made |= {"token_url": server.url("/token"), "client_auth": "body"}
        async with http_transport("connection", auth=[made]) as transport:
            error = await failure(transport, job(server.url("/")))
    assert "not a header field" in error.message
    assert not any(secret[at : at + 6] in error.message for at in range(len(secret) - 5))


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"token_type": None, "expires_in": None}, None),
        ({"expires_in": ""}, None),
        ({"expires_in": "soon"}, None),
        ({"expires_in": "NaN", "refresh_token": None}, None),
        ({"expires_in": "3600"}, 3600.0),
        ({"expires_in": 0}, 0.0),
    ],
)
async def test_what_a_token_endpoint_leaves_empty_it_has_not_said(fields: dict[str, Any], seconds: float | None):
    body = json.dumps({"access_token": "t"} | fields).encode()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(ok(body))

    async with raw_server(script) as server:
        made = {"hosts": ["*"], "type": "oauth2", "client_id": "id", "insecure": True, "client_secret": "s"}
        async with http_transport("connection", auth=[made | {"token_url": server.url("/token")}]) as transport:
            assert (await transport.fetch(job(server.url("/")))).status == 200
    assert msgspec.json.decode(body, type=Token, strict=False).lifetime == seconds


async def test_f59_the_wait_for_a_token_is_not_charged_to_the_request():
    async with (
        oauth_server() as server,
        opened(server, request={"timeout": {"total": 0.2, "read": 0.2}}) as transport,
    ):
        server.delay = 0.6
        assert (await transport.fetch(job(server.url("/")))).status == 200


async def test_a_token_is_used_to_its_end_while_there_is_no_other(clock):
    async with oauth_server() as server, opened(server) as transport:
        server.expires_in = 600
        wanted = job(server.url("/"))
        await transport.fetch(wanted)
        server.failures += [(503, {})] * 4
        for elapsed in (550, 20, 20):
            clock[0] += elapsed
            assert (await transport.fetch(wanted)).status == 200
        clock[0] += 20
        assert (await failure(transport, wanted)).postpone is not None
        assert server.refused == 0


async def test_a_token_that_is_revoked_is_replaced_once_for_all_who_wait(clock):
    async with oauth_server() as server, opened(server) as transport:
        urls = [job(server.url(f"/{n}")) for n in range(50)]
        await transport.fetch(urls[0])
        clock[0] += 60
        server.revoke()
        server.delay = 0.05
        answers = await asyncio.gather(*map(transport.fetch, urls), return_exceptions=True)
        # One of those who waited goes on at once, and for the others it is as if they had not begun.
        waited = [answer for answer in answers if isinstance(answer, FetchError)]
        assert {error.postpone for error in waited} == {0.01}
        assert {answer.status for answer in answers if isinstance(answer, Response)} == {200}
        assert 0 < len(waited) < 50
        assert {(await transport.fetch(wanted)).status for wanted in urls} == {200}
        assert len(server.forms) == 2
        assert 1 <= server.refused <= 50


async def test_a_401_while_the_token_endpoint_is_down_puts_the_job_off(clock):
    async with oauth_server() as server, opened(server) as transport:
        await transport.fetch(job(server.url("/")))
        clock[0] += 60
        server.revoke()
        server.failures.append((500, {}))
        assert (await failure(transport, job(server.url("/")))).postpone == 1.0
        clock[0] += 1
        assert (await transport.fetch(job(server.url("/")))).status == 200


# Refresh tokens


async def test_a_refresh_token_gets_tokens_and_a_public_client_needs_no_secret():
    async with oauth_server() as server:
        server.public = True
        async with refreshing(server, client_secret=None, scope="read") as transport:
            assert (await transport.fetch(job(server.url("/")))).status == 200
        (form,) = server.forms
    expected = {"grant_type": "refresh_token", "refresh_token": REFRESH, "client_id": CLIENT, "scope": "read"}
    assert form == expected


async def test_a_refresh_token_that_is_replaced_is_kept_before_its_access_token_is_used(tmp_path: Path, clock):
    kept = tmp_path / "state" / "token"
    async with oauth_server() as server:
        server.rotates = True
        for expected in ("secret-refresh-1", "secret-refresh-2"):
            async with refreshing(server, keep=str(kept)) as transport:
                assert (await transport.fetch(job(server.url("/")))).status == 200
                assert json.loads(kept.read_bytes())["refresh_token"] == expected
                assert kept.stat().st_mode & 0o777 == 0o600
        async with refreshing(server, keep=str(kept)) as transport:
            for _ in range(3):
                clock[0] += 3600
                assert (await transport.fetch(job(server.url("/")))).status == 200
    used = [form["refresh_token"] for form in server.forms]
    assert used == [REFRESH, *(f"secret-refresh-{n}" for n in range(1, 5))]


async def test_without_keep_a_run_that_begins_again_has_the_old_refresh_token(clock):
    async with oauth_server() as server:
        server.rotates = True
        async with refreshing(server) as transport:
            for _ in range(2):
                clock[0] += 3600
                assert (await transport.fetch(job(server.url("/")))).status == 200
        async with refreshing(server) as transport:
            error = await failure(transport, job(server.url("/")))
    assert error.postpone is None
    assert "refused: 400 invalid_grant" in error.message


async def test_another_refresh_token_in_the_config_counts_more_than_the_one_that_is_kept(tmp_path: Path):
    keep = str(tmp_path / "token")
    async with oauth_server() as server:
        server.rotates = True
        async with refreshing(server, keep=keep) as transport:
            await transport.fetch(job(server.url("/")))
        server.refresh = "secret-refresh-new"
        async with refreshing(server, keep=keep, refresh_token="secret-refresh-new") as transport:
            assert (await transport.fetch(job(server.url("/")))).status == 200


async def test_a_refresh_token_that_can_not_be_kept_is_not_lost_and_jobs_wait(tmp_path: Path, clock):
    kept = tmp_path / "token"
    async with oauth_server() as server:
        server.rotates = True
        async with refreshing(server, keep=str(kept)) as transport:
            kept.mkdir()
            error = await failure(transport, job(server.url("/")))
            assert error.postpone == 1.0
            assert "a new refresh token can not be kept: " in error.message
            kept.rmdir()
            clock[0] += 1
            assert (await transport.fetch(job(server.url("/")))).status == 200
        assert json.loads(kept.read_bytes())["refresh_token"] == "secret-refresh-1"
        assert len(server.forms) == 1


async def test_closing_waits_for_a_refresh_token_that_is_on_its_way(tmp_path: Path):
    kept = tmp_path / "token"
    async with oauth_server() as server:
        server.rotates = True
        server.delay = 0.3
        async with refreshing(server, keep=str(kept)) as transport:
            fetching = asyncio.create_task(transport.fetch(job(server.url("/"))))
            while not server.forms:  # noqa: ASYNC110  no event to wait for
                await asyncio.sleep(0.01)
            fetching.cancel()
            await asyncio.wait([fetching])
    assert json.loads(kept.read_bytes())["refresh_token"] == "secret-refresh-1"


@pytest.mark.parametrize("content", [b"", b"secret-x", b"[]", b'{"refresh_token": 1}', b"\xff"])
async def test_a_file_that_holds_no_refresh_token_is_left_alone(tmp_path: Path, content):
    kept = tmp_path / "token"
    kept.write_bytes(content)
    async with oauth_server() as server:
        with pytest.raises(ConfigError, match="token: holds no refresh token") as caught:
            await opening(server, keep=str(kept))
    assert "secret" not in str(caught.value)
    assert kept.read_bytes() == content


async def test_a_pipe_keeps_no_refresh_token_and_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "token")
    async with oauth_server() as server, asyncio.timeout(10):
        with pytest.raises(ConfigError, match=r"can not keep a refresh token there: it is no regular file"):
            await opening(server, keep=str(tmp_path / "token"))


async def test_a_place_where_nothing_can_be_kept_is_told_at_once(tmp_path: Path):
    (tmp_path / "file").write_text("")
    async with oauth_server() as server:
        with pytest.raises(ConfigError, match="can not keep a refresh token there"):
            await opening(server, keep=str(tmp_path / "file" / "token"))


async def test_a_refresh_token_is_kept_by_one_run_at_a_time(tmp_path: Path):
    keep = str(tmp_path / "token")
    async with oauth_server() as server:
        async with refreshing(server, keep=keep):
            with pytest.raises(StateBusyError, match="another run uses this refresh token"):
                await opening(server, keep=keep)
        async with refreshing(server, keep=keep) as transport:
            assert (await transport.fetch(job(server.url("/")))).status == 200
