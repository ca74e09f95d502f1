"""What an attempt says about a host."""

from __future__ import annotations

import pytest

from fetcher.engine.hosts.signs import Sign, sign_of
from fetcher.engine.retry import Attempt
from fetcher.errors import ErrorKind


def sign(*, redirected=False, **fields):
    return sign_of(Attempt(number=1, age=0.0, method="GET", **fields), redirected=redirected)


@pytest.mark.parametrize(
    ("status", "retry_after", "expected"),
    [
        (404, None, Sign.ANSWERED),
        (500, None, Sign.ANSWERED),
        (502, None, Sign.ANSWERED),
        (504, None, Sign.ANSWERED),
        (503, None, Sign.PRESSED),
        (503, 0.0, Sign.REFUSED),
        (403, 9.0, Sign.REFUSED),
        (429, None, Sign.REFUSED),
        (429, 9.0, Sign.REFUSED),
    ],
)
def test_statuses(status, retry_after, expected):
    kind = ErrorKind.HTTP_5XX if status >= 500 else ErrorKind.HTTP_4XX
    assert sign(status=status, kind=kind, retry_after=retry_after) is expected
    assert sign(status=status, kind=kind, retry_after=retry_after, redirected=True) is expected


def test_a_host_that_redirected_has_answered_whatever_became_of_the_other():
    assert sign(kind=ErrorKind.CONNECTION_RESET, redirected=True) is Sign.ANSWERED
    assert sign(kind=ErrorKind.CONNECT_REFUSED, redirected=True) is Sign.ANSWERED


NAMED = {
    Sign.LOST: {"connect_timeout", "connection_reset", "server_disconnected", "read_timeout", "tls_timeout"},
    Sign.DOWN: {
        *("dns_not_found", "dns_failure", "connect_refused", "connect_failed", "tls_expired", "tls_self_signed"),
        *("tls_hostname", "tls_untrusted", "tls_protocol"),
    },
    Sign.ANSWERED: {
        *("bad_http", "not_http", "headers_too_large", "body_incomplete", "body_too_large", "bad_encoding"),
        *("checksum_mismatch", "bad_redirect", "too_many_redirects", "too_slow"),
        *("ftp_4xx", "ftp_5xx", "bad_answer", "unexpected", "bad_pagination"),
    },
    Sign.NOTHING: {
        *("invalid_url", "invalid_row", "unsupported_scheme", "proxy_unreachable", "proxy_auth", "proxy_refused"),
        *("http_3xx", "http_4xx", "http_5xx", "total_timeout", "deadline", "auth_failed", "blocked"),
        *("robots_disallowed", "robots_unreachable", "host_down", "stage_failed", "internal"),
    },
}


def test_every_kind_without_a_status_says_what_it_says():
    found = {name: set() for name in NAMED}
    for kind in ErrorKind:
        found[sign(kind=kind)].add(kind.value)
    assert found == NAMED


def test_a_failure_with_a_status_is_an_answer_unless_the_connection_was_lost():
    assert sign(kind=ErrorKind.TOTAL_TIMEOUT, status=200) is Sign.ANSWERED
    assert sign(kind=ErrorKind.CONNECTION_RESET, status=200) is Sign.LOST


@pytest.mark.parametrize("fields", [{"status": 200}, {"status": 202, "retry_after": 5.0}, {"status": 503}, {}])
def test_an_unexpected_answer_is_one_of_a_host_that_is_well(fields):
    assert sign(kind=ErrorKind.UNEXPECTED, **fields) is Sign.ANSWERED
