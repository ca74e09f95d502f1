from __future__ import annotations

import pytest

from fetcher.transports.http.origins import host_of, origin_and_target
from fetcher.transports.http.proxies.addresses import Exemptions, parse_proxy


@pytest.mark.parametrize(
    ("text", "shown", "credentials", "forwards"),
    [
        ("http://proxy:3128", "http://proxy:3128", ("", ""), True),
        ("http://proxy", "http://proxy", ("", ""), True),
        ("HTTPS://Proxy.Example.org/", "https://proxy.example.org", ("", ""), True),
        ("socks5://proxy", "socks5://proxy:1080", ("", ""), False),
        ("socks5h://u:p%40%3a@[::1]:99", "socks5h://[::1]:99", ("u", "p@:"), False),
        ("http://u@proxy", "http://proxy", ("u", ""), True),
    ],
)
def test_the_url_of_a_proxy(text, shown, credentials, forwards):
    address = parse_proxy(text)
    assert (address.shown, (address.username, address.password), address.forwards) == (shown, credentials, forwards)
    assert address.url.port is not None


def test_the_credentials_as_a_header():
    assert parse_proxy("http://proxy").headers == ()
    assert parse_proxy("http://Aladdin:open%20sesame@proxy").headers == (
        ("Proxy-Authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
    )
    assert "sesame" not in repr(parse_proxy("http://Aladdin:open%20sesame@proxy"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "proxy:3128",
        "ftp://u:secret@proxy",
        "http://",
        "http://u:secret@",
        "http://u:secret@proxy:port",
        "http://u:secret@proxy:70000",
        "http://u:sec/ret@proxy",
        "http://u:sec#ret@proxy",
        "http://u:sec?ret@proxy",
        "http://proxy/path",
        "http://[::1",
    ],
)
def test_what_is_no_url_of_a_proxy_is_not_quoted(text):
    with pytest.raises(ValueError, match="proxy") as caught:
        parse_proxy(text)
    assert "sec" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "covered", "not_covered"),
    [
        ("example.org", ["example.org", "a.example.org"], ["badexample.org", "example.com", "org"]),
        (".example.org", ["example.org", "a.b.example.org"], ["notexample.org"]),
        ("*.Example.org", ["a.example.org"], ["example.com"]),
        ("10.0.0.0/8", ["10.1.2.3"], ["11.0.0.1", "ten.test", "::1"]),
        ("127.0.0.1", ["127.0.0.1"], ["127.0.0.2", "localhost"]),
        ("[::1]", ["::1"], ["::2", "127.0.0.1"]),
        ("fe80::/10", ["fe80::1%eth0"], ["::1"]),
        ("*", ["a.test", "::1", "10.0.0.1"], []),
    ],
)
def test_what_needs_no_proxy(pattern, covered, not_covered):
    exempt = Exemptions(["unrelated.test", pattern])
    assert [host for host in covered if not exempt.cover(host)] == []
    assert [host for host in not_covered if exempt.cover(host)] == []


def test_nothing_is_exempt_by_itself():
    assert not Exemptions([]).cover("localhost")


@pytest.mark.parametrize("pattern", ["example.org:80", "10.0.0.0/99", "1.2.3", "http://example.org"])
def test_what_is_no_exemption(pattern):
    with pytest.raises(ValueError, match="no network"):
        Exemptions([pattern])


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("http://A.test", "a.test", "/"),
        ("https://a.test.:8443/x?y=1", "a.test", "/x?y=1"),
        ("http://[::1]:80/x", "::1", "/x"),
        ("http://a.test?q=/x", "a.test", "/?q=/x"),
    ],
)
def test_the_parts_of_a_url(url, host, target):
    assert (host_of(url), origin_and_target(url)[1]) == (host, target)
