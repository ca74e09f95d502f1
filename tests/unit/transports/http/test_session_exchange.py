"""The transport's own steps, with ``exchange: session`` and every answer of aiohttp's client made up."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from typing import TYPE_CHECKING

import aiohttp
import pytest
from transport_factories import http_transport, job
from yarl import URL

from fetcher.errors import ErrorKind, FetchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aioresponses import aioresponses

    from fetcher.transports.http.transport import HttpTransport

PAGE = "http://a.test/page"


@pytest.fixture
async def transport(mocked: aioresponses) -> AsyncIterator[HttpTransport]:
    async with http_transport(
        "session", request={"max_redirects": 2}, body={"max_size": 100}, user_agent="me/1"
    ) as opened:
        yield opened


async def failure(transport: HttpTransport, **fields: object) -> FetchError:
    with pytest.raises(FetchError) as caught:
        await transport.fetch(job(PAGE, **fields))
    return caught.value


def asked(mocked: aioresponses, url: str = PAGE, method: str = "GET") -> dict[str, object]:
    """The keywords of the last request for a URL."""
    return mocked.requests[method, URL(url)][-1].kwargs


async def test_a_response(mocked, transport):
    mocked.get(PAGE, body=b"hello", content_type="text/plain", headers={"X-A": "1", "Content-Length": "5"})
    response = await transport.fetch(job(PAGE))
    assert (response.status, response.method, response.final_url) == (200, "GET", PAGE)
    assert (response.body, response.body_size, response.wire_size) == (b"hello", 5, 5)
    assert response.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert (response.content_type, response.content_length) == ("text/plain", 5)
    assert ("X-A", "1") in response.headers
    assert (response.truncated, response.redirects) == (False, [])


async def test_what_is_asked_for(mocked, transport):
    mocked.post(PAGE)
    await transport.fetch(job(PAGE, method="POST", body=b"data", headers=[("accept", "text/html")]))
    sent = asked(mocked, method="POST")
    assert sent["data"] == b"data"
    assert sent["allow_redirects"] is False
    assert sent["headers"] == [
        ("accept", "text/html"),
        ("User-Agent", "me/1"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ]


@pytest.mark.parametrize("status", [204, 404, 429, 500, 503])
async def test_a_status_is_an_answer_not_an_error(mocked, transport, status):
    mocked.get(PAGE, status=status)
    assert (await transport.fetch(job(PAGE))).status == status


@pytest.mark.parametrize("length", ["", "abc", "-1", "1.5", "\u0661"])
async def test_an_unusable_length_is_no_length(mocked, transport, length):
    mocked.get(PAGE, headers={"Content-Length": length})
    assert (await transport.fetch(job(PAGE))).content_length is None


async def test_redirects_are_followed_and_told(mocked, transport):
    mocked.get(PAGE, status=301, headers={"Location": "/two"})
    mocked.get("http://a.test/two", status=302, headers={"Location": "http://b.test/three"})
    mocked.get("http://b.test/three", body=b"here")
    response = await transport.fetch(job(PAGE, headers=[("Authorization", "x")]))
    assert (response.body, response.final_url) == (b"here", "http://b.test/three")
    assert [(hop.url, hop.status, hop.location) for hop in response.redirects] == [
        (PAGE, 301, "/two"),
        ("http://a.test/two", 302, "http://b.test/three"),
    ]
    assert ("Authorization", "x") in asked(mocked, "http://a.test/two")["headers"]
    assert ("Authorization", "x") not in asked(mocked, "http://b.test/three")["headers"]


async def test_a_loop_ends(mocked, transport):
    mocked.get(PAGE, status=302, headers={"Location": PAGE}, repeat=True)
    error = await failure(transport)
    assert (error.kind, error.status) == (ErrorKind.TOO_MANY_REDIRECTS, 302)
    assert error.message == f"more than 2 redirects, the last to {PAGE}"
    assert len(mocked.requests["GET", URL(PAGE)]) == 3


async def test_a_redirect_without_a_location_is_the_answer(mocked, transport):
    mocked.get(PAGE, status=302, body=b"where?")
    response = await transport.fetch(job(PAGE))
    assert (response.status, response.body) == (302, b"where?")


@pytest.mark.parametrize("status", [300, 305, 306])
async def test_other_statuses_are_not_followed(mocked, transport, status):
    mocked.get(PAGE, status=status, headers={"Location": "/two"})
    assert (await transport.fetch(job(PAGE))).status == status


async def test_a_bad_redirect_keeps_its_status(mocked, transport):
    mocked.get(PAGE, status=302, headers={"Location": "file:///etc/passwd"})
    error = await failure(transport)
    assert (error.kind, error.status) == (ErrorKind.BAD_REDIRECT, 302)


async def test_a_gzip_body(mocked, transport):
    packed = gzip.compress(b"x" * 100)
    mocked.get(PAGE, body=packed, headers={"Content-Encoding": "gzip"})
    response = await transport.fetch(job(PAGE))
    assert (response.body, response.body_size, response.wire_size) == (b"x" * 100, 100, len(packed))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (gzip.compress(b"x" * 101), ErrorKind.BODY_TOO_LARGE),
        (gzip.compress(b"x")[:-1], ErrorKind.BODY_INCOMPLETE),
        (b"no gzip", ErrorKind.BAD_ENCODING),
    ],
)
async def test_a_gzip_body_that_is_none(mocked, transport, body, kind):
    mocked.get(PAGE, body=body, headers={"Content-Encoding": "gzip"})
    assert (await failure(transport)).kind is kind


async def test_an_empty_body_needs_no_end_of_stream(mocked, transport):
    mocked.get(PAGE, headers={"Content-Encoding": "gzip"})
    assert (await transport.fetch(job(PAGE))).body == b""


async def test_a_coding_that_was_not_asked_for_is_kept(mocked, transport):
    mocked.get(PAGE, body=b"raw", headers={"Content-Encoding": "compress"})
    response = await transport.fetch(job(PAGE))
    assert (response.body, response.content_encoding) == (b"raw", "compress")


async def test_a_switch_of_protocols_is_refused(mocked, transport):
    mocked.get(PAGE, status=101)
    assert (await failure(transport)).kind is ErrorKind.BAD_HTTP


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (aiohttp.InvalidURL("x"), ErrorKind.INVALID_URL),
        (aiohttp.ClientPayloadError("x"), ErrorKind.BODY_INCOMPLETE),
        (aiohttp.ConnectionTimeoutError("x"), ErrorKind.CONNECT_TIMEOUT),
        (RuntimeError("x"), ErrorKind.INTERNAL),
    ],
)
async def test_errors_become_kinds(mocked, transport, raised, kind):
    mocked.get(PAGE, exception=raised)
    assert (await failure(transport)).kind is kind


async def test_a_cancellation_stays_one(mocked, transport):
    entered = asyncio.Event()

    async def wait(url: URL, **_: object) -> None:
        entered.set()
        await asyncio.Event().wait()

    mocked.get(PAGE, callback=wait)
    fetching = asyncio.create_task(transport.fetch(job(PAGE)))
    await entered.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching


async def test_a_timeout_of_the_job(mocked, transport):
    async def wait(url: URL, **_: object) -> None:
        await asyncio.Event().wait()

    mocked.get(PAGE, callback=wait)
    error = await failure(transport, timeout=0.05)
    assert (error.kind, error.message) == (ErrorKind.TOTAL_TIMEOUT, "took longer than 0.05 s in all")


async def test_a_transport_is_closed_twice_and_used_no_more(mocked):
    async with http_transport("session") as transport:
        await transport.close()
        with pytest.raises(RuntimeError, match="not open"):
            await transport.fetch(job(PAGE))
