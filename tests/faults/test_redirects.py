"""F40 to F47: redirects, over real sockets; what counts is what arrived at the other server."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from raw_server import ok, raw_server
from sites import Site, redirect, status
from transport_factories import HTTP_EXCHANGES, http_transport, job

from fetcher.engine.worker import Worker
from fetcher.errors import ErrorKind, FetchError
from fetcher.jobs.intake import make_job
from fetcher.jobs.objects import job_from_mapping
from fetcher.model import Outcome, Redirect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fetcher.model import Result
    from fetcher.transports.http.transport import HttpTransport

RESOLVE = {"*.test": "127.0.0.1"}
STATUSES = (301, 302, 303, 307, 308)


@pytest.fixture(params=HTTP_EXCHANGES)
def exchange(request):
    return request.param


@asynccontextmanager
async def following(exchange: str, **sections: Any) -> AsyncIterator[HttpTransport]:
    async with http_transport(exchange, **{"resolve": RESOLVE, **sections}) as transport:
        yield transport


async def result(transport: HttpTransport, url: str, **fields: Any) -> Result:
    """Return the record of a job, as it would be written."""
    return (await Worker("batch", {"http": transport, "https": transport}, "GET").attempt(job(url, **fields), 0.0))[0]


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("a.test", "b.test").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    path: Path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


# F40


async def test_f40_a_loop_ends_with_its_history_in_the_record(exchange):
    site = Site({"/a": redirect("/b"), "/b": redirect("/a", 301)})
    async with raw_server(site) as server, following(exchange, request={"max_redirects": 3}) as transport:
        record = await result(transport, server.url("/a"))
        a, b = server.url("/a"), server.url("/b")
    assert (record.outcome, record.error_kind) == (Outcome.FAILED, ErrorKind.TOO_MANY_REDIRECTS)
    assert record.error_message == "more than 3 redirects, the last to /a"
    assert record.redirects == [Redirect(a, 302, "/b"), Redirect(b, 301, "/a"), Redirect(a, 302, "/b")]
    assert (record.status, record.final_url) == (301, b)
    assert site.paths == ["/a", "/b", "/a", "/b"]


@pytest.mark.parametrize("location", ["", "#there", "/a"])
async def test_f40_a_redirect_to_itself_ends(exchange, location):
    site = Site({"/a": redirect(location)})
    async with raw_server(site) as server, following(exchange) as transport:
        record = await result(transport, server.url("/a"))
    assert record.error_kind is ErrorKind.TOO_MANY_REDIRECTS
    assert site.paths == ["/a"] * 6


# F41


@pytest.mark.parametrize("most", [0, 1, 2, 7])
async def test_f41_n_means_exactly_n_hops(exchange, most):
    site = Site({f"/{n}": redirect(f"/{n - 1}") for n in range(1, 9)} | {"/0": ok(b"end")})
    async with raw_server(site) as server, following(exchange, request={"max_redirects": most}) as transport:
        enough = await result(transport, server.url(f"/{most}"))
        asked = len(site.requests)
        too_few = await result(transport, server.url(f"/{most + 1}"))
    assert (enough.outcome, enough.body, len(enough.redirects or ())) == (Outcome.OK, b"end", most)
    assert asked == most + 1
    assert len(site.requests) - asked == most + 1
    # Where none is to be followed, a redirect is an answer like any other.
    expected = ErrorKind.TOO_MANY_REDIRECTS if most else ErrorKind.HTTP_3XX
    assert (too_few.error_kind, too_few.status) == (expected, 302)


# F42


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "ftp://a.test/x",
        "data:text/html,x",
        "javascript:alert(1)",
        "mailto:x@a.test",
        "gopher://a.test/",
        "about:blank",
        "ws://a.test/",
        "a.test:80/x",
    ],
)
@pytest.mark.parametrize("code", [301, 307])
async def test_f42_a_redirect_to_another_scheme_is_refused(exchange, location, code):
    site = Site({"/x": redirect(location, code)})
    async with raw_server(site) as server, following(exchange) as transport:
        record = await result(transport, server.url("/x"))
    assert (record.outcome, record.error_kind, record.status) == (Outcome.FAILED, ErrorKind.BAD_REDIRECT, code)
    assert record.error_message is not None
    assert record.error_message.startswith("points to ")
    assert site.paths == ["/x"]


# F43


@pytest.mark.parametrize("code", STATUSES)
async def test_f43_without_a_location_the_redirect_is_the_answer(exchange, code):
    site = Site({"/x": status(code, body=b"where to?")})
    async with raw_server(site) as server, following(exchange) as transport:
        record = await result(transport, server.url("/x"))
    assert (record.error_kind, record.status, record.body) == (ErrorKind.HTTP_3XX, code, b"where to?")


@pytest.mark.parametrize("code", [300, 304, 305, 306, 399])
async def test_f43_other_3xx_are_not_followed(exchange, code):
    site = Site({"/x": redirect("/y", code)})
    async with raw_server(site) as server, following(exchange) as transport:
        record = await result(transport, server.url("/x"))
    assert (record.status, record.redirects) == (code, None)
    assert site.paths == ["/x"]


@pytest.mark.parametrize(
    "location",
    [
        "http://",
        "http:///x",
        "http://[::1",
        "http://a.test:99999/",
        "http://a.test:port/",
        "http://a..test/",
        "http://x%20y/",
        "http://a b/",
        b"http://\xff\xfe/",
        "http://" + "a" * 64 + ".test/",
        "http:\\\\b.test\\x",
    ],
)
async def test_f43_garbage_is_a_typed_failure_with_the_status(exchange, location):
    site = Site({"/x": redirect(location)})
    async with raw_server(site) as server, following(exchange) as transport:
        record = await result(transport, server.url("/x"))
    assert (record.error_kind, record.status) == (ErrorKind.BAD_REDIRECT, 302)
    assert site.paths == ["/x"]


async def test_f43_backslashes_lead_to_no_other_host(exchange):
    """A browser reads them as slashes; to RFC 3986 they are no part of a URL, and here of a path."""
    site = Site({"/x": redirect("\\\\b.test\\y")})
    async with raw_server(site) as server, following(exchange) as transport:
        record = await result(transport, server.url("/x"))
    assert record.outcome is Outcome.OK
    assert site.paths == ["/x", "/%5C%5Cb.test%5Cy"]


async def test_f43_two_different_locations_are_none(exchange):
    site = Site({"/x": redirect("/y", 302, "Location: /z"), "/same": redirect("/y", 302, "location: /y")})
    async with raw_server(site) as server, following(exchange) as transport:
        record = await result(transport, server.url("/x"))
        same = await result(transport, server.url("/same"))
    assert (record.error_kind, record.status) == (ErrorKind.BAD_REDIRECT, 302)
    assert record.error_message == "points to several places at once"
    assert same.outcome is Outcome.OK
    assert site.paths == ["/x", "/same", "/y"]


# F44


@pytest.mark.parametrize(
    ("location", "path"),
    [
        (b"/caf\xc3\xa9", "/caf%C3%A9"),
        (b"/caf\xe9", "/caf%E9"),
        (b"/a b?c d", "/a%20b?c%20d"),
        (b"/%61%2F?q=%2f+", "/%61%2F?q=%2f+"),
        (b"/a\\b", "/a%5Cb"),
        (b'/a"<>^`{|}', "/a%22%3C%3E%5E%60%7B%7C%7D"),
        (b"/a%zz%", "/a%zz%"),
        (b"/a\tb", "/a%09b"),
        (b"/x#caf\xc3\xa9", "/x"),
    ],
)  # fmt: skip
async def test_f44_raw_bytes_arrive_as_they_were_meant(exchange, location, path):
    site = Site({"/x": redirect(location)}) if path != "/x" else Site({"/start": redirect(location)})
    start = next(iter(site.answers))
    async with raw_server(site) as server, following(exchange) as transport:
        record = await result(transport, server.url(start))
    assert record.outcome is Outcome.OK, record.error_message
    assert site.paths == [start, path]


async def test_f44_a_host_in_another_alphabet_is_asked_by_its_ascii_name(exchange):
    site = Site()
    async with raw_server(site) as server, following(exchange) as transport:
        site.answers = {"/x": redirect(f"http://b\u00fccher.test:{server.port}/y".encode())}
        record = await result(transport, server.url("/x"))
    assert record.final_url == f"http://xn--bcher-kva.test:{server.port}/y"
    assert site.fields("/y")["host"] == f"xn--bcher-kva.test:{server.port}"


# F45

_SENT = {"headers": [("Content-Type", "text/plain"), ("Content-Language", "en"), ("X-Other", "y")], "body": b"abc"}
MATRIX = [
    ("GET", dict.fromkeys(STATUSES, "GET")),
    ("HEAD", dict.fromkeys(STATUSES, "HEAD")),
    ("POST", {301: "GET", 302: "GET", 303: "GET", 307: "POST", 308: "POST"}),
    ("PUT", {301: "PUT", 302: "PUT", 303: "GET", 307: "PUT", 308: "PUT"}),
    ("PATCH", {301: "PATCH", 302: "PATCH", 303: "GET", 307: "PATCH", 308: "PATCH"}),
    ("DELETE", {301: "DELETE", 302: "DELETE", 303: "GET", 307: "DELETE", 308: "DELETE"}),
]


@pytest.mark.parametrize(
    ("method", "code", "then"), [(method, code, then) for method, row in MATRIX for code, then in row.items()]
)
async def test_f45_method_and_body_after_a_redirect(exchange, method, code, then):
    site = Site({"/x": redirect("/y", code), "/y": status(204)})
    sent: dict[str, Any] = {} if method in {"GET", "HEAD"} else _SENT
    async with raw_server(site) as server, following(exchange) as transport:
        record = await result(transport, server.url("/x"), method=method, **sent)
    head, _, body = site.requests[-1].partition(b"\r\n\r\n")
    assert (record.status, record.method) == (204, then)
    assert head.startswith(f"{then} /y ".encode())
    fields = site.fields("/y")
    if method == then and sent:
        assert (body, fields["content-type"], fields["content-language"]) == (b"abc", "text/plain", "en")
    else:
        assert body == b""
        assert {"content-type", "content-language", "content-length", "transfer-encoding"}.isdisjoint(fields)
    assert fields.get("x-other") == ("y" if sent else None)


async def test_f45_a_body_is_sent_again_at_every_hop_and_elsewhere(exchange):
    here, there = Site(), Site({"/b": redirect("/c", 308), "/c": ok(b"done")})
    async with raw_server(here) as one, raw_server(there) as other, following(exchange) as transport:
        here.answers = {"/a": redirect(other.url("/b", "b.test"), 307)}
        record = await result(transport, one.url("/a", "a.test"), method="POST", **_SENT)
    assert record.body == b"done"
    assert [request.partition(b"\r\n\r\n")[2] for request in here.requests + there.requests] == [b"abc"] * 3


async def test_f45_a_page_that_refreshes_itself_is_a_page(exchange):
    page = b'<meta http-equiv="refresh" content="0; url=/y">'
    site = Site({"/x": ok(page, "Refresh: 0; url=/y")})
    async with raw_server(site) as server, following(exchange) as transport:
        record = await result(transport, server.url("/x"))
    assert (record.outcome, record.body, site.paths) == (Outcome.OK, page, ["/x"])


# F46


async def test_f46_https_to_http_is_followed_without_credentials(exchange, tls, ca_file):
    here, there = Site(), Site()
    headers = [("Authorization", "Basic c2VjcmV0"), ("Cookie", "a=b"), ("X-Key", "secret"), ("X-Other", "y")]
    async with (
        raw_server(here, tls=tls) as one,
        raw_server(there) as other,
        following(exchange, request={"secret_headers": ["x-key"]}, tls={"ca_file": ca_file}) as transport,
    ):
        here.answers = {"/x": redirect(other.url("/y", "a.test"))}
        record = await result(transport, one.url("/x", "a.test"), headers=headers)
    assert record.outcome is Outcome.OK
    assert here.fields("/x")["authorization"] == "Basic c2VjcmV0"
    fields = there.fields("/y")
    assert {"authorization", "cookie", "x-key"}.isdisjoint(fields)
    assert fields["x-other"] == "y"


async def test_f46_or_refused_before_anything_is_sent(exchange, tls, ca_file):
    here, there = Site(), Site()
    async with (
        raw_server(here, tls=tls) as one,
        raw_server(there) as other,
        following(exchange, request={"downgrade": "refuse"}, tls={"ca_file": ca_file}) as transport,
    ):
        here.answers = {
            "/x": redirect(other.url("/y", "a.test"), 308),
            "/s": redirect(one.url("/t", "b.test")),
        }
        record = await result(transport, one.url("/x", "a.test"))
        secure = await result(transport, one.url("/s", "a.test"))
    assert (record.error_kind, record.status) == (ErrorKind.BAD_REDIRECT, 308)
    assert "request.downgrade: refuse" in (record.error_message or "")
    assert other.connections == 0
    assert secure.outcome is Outcome.OK


async def test_f46_refusing_is_about_https_alone(exchange):
    site = Site({"/x": redirect("/y")})
    async with raw_server(site) as server, following(exchange, request={"downgrade": "refuse"}) as transport:
        assert (await result(transport, server.url("/x"))).outcome is Outcome.OK


# F47

SECRETS = [
    ("Authorization", "Basic c2VjcmV0"),
    ("cookie", "a=b"),
    ("Proxy-Authorization", "Basic c2VjcmV0"),
    ("X-Api-Key", "secret"),
]


@pytest.mark.parametrize("code", STATUSES)
async def test_f47_secrets_do_not_go_to_another_origin_nor_back(exchange, code):
    here, there = Site({"/end": ok(b"end")}), Site()
    request = {"secret_headers": ["x-api-key", "X-Token"], "headers": {"x-token": "secret"}}
    async with (
        raw_server(here) as one,
        raw_server(there) as other,
        following(exchange, request=request) as transport,
    ):
        here.answers["/x"] = redirect("/same", code)
        here.answers["/same"] = redirect(other.url("/away", "b.test"), code)
        there.answers["/away"] = redirect(one.url("/end", "a.test"), code)
        record = await result(transport, one.url("/x", "a.test"), headers=[*SECRETS, ("X-Other", "y")])
    assert (record.outcome, record.body) == (Outcome.OK, b"end")
    names = {name.lower() for name, _ in SECRETS} | {"x-token"}
    for path in ("/x", "/same"):
        assert names <= set(here.fields(path))
    for fields in (there.fields("/away"), here.fields("/end")):
        assert names.isdisjoint(fields)
        assert fields["x-other"] == "y"
    assert b"c2VjcmV0" not in there.requests[0]


async def test_f47_another_port_or_name_is_another_origin(exchange):
    here, there = Site(), Site()
    async with raw_server(here) as one, raw_server(there) as other, following(exchange) as transport:
        here.answers = {
            "/port": redirect(other.url("/y", "a.test")),
            "/name": redirect(one.url("/y", "www.a.test")),
            "/case": redirect(one.url("/z", "A.TEST")),
        }
        for path in ("/port", "/name", "/case"):
            await result(transport, one.url(path, "a.test"), headers=SECRETS[:3])
    assert "authorization" not in there.fields("/y")
    assert "authorization" not in here.fields("/y")
    assert "authorization" in here.fields("/z")


async def test_f47_a_host_header_of_ones_own_stays_with_its_origin(exchange):
    here, there = Site(), Site()
    async with raw_server(here) as one, raw_server(there) as other, following(exchange) as transport:
        here.answers = {"/x": redirect("/y"), "/y": redirect(other.url("/z", "b.test"))}
        await result(transport, one.url("/x", "a.test"), headers=[("Host", "virtual.test")])
    assert [here.fields(path)["host"] for path in ("/x", "/y")] == ["virtual.test"] * 2
    assert there.fields("/z")["host"] == f"b.test:{other.port}"


async def test_f47_no_referer_is_made_and_none_with_a_password_goes_on(exchange):
    here, there = Site(), Site()
    async with raw_server(here) as one, raw_server(there) as other, following(exchange) as transport:
        here.answers = {"/x": redirect(other.url("/y", "b.test"))}
        url = one.url("/x", "a.test").replace("//", "//user:topsecret@")
        assert (await transport.fetch(make_job("1", url))).status == 200
        assert "referer" not in there.fields("/y")
        for referer, kept in (("http://u:topsecret@a.test/", False), ("http://a.test/p?q=@", True)):
            await result(transport, one.url("/x", "a.test"), headers=[("Referer", referer)])
            assert there.fields("/y").get("referer") == (referer if kept else None)
    assert b"topsecret" not in b"".join(there.requests)


async def test_f47_the_password_of_a_url_goes_to_its_own_origin_only(exchange):
    here, there = Site(), Site()
    async with raw_server(here) as one, raw_server(there) as other, following(exchange) as transport:
        here.answers = {"/x": redirect("/y"), "/y": redirect(other.url("/z", "b.test"))}
        url = one.url("/x", "a.test").replace("//", "//user:topsecret@")
        assert (await transport.fetch(job_from_mapping("1", {"url": url}))).status == 200
    assert here.fields("/x")["authorization"] == here.fields("/y")["authorization"] == "Basic dXNlcjp0b3BzZWNyZXQ="
    assert "authorization" not in there.fields("/z")


async def test_f47_a_password_in_a_location_makes_nobody_log_in_and_is_in_no_record(exchange):
    here, there = Site(), Site()
    async with raw_server(here) as one, raw_server(there) as other, following(exchange) as transport:
        with_password = other.url("/y", "b.test").replace("//", "//user:topsecret@")
        here.answers = {
            "/away": redirect(with_password),
            "/here": redirect(one.url("/y", "a.test").replace("//", "//other:topsecret@")),
            "/201": status(201, f"Location: {with_password}"),
            "/200": ok(b"", f"Location: {with_password}"),
            "/bad": redirect("ftp://user:topsecret@b.test/"),
            "/loop": redirect(one.url("/loop", "a.test").replace("//", "//user:topsecret@")),
        }
        records = [await result(transport, one.url(path, "a.test"), headers=SECRETS[:1]) for path in list(here.answers)]
    async with raw_server(here) as one, following(exchange, request={"max_redirects": 0}) as transport:
        records.append(await result(transport, one.url("/away", "a.test")))
    assert "authorization" not in there.fields("/y")
    assert here.fields("/y")["authorization"] == SECRETS[0][1]
    assert not any("topsecret" in repr(record) for record in records)
    located = [dict(record.headers or ()).get("Location", "") for record in records]
    assert located[2] == located[3] == f"http://***@b.test:{other.port}/y"
    assert located[-1] == f"http://***@b.test:{other.port}/y"


async def test_f47_the_failure_on_another_origin_names_no_password(exchange):
    here = Site()
    async with raw_server(here) as one, following(exchange) as transport:
        here.answers = {"/x": redirect("http://user:topsecret@[::1")}
        with pytest.raises(FetchError) as caught:
            await transport.fetch(job(one.url("/x", "a.test")))
    assert "topsecret" not in repr((caught.value.message, caught.value.response, caught.value.redirects))
