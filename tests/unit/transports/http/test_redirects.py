from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from fetcher.errors import ErrorKind, FetchError
from fetcher.references import origin_of
from fetcher.settings import RequestSettings
from fetcher.transports.http.exchange import Hop
from fetcher.transports.http.redirects import (
    RedirectPolicy,
    follow,
    location_of,
    redirect_policy,
    shown_headers,
)

TIMEOUT = aiohttp.ClientTimeout()
SECRETS = ["Authorization", "COOKIE", "Proxy-Authorization"]


def hop(url: str = "http://a.test/dir/page?q=1", method: str = "GET", **fields: Any) -> Hop:
    return Hop(method, url, fields.get("headers", []), fields.get("body"), TIMEOUT)


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "GET", "GET"),
        (301, "POST", "GET"),
        (301, "PUT", "PUT"),
        (302, "POST", "GET"),
        (302, "DELETE", "DELETE"),
        (302, "HEAD", "HEAD"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
    ],
)
def test_methods_and_bodies(status, method, then):
    headers = [("Content-Type", "text/plain"), ("X-Other", "y")]
    following = follow(hop(method=method, body=b"x", headers=headers), status, "/next")
    assert following.method == then
    kept = (status != 303 or method == "HEAD") and then == method
    assert (following.body, following.headers) == ((b"x", headers) if kept else (None, headers[1:]))


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/x", "http://a.test/x"),
        ("x", "http://a.test/dir/x"),
        ("../x", "http://a.test/x"),
        ("?r=2", "http://a.test/dir/page?r=2"),
        ("", "http://a.test/dir/page?q=1"),
        ("#part", "http://a.test/dir/page?q=1"),
        ("//b.test/x", "http://b.test/x"),
        ("https://b.test:8443/x#part", "https://b.test:8443/x"),
        ("  /x ", "http://a.test/x"),
        ("/a=%61%2f+b?c=%2F", "http://a.test/a=%61%2f+b?c=%2F"),
        ("/a b", "http://a.test/a%20b"),
        ("/\u00e9", "http://a.test/%C3%A9"),
        ("http://b\u00fccher.test/", "http://xn--bcher-kva.test/"),
        ("/\udce9t\udce9", "http://a.test/%E9t%E9"),
    ],
)
def test_where_it_leads(location, target):
    assert follow(hop(), 302, location).url == target


@pytest.mark.parametrize(
    "location",
    [
        "javascript:alert(1)",
        "file:///etc/passwd",
        "data:text/html,x",
        "ftp://a.test/",
        "mailto:x@a.test",
        "http://[::1",
        "http://",
        "http:///x",
        "http:x",
        "http://a.test:99999/",
        "http://a..test/",
        "http://u@x%20y/",
        "http://x%20y/",
        "http://[a:b]/",
        "http://[::ffff:0x7f.1]/",
        "http://[127.0.0.1:8080]/",
        "//[127.0.0.1:8080]/\u00e9",
        "http://[::\uff11]/",
        "http://[::\udcef\udcbc\udc91]/",
        "http://[::1%25\u00e9]/",
        "http://" + "a" * 64 + ".test/",
    ],
)
def test_nowhere_to_go(location):
    with pytest.raises(FetchError) as caught:
        follow(hop(), 302, location)
    error = caught.value
    assert (error.kind, error.status) == (ErrorKind.BAD_REDIRECT, 302)
    assert error.message.startswith("points to ")
    assert error.message.encode()


def test_a_long_location_is_shown_in_part():
    with pytest.raises(FetchError) as caught:
        follow(hop(), 302, "ftp://a.test/" + "x" * 60_000)
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    ("location", "same"),
    [
        ("/x", True),
        ("http://a.test:80/x", True),
        ("http://A.test/x", True),
        ("https://a.test/x", False),
        ("http://a.test:81/x", False),
        ("http://www.a.test/x", False),
        ("//b.test/x", False),
    ],
)
def test_credentials_stay_with_their_origin(name, location, same):
    headers = [(name, "secret"), ("X-Other", "y")]
    following = follow(hop(headers=headers), 302, location)
    assert following.headers == (headers if same else headers[1:])


def test_the_url_of_the_job_is_known_after_any_number_of_redirects():
    away = follow(hop("http://a.test/x"), 302, "http://b.test/")
    assert (away.first, follow(away, 302, "/y").first) == ("http://a.test/x", "http://a.test/x")


def test_credentials_do_not_come_back():
    away = follow(hop(headers=[("Cookie", "a=b")]), 302, "http://b.test/")
    assert follow(away, 302, "http://a.test/").headers == []


def test_a_host_header_is_for_one_origin():
    headers = [("Host", "virtual.test")]
    assert follow(hop(headers=headers), 302, "/x").headers == headers
    assert follow(hop(headers=headers), 302, "http://b.test/").headers == []


@pytest.mark.parametrize(
    "location",
    [
        "ftp://u:topsecret@b.test/",
        "http://u:topsecret@[::1",
        "//u:topsecret@x%20y/",
        "http://u:topsecret\uff20b.test/",
        "//u:topsecret\ufe6bb.test/",
        "http://u:topsecret%40b.test/",
        "http://u:topsecret%EF%BC%A0b.test/",
        "http://u:topsecret\uff20b.test/\udce9",
    ],
)
def test_a_password_is_not_shown(location):
    """F107"""
    with pytest.raises(FetchError) as caught:
        follow(hop(), 302, location)
    assert "topsecret" not in caught.value.message
    assert "//***@" in caught.value.message


def test_secret_headers_go_as_credentials_go():
    policy = redirect_policy(RequestSettings.model_validate({"secret_headers": ["X-Key", "x-other"]}))
    sent = hop(headers=[("x-key", "1"), ("X-OTHER", "2"), ("X-Third", "3"), ("Cookie", "4")])
    assert follow(sent, 302, "/x", policy).headers == sent.headers
    assert follow(sent, 302, "http://b.test/", policy).headers == [("X-Third", "3")]


def test_the_policy_is_that_of_the_config():
    request = RequestSettings.model_validate({"max_redirects": 2, "downgrade": "refuse"})
    assert redirect_policy(request).most == 2
    assert redirect_policy(RequestSettings()) == RedirectPolicy()
    with pytest.raises(FetchError, match=r"request\.downgrade"):
        follow(hop("https://a.test/"), 302, "http://a.test/", redirect_policy(request))
    assert follow(hop("https://a.test/"), 302, "http://a.test/").url == "http://a.test/"
    assert follow(hop("http://a.test/"), 302, "https://a.test/", redirect_policy(request)).url == "https://a.test/"


@pytest.mark.parametrize(("referer", "kept"), [("http://u:p@a.test/", False), ("http://a.test/@x", True)])
def test_a_referer_with_a_password_stays(referer, kept):
    headers = [("Referer", referer)]
    assert follow(hop(headers=headers), 302, "/x").headers == headers
    assert follow(hop(headers=headers), 302, "//b.test/").headers == (headers if kept else [])


@pytest.mark.parametrize(
    ("value", "location"), [("/x", "/x"), ("/caf\u00c3\u00a9", "/caf\u00e9"), ("/caf\u00e9", "/caf\udce9")]
)
def test_a_location_is_read_as_utf8(value, location):
    assert location_of([("X", "y"), ("LOCATION", value)], 302) == location


def test_two_locations_are_one_if_they_are_equal():
    assert location_of([("Location", "/x"), ("location", "/x")], 302) == "/x"
    with pytest.raises(FetchError) as caught:
        location_of([("Location", "/x"), ("location", "/y")], 307)
    assert (caught.value.kind, caught.value.status) == (ErrorKind.BAD_REDIRECT, 307)


def test_passwords_of_locations_are_masked_in_headers():
    full_width = "//u:p\uff20a.test/".encode().decode("latin-1")
    headers = [("location", "http://u:p@a.test/"), ("X-Other", "u:p@x"), ("Location", "/a@b"), ("Location", full_width)]
    shown = [*zip(("location", "X-Other", "Location"), ("http://***@a.test/", "u:p@x", "/a@b"), strict=True)]
    shown.append(("Location", "//***@a.test/"))
    assert shown_headers(headers) == shown
    plain = [("Location", "/x"), ("From", "a@b")]
    assert shown_headers(plain) is plain


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://a.test", "http://a.test:80/x", True),
        ("https://a.test/", "https://A.TEST:443/", True),
        ("http://a.test/", "https://a.test/", False),
        ("http://a.test/", "http://a.test:8080/", False),
        ("http://[::1]/", "http://[::1]:80/", True),
    ],
)
def test_what_is_one_origin(one, other, same):
    assert (origin_of(one) == origin_of(other)) is same
