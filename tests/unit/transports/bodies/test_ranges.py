from __future__ import annotations

from typing import NamedTuple

import msgspec
import pytest
from aiohttp import ClientTimeout
from multidict import CIMultiDict

from fetcher.transports.bodies.ranges import Partial, beginning, continued, may_resume, range_headers
from fetcher.transports.http.exchange import Hop

URL = "http://a.test/"


class Head(NamedTuple):
    status: int
    fields: CIMultiDict[str]


def head(status: int = 206, **fields: str) -> Head:
    return Head(status, CIMultiDict({name.replace("_", "-"): value for name, value in fields.items()}))


def partial(size: int = 10, total: int | None = 100) -> Partial:
    return Partial(URL, '"v1"', total, size)


@pytest.mark.parametrize(
    ("size", "total", "offset"),
    # What may be whole already asks for its last byte again, so that the answer says whether it still is the same.
    [(10, 100, 10), (99, 100, 99), (100, 100, 99), (10, None, 9), (1, None, 0)],
)
def test_goes_on_where_it_stopped(size, total, offset):
    assert range_headers(partial(size, total)) == [("Range", f"bytes={offset}-"), ("If-Range", '"v1"')]


@pytest.mark.parametrize(
    ("method", "body", "headers", "may"),
    [
        ("GET", None, [("A", "b")], True),
        ("HEAD", None, [], False),
        ("POST", b"", [], False),
        ("GET", b"x", [], False),
        ("GET", None, [("RANGE", "bytes=0-1")], False),
        ("GET", None, [("If-Range", '"a"')], False),
    ],
)
def test_only_a_plain_get_comes_in_parts(method, body, headers, may):
    assert may_resume(Hop(method, URL, headers, body, ClientTimeout())) is may


@pytest.mark.parametrize(
    ("fields", "known"),
    [
        ({"ETag": '"v1"', "Content_Length": "100"}, ('"v1"', 100)),
        ({"ETag": ' "v1" '}, ('"v1"', None)),
        ({"ETag": '"v1"', "Content_Length": "9" * 19}, ('"v1"', None)),
        ({"ETag": 'W/"v1"'}, None),
        ({"ETag": "v1"}, None),
        ({"ETag": '"\udcff"'}, None),
        ({"ETag": '"v1"', "Content_Encoding": "gzip"}, None),
        ({"ETag": '"v1"', "Accept_Ranges": "None"}, None),
        ({"Last_Modified": "Wed, 01 Jan 2025 00:00:00 GMT"}, None),
        (
            {"Last_Modified": "Wed, 01 Jan 2025 00:00:00 GMT", "Date": "Wed, 01 Jan 2025 00:01:00 GMT"},
            ("Wed, 01 Jan 2025 00:00:00 GMT", None),
        ),
        ({"Last_Modified": "Wed, 01 Jan 2025 00:00:00 GMT", "Date": "Wed, 01 Jan 2025 00:00:59 GMT"}, None),
        ({"Last_Modified": "Wed, 01 Jan 2025 00:00:00", "Date": "Wed, 01 Jan 2025 00:01:00"}, None),
        ({"Last_Modified": "Wed, 01 Jan 99999 00:00:00 GMT", "Date": "garbage"}, None),
        # A tag goes before a date, even one that can not be used (RFC 9110, section 13.1.5).
        (
            {
                "ETag": 'W/"a"',
                "Last_Modified": "Wed, 01 Jan 2025 00:00:00 GMT",
                "Date": "Wed, 01 Jan 2026 00:00:00 GMT",
            },
            None,
        ),
    ],
)
def test_keeps_a_beginning_with_a_strong_validator(fields, known):
    found = beginning(head(200, **fields), URL, verified=True)
    assert (None if found is None else (found.validator, found.total)) == known


@pytest.mark.parametrize("status", [201, 206, 404])
def test_keeps_no_beginning_of_anything_but_a_200(status):
    assert beginning(head(status, ETag='"v1"'), URL, verified=True) is None


@pytest.mark.parametrize(
    ("fields", "total"),
    [
        ({"Content_Range": "bytes 10-99/100"}, 100),
        ({"Content_Range": "Bytes 10-49/100"}, 100),
        ({"Content_Range": "bytes 10-99/*"}, 100),
        ({"Content_Range": "bytes 10-99/100", "Content_Length": "90", "ETag": '"v1"'}, 100),
        ({"Content_Range": "bytes 10-99/100", "Content_Length": "91"}, None),
        ({"Content_Range": "bytes 10-99/100", "ETag": '"v2"'}, None),
        ({"Content_Range": "bytes 10-99/100", "Content_Encoding": "gzip"}, None),
        ({"Content_Range": "bytes 10-99/101"}, None),
        ({"Content_Range": "bytes 9-99/100"}, None),
        ({"Content_Range": "bytes 10-100/100"}, None),
        ({"Content_Range": "bytes 10-9/100"}, None),
        ({"Content_Range": "bytes */100"}, None),
        ({"Content_Range": "bytes 10-99"}, None),
        ({"Content_Range": "10-99/100"}, None),
        ({"Content_Range": f"bytes 10-{'9' * 30}/{'9' * 30}"}, None),
        ({"Content_Type": "multipart/byteranges; boundary=x"}, None),
    ],
)
def test_goes_on_with_nothing_but_what_was_asked_for(fields, total):
    found = continued(head(**fields), partial())
    assert (None if found is None else (found.total, found.size)) == (None if total is None else (total, 10))


@pytest.mark.parametrize(("where", "total"), [("bytes 9-99/100", 100), ("bytes 9-99/*", None)])
def test_learns_the_total_or_does_not_go_on(where, total):
    """Without a total, the end of a part can not be told from the end of the body."""
    found = continued(head(Content_Range=where), partial(total=None))
    assert (None if found is None else found.total) == total


DATE = "Wed, 01 Jan 2025 00:00:00 GMT"


@pytest.mark.parametrize(
    ("fields", "goes_on"),
    [
        ({}, True),
        ({"Last_Modified": f" {DATE} "}, True),
        ({"Last_Modified": "Wed, 01 Jan 2025 00:00:01 GMT"}, False),
        ({"Last_Modified": "garbage"}, False),
        # The beginning had no tag, or that would be the validator.
        ({"Last_Modified": DATE, "ETag": '"v2"'}, False),
        ({"ETag": 'W/"v2"'}, False),
    ],
)
def test_a_date_goes_on_with_nothing_of_another_date_and_nothing_with_a_tag(fields, goes_on):
    found = continued(head(Content_Range="bytes 10-99/100", **fields), Partial(URL, DATE, 100, 10))
    assert (found is not None) is goes_on


@pytest.mark.parametrize("verified", [True, False])
def test_who_sent_a_beginning_stays_noted(verified):
    begun = beginning(head(200, ETag='"v1"', Content_Length="100"), URL, verified=verified)
    begun.size = 10
    found = continued(head(Content_Range="bytes 10-99/100"), begun)
    assert (begun.verified, found.verified) == (verified, verified)


def test_what_says_nothing_of_who_sent_it_counts_as_unverified():
    assert not msgspec.json.decode(b'{"url":"http://a.test/","validator":"x","size":3}', type=Partial).verified
