"""One session that several transports share: what they have in common, and what none learns of another."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from certificates import serving, write_authority
from raw_server import ok, raw_server, refusing_port
from transport_factories import HTTP_EXCHANGES, failure, job

from fetcher.errors import ConfigError, ErrorKind
from fetcher.settings import BodySettings, RequestSettings
from fetcher.transports.http.transport import HttpConfig, HttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from raw_server import Peer, Script

    from fetcher.transports.http.session import HttpSession

RESOLVE = {"*.test": "127.0.0.1"}


@pytest.fixture(params=HTTP_EXCHANGES)
def opened(request: pytest.FixtureRequest) -> Any:
    """A function that opens a session with the given keys of ``http``."""

    @asynccontextmanager
    async def make(**http: Any) -> AsyncIterator[HttpSession]:
        session = HttpConfig.model_validate({"exchange": request.param, "resolve": RESOLVE} | http).session()
        await session.open()
        try:
            yield session
        finally:
            await session.close()

    return make


@asynccontextmanager
async def batch(session: HttpSession | None, **http: Any) -> AsyncIterator[HttpTransport]:
    """Open a transport of a batch; the keywords are keys of its ``http``."""
    headers = http.pop("headers", {})
    config = HttpConfig.model_validate(http)
    transport = config.build(RequestSettings(headers=headers), BodySettings(), session)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


class Seen(list[dict[str, str]]):
    """The header fields of each request, by their names in lower case."""

    def all_of(self, name: str) -> list[str | None]:
        return [fields.get(name) for fields in self]


def noting(seen: Seen, answer: bytes) -> Script:
    async def script(peer: Peer) -> None:
        while True:
            lines = (await peer.request()).decode("latin-1").split("\r\n")[1:]
            seen.append({name.lower(): value for name, _, value in (line.partition(": ") for line in lines)})
            await peer.send(answer)

    return script


async def test_transports_use_each_others_connections(opened):
    seen = Seen()
    async with (
        raw_server(noting(seen, ok())) as server,
        opened() as session,
        batch(session, user_agent="one/1", headers={"x-one": "1"}) as one,
        batch(session, user_agent="two/1") as two,
    ):
        for transport in (one, two, one, two):
            await transport.fetch(job(server.url()))
        assert server.connections == 1
    assert seen.all_of("user-agent") == ["one/1", "two/1"] * 2
    assert seen.all_of("x-one") == ["1", None] * 2


async def test_transports_without_a_session_have_connections_of_their_own():
    async with raw_server(noting(Seen(), ok())) as server, batch(None) as one, batch(None) as two:
        for transport in (one, two, one, two):
            await transport.fetch(job(server.url()))
        assert server.connections == 2


async def test_a_session_outlives_its_transports(opened):
    came, go = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            if b"/slow" in await peer.request():
                came.set()
                await go.wait()
            await peer.send(ok())

    async with raw_server(script) as server, opened() as session, batch(session) as staying:
        async with batch(session) as leaving:
            await leaving.fetch(job(server.url()))
            slow = asyncio.create_task(staying.fetch(job(server.url("/slow"))))
            await came.wait()
        go.set()
        assert (await slow).status == 200
        async with batch(session) as coming:
            assert (await coming.fetch(job(server.url()))).status == 200
        assert server.connections == 1


async def test_a_transport_closes_the_session_that_is_its_own():
    gone = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await peer.gone()
        gone.set()

    async with raw_server(script) as server:
        async with batch(None) as transport:
            await transport.fetch(job(server.url()))
            assert not gone.is_set()
        await gone.wait()


async def test_cookies_and_credentials_of_one_are_not_sent_by_another(opened, tmp_path):
    authority, seen = trustme.CA(), Seen()
    context = serving(authority.issue_cert("a.test"))
    auth = [{"hosts": ["a.test"], "type": "basic", "username": "me", "password": "secret"}]
    async with (
        raw_server(noting(seen, ok(b"", "Set-Cookie: mine=1")), tls=context) as server,
        opened(tls={"ca_file": write_authority(authority, tmp_path)}) as session,
        batch(session, cookies=True, auth=auth) as known,
        batch(session) as anonymous,
        batch(session, cookies=True) as other,
    ):
        for transport in (known, known, anonymous, other):
            await transport.fetch(job(server.url(host="a.test")))
        assert server.connections == 1
    assert seen.all_of("cookie") == [None, "mine=1", None, None]
    assert [value is not None for value in seen.all_of("authorization")] == [True, True, False, False]


async def test_a_connection_that_was_not_verified_is_none_for_who_verifies(opened):
    context = serving(trustme.CA().issue_cert("a.test"))
    async with (
        raw_server(noting(Seen(), ok()), tls=context) as server,
        opened() as session,
        batch(session) as careless,
        batch(session, tls={"verify": False}) as careful,  # what a transport says of connections does not count
    ):
        url = server.url(host="a.test")
        assert (await careless.fetch(job(url, verify=False))).verified is False
        assert (await failure(careful, job(url))).kind is ErrorKind.TLS_UNTRUSTED
        assert (await careful.fetch(job(url, verify=False))).verified is False
        assert server.connections == 1  # for both that verify nothing; the one that was refused is none


async def test_the_certificate_that_is_shown_is_the_sessions(opened, tmp_path):
    authority = trustme.CA()
    context = serving(authority.issue_cert("a.test"))
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    own = tmp_path / "own.pem"
    authority.issue_cert("me.test").private_key_and_cert_chain_pem.write_to_path(own)
    tls = {"ca_file": write_authority(authority, tmp_path), "client_cert": str(own)}
    async with (
        raw_server(noting(Seen(), ok()), tls=context) as server,
        opened(tls=tls) as session,
        batch(session) as transport,
    ):
        assert session.shows_certificate
        assert (await transport.fetch(job(server.url(host="a.test")))).status == 200


async def test_the_guard_is_the_sessions(opened):
    async with (
        raw_server(noting(Seen(), ok())) as server,
        opened(guard=True) as session,
        batch(session, guard=False) as transport,
    ):
        assert (await failure(transport, job(server.url()))).kind is ErrorKind.BLOCKED
        assert server.connections == 0


async def test_proxies_and_how_they_do_are_the_sessions(opened):
    seen = Seen()
    with refusing_port() as dead:
        async with (
            raw_server(noting(seen, ok())) as proxy,
            opened(proxy=[f"http://127.0.0.1:{dead}", proxy.url("")]) as session,
            batch(session) as one,
            batch(session) as two,
        ):
            answers = [await transport.fetch(job("http://a.test/")) for transport in (one, two)]
            (dead_one, _) = session.proxies.rotation("http", "a.test").proxies
            assert dead_one.failures == 1  # the second did not have to find out by itself
            assert proxy.connections == 1
    assert [answer.proxy for answer in answers] == [proxy.url("")] * 2


async def test_a_session_has_to_be_open():
    session = HttpConfig().session()
    with pytest.raises(RuntimeError, match="the session is not open"):
        await HttpConfig().build(RequestSettings(), BodySettings(), session).open()
    with pytest.raises(RuntimeError, match="the session is not open"):
        _ = session.connector


async def test_a_session_may_be_closed_twice_and_opened_again(opened):
    async with raw_server(noting(Seen(), ok())) as server, opened() as session:
        await session.close()
        await session.close()
        await session.open()
        async with batch(session) as transport:
            assert (await transport.fetch(job(server.url()))).status == 200


async def test_files_of_tls_are_opened_with_the_session(opened, tmp_path):
    with pytest.raises(ConfigError, match=r"^http\.tls\.ca_file .*none\.pem' can not be used: no such file"):
        async with opened(tls={"ca_file": str(tmp_path / "none.pem")}):
            pytest.fail("it was opened")
