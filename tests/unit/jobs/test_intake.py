from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.errors import ErrorKind
from fetcher.jobs.intake import (
    MAX_URL_LENGTH,
    RowError,
    check_headers,
    make_job,
    mask_userinfo,
    rejected_job,
)

AT_SIGNS = ["\uff20", "\ufe6b", "%40", "%ef%bc%a0", "%EF%B9%AB"]
"""What is no @ to a parser of URLs, but meant as one, or made one by who normalises the text."""


@pytest.mark.parametrize(
    ("url", "kept", "host"),
    [
        ("http://a.test/x%2Fy?q=%zz#part", "http://a.test/x%2Fy?q=%zz", "a.test"),
        ("https://A.Test:8443/", "https://A.Test:8443/", "a.test"),
        ("http://a.test.", "http://a.test.", "a.test"),
        ("http://bücher.test/ä", "http://xn--bcher-kva.test/%C3%A4", "xn--bcher-kva.test"),
        ("http://[::1]:80/", "http://[::1]/", "::1"),
        ("HTTP://a.test/", "http://a.test/", "a.test"),
        ("http://127.0.0.1:80/x%2Fy", "http://127.0.0.1:80/x%2Fy", "127.0.0.1"),
        ("http://127.0.0.1.:8080/", "http://127.0.0.1:8080/", "127.0.0.1"),
        ("http://0x7f.1:80/x%2Fy?q=%zz#part", "http://127.0.0.1:80/x%2Fy?q=%zz", "127.0.0.1"),
        ("https://2130706433", "https://127.0.0.1", "127.0.0.1"),
        ("http://user@0177.1:81/\u00e4", "http://127.0.0.1:81/%C3%A4", "127.0.0.1"),
        ("http://\uff11\uff12\uff17\u30021/", "http://127.0.0.1/", "127.0.0.1"),
        ("http://A.3com.:80/", "http://A.3com.:80/", "a.3com"),
    ],
)
def test_usable_urls(url, kept, host):
    job = make_job("1", url)
    assert job.rejected is None
    assert (job.url, job.host) == (kept, host)


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("", ErrorKind.INVALID_URL, "is empty"),
        ("a.test/x", ErrorKind.INVALID_URL, "has no scheme; write http:// or https:// before it"),
        (
            "gopher://a.test/",
            ErrorKind.UNSUPPORTED_SCHEME,
            "nothing here fetches gopher: URLs; it takes http:, https:, ws:, wss:, ftp:, ftps:, tcp:, tls:, udp:",
        ),
        ("http://", ErrorKind.INVALID_URL, None),
        ("http://a.test:0/", ErrorKind.INVALID_URL, None),
        ("http://a.test:65536/", ErrorKind.INVALID_URL, None),
        ("http://a.test/\r\nHost: b", ErrorKind.INVALID_URL, "contains a space or a control character"),
        ("http://a.test/\0", ErrorKind.INVALID_URL, "contains a space or a control character"),
        ("http://a.test/" + "x" * MAX_URL_LENGTH, ErrorKind.INVALID_URL, "longer than 65536 characters"),
        ("http://a..test/", ErrorKind.INVALID_URL, None),
        (
            "http://1.2.3.4.5/",
            ErrorKind.INVALID_URL,
            "its host '1.2.3.4.5' ends in a number, but has more than four parts",
        ),
        ("http://a.0x4/", ErrorKind.INVALID_URL, "its host 'a.0x4' ends in a number, but is no IPv4 address"),
        ("http://x@256.1/", ErrorKind.INVALID_URL, "its host '256.1' is a number too large for an IPv4 address"),
        (f"http://{'a' * 64}.test/", ErrorKind.INVALID_URL, None),
    ],
)
def test_unusable_urls(url, kind, message):
    rejected = make_job("1", url).rejected
    assert rejected.kind == kind
    assert rejected.message
    assert message in (None, rejected.message)


def test_digits_of_other_alphabets_are_no_port():
    job = make_job("1", "http://a.test:٨٠/")
    assert job.rejected is not None or job.url.isascii()


def test_credentials_move_into_a_header():
    job = make_job("1", "http://us%40er:p%3Aw@a.test/x")
    assert job.url == "http://a.test/x"
    assert job.headers == [("Authorization", "Basic dXNAZXI6cDp3")]


@pytest.mark.parametrize(
    "url",
    [
        "http://user:SECRET@a.test:99999/",
        "gopher://user:SECRET@a.test/",
        "tcp://SECRET@a.test:7/",
        "user:SECRET@a.test/x",
        "http://user:SE/CRET@a.test/",
        "http://user:p@SECRET@a b.test/",
        "http://user:SECRET@a\uff03b.test/",
        "http://user:SECRET@[::1/",
        "//user:SECRET@a.test/",
        *(f"http://user:SECRET{sign}a.test/" for sign in AT_SIGNS),
        *(f"http://SECRET{sign}a.test/" for sign in AT_SIGNS),
        *(f"user:SE/CRET{sign}a.test/" for sign in AT_SIGNS),
        "http://user:p@SECRET\uff20a.test/",
        "http://user:p%40SECRET\ufe6ba.test/",
    ],
)
def test_a_rejected_url_shows_no_password(url):
    job = make_job("1", url)
    assert job.rejected is not None
    shown = job.url + job.rejected.message
    assert "SECRET" not in shown
    assert "CRET" not in shown
    assert "***@" in shown


def test_an_at_sign_in_a_path_is_not_a_password():
    job = make_job("1", "http://a.test:80/mail to/x@y")
    assert job.url == "http://a.test:80/mail to/x@y"


def test_masking_is_bounded():
    job = rejected_job("1", "//a:b" * 1_000_000, RowError(ErrorKind.INVALID_ROW, "x"))
    assert len(job.url) <= 203


@given(st.text(max_size=80) | st.text(max_size=40).map("http://{}".format))
def test_any_text_gives_a_job_that_can_be_stored(url):
    job = make_job("1", url)
    assert msgspec.json.encode(job)
    assert job.rejected is not None or (job.host and job.url.isascii() and "\n" not in job.url)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "x\r\ny", "Content-Length", "transfer-encoding", 5])
def test_header_names_that_are_refused(name):
    with pytest.raises(RowError):
        check_headers({name: "x"})


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\0", "a\x1b[0m", "\ud800", 5, None])
def test_header_values_that_are_refused(value):
    with pytest.raises(RowError, match="'x'"):
        check_headers({"x": value})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:topsecret@host/x", "http://***@host/x"),
        ("//u:top/secret@host/", "//***@host/"),
        ("/go?to=http://u:p@host/", "/go?to=http://***@host/"),
        ("http://host/x", "http://host/x"),
        ("/mail@example.org", "/mail@example.org"),
        ("", ""),
    ],
)
def test_masking(text, shown):
    assert mask_userinfo(text) == shown


def test_masking_a_long_text_takes_no_long_time():
    text = "/@" + "//:a" * 100_000
    assert mask_userinfo(text) == text


@pytest.mark.parametrize(
    "text",
    ["//a:1/" * 50_000 + "/%40", "//" + "a:" * 130_000 + "/%40", "%40" * 90_000 + "/", "//" * 130_000 + "\uff20"],
)
def test_masking_at_signs_of_all_kinds_takes_time_by_the_length_alone(text):
    started = time.process_time()
    mask_userinfo(text)
    assert time.process_time() - started < 5.0


@pytest.mark.parametrize("text", ["http://a.test/x%40y", "http://a.test:80/x\uff20y", "/x%40y"])
def test_an_at_sign_of_a_path_stays(text):
    assert mask_userinfo(text) == text


@pytest.mark.parametrize("host", ["x%20y", "u@x%20y", "a|b", "a<b", "a%2eb"])
def test_a_host_is_not_escaped(host):
    rejected = make_job("1", f"http://{host}/").rejected
    assert rejected.kind is ErrorKind.INVALID_URL
    assert rejected.message.startswith("its host contains ")


@pytest.mark.parametrize("zone", ["%25eth0", "%eth0", "%251", "%25wlan-0.1"])
def test_an_ipv6_host_may_have_a_zone(zone):
    assert make_job("1", f"http://[fe80::1{zone}]/").rejected is None


@pytest.mark.parametrize(
    "host",
    [
        "a:b",
        ":",
        "::ffff:0x7f.1",
        "1:2:3:4:5:6:7:8:9",
        "::\uff11",
        "127.0.0.1:8080",
        "localhost:80",
        "v1.a:b",
        "::1%25\u00e9",
        "::1%",
        "::1%25a%2fb",
    ],
)
@pytest.mark.parametrize("around", ["http://{}/", "https://user@{}:81/\u00e4"])
def test_what_stands_in_brackets_is_ipv6(host, around):
    rejected = make_job("1", around.format(f"[{host}]")).rejected
    assert rejected is not None
    assert rejected.kind is ErrorKind.INVALID_URL
