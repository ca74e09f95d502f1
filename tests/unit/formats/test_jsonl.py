"""The record: its fields, their order, and that nothing at all breaks a line."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fetcher.errors import ErrorKind
from fetcher.formats.jsonl import JsonlConfig, JsonlFormat
from fetcher.model import Outcome, Redirect, Result

# As in DESIGN.md, "Record".
FIELDS = [
    "schema_version",
    "batch",
    "job_id",
    "url",
    "final_url",
    "method",
    "status",
    "outcome",
    "error_kind",
    "error_message",
    "attempts",
    "started_at",
    "finished_at",
    "queue_s",
    "dns_s",
    "connect_s",
    "tls_s",
    "first_byte_s",
    "total_s",
    "http_version",
    "remote_ip",
    "proxy",
    "verified",
    "headers",
    "content_type",
    "content_length",
    "body_size",
    "wire_size",
    "truncated",
    "length_unknown",
    "content_encoding",
    "resumed_at",
    "revalidated",
    "sha256",
    "body",
    "body_encoding",
    "body_path",
    "redirects",
    "parent_id",
    "page",
    "has_more",
    "extracted",
    "meta",
]

FULL = Result(
    batch="b",
    job_id="0-1",
    parent_id="0-0",
    page=2,
    has_more=False,
    url="http://a.test/ä",
    final_url="http://b.test/",
    method="GET",
    status=200,
    outcome=Outcome.FAILED,
    error_kind=ErrorKind.HTTP_5XX,
    error_message="m",
    attempts=2,
    started_at=datetime(2026, 1, 2, 3, 4, 5, 678, UTC),
    finished_at=datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC),
    queue_s=0.1,
    dns_s=0.2,
    connect_s=0.3,
    tls_s=0.4,
    first_byte_s=0.5,
    total_s=0.6,
    http_version="1.1",
    remote_ip="::1",
    proxy="http://proxy.test:3128",
    verified=False,
    headers=[("A", "1"), ("A", "2"), ("a", "ö")],
    content_type="text/html",
    content_length=10**30,
    body_size=0,
    wire_size=9,
    truncated=True,
    length_unknown=True,
    content_encoding="lzw",
    resumed_at=5,
    revalidated=True,
    sha256="00",
    body=b"text",
    body_encoding="?",
    body_path="p",
    redirects=[Redirect("u", 301, "l")],
    extracted={"x": [1]},
    meta={"y": None},
)
MINIMAL = {"batch": "b", "job_id": "1", "url": "u", "outcome": Outcome.OK, "attempts": 1}


def encode(*results):
    return JsonlFormat().encode(results)


def line(result):
    data = encode(result)
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1
    return json.loads(data)


def test_the_model_has_the_fields_of_the_design():
    assert list(Result.__struct_fields__) == FIELDS


def test_fields_are_written_in_the_order_of_the_design():
    record = line(FULL)
    assert list(record) == FIELDS
    assert record["headers"] == [["A", "1"], ["A", "2"], ["a", "ö"]]
    assert record["redirects"] == [{"url": "u", "status": 301, "location": "l"}]
    assert record["started_at"] == "2026-01-02T03:04:05.000678Z"
    assert record["content_length"] == 10**30
    assert (record["outcome"], record["error_kind"]) == ("failed", "http_5xx")


def test_what_is_null_is_absent():
    assert line(Result(**MINIMAL)) == {"schema_version": 1, **MINIMAL}
    record = line(Result(**MINIMAL, body=b"x", meta={}))
    assert list(record) == [
        "schema_version",
        "batch",
        "job_id",
        "url",
        "outcome",
        "attempts",
        "body",
        "body_encoding",
        "meta",
    ]


def test_a_body_does_not_change_the_order():
    without = msgspec.structs.replace(FULL, body=None, body_encoding=None)
    assert [name for name in line(FULL) if name not in {"body", "body_encoding"}] == list(line(without))


def test_an_empty_body_is_not_no_body():
    assert line(Result(**MINIMAL, body=b""))["body"] == ""
    assert "body" not in line(Result(**MINIMAL))


def test_zero_and_false_are_not_null():
    record = line(Result(**MINIMAL, body_size=0, truncated=False, queue_s=0.0, headers=[], body=b""))
    assert (record["body_size"], record["truncated"], record["queue_s"], record["headers"]) == (
        0,
        False,
        0.0,
        [],
    )


def test_many_results_are_many_lines_and_none_are_none():
    assert encode() == JsonlFormat().begin() == b""
    assert encode(FULL, Result(**MINIMAL)).count(b"\n") == 2


def test_a_result_is_not_changed_by_being_written():
    before = msgspec.structs.asdict(FULL)
    encode(FULL)
    assert msgspec.structs.asdict(FULL) == before


def test_a_lone_surrogate_costs_a_character_and_not_the_batch():
    broken = Result(
        **MINIMAL,
        final_url="\udce4/x",
        headers=[("a", "\ud800ok")],
        meta={"\udfff": ["\udfff", 1, Decimal(2)]},
    )
    first, second = encode(broken, Result(**MINIMAL, body=b"\xff")).splitlines()
    record = json.loads(first)
    assert (record["final_url"], record["headers"], record["meta"]["?"][:2]) == (
        "?/x",
        [["a", "?ok"]],
        ["?", 1],
    )
    assert json.loads(second)["body"] == "/w=="


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
# As the http transport decodes them: every byte a character.
HEADER = st.binary(max_size=20).map(lambda raw: raw.decode("latin-1"))


@given(
    headers=st.lists(st.tuples(HEADER, HEADER), max_size=5),
    body=st.none() | st.binary(max_size=50) | TEXT.map(str.encode),
    meta=st.none() | st.dictionaries(TEXT, JSON, max_size=4),
    message=TEXT,
    when=st.datetimes(timezones=st.just(UTC)),
    total=st.floats(0, 1e6),
)
def test_whatever_comes_in_is_one_line_that_says_the_same(headers, body, meta, message, when, total):
    result = Result(
        **MINIMAL,
        headers=headers,
        body=body,
        meta=meta,
        error_message=message,
        started_at=when,
        total_s=total,
    )
    record = line(result)
    assert [(name, value) for name, value in record["headers"]] == headers
    assert record["error_message"] == message
    assert record.get("meta") == meta
    assert record["total_s"] == total
    assert datetime.fromisoformat(record["started_at"]) == when
    if body is None:
        assert "body" not in record
    elif record["body_encoding"] == "utf-8":
        assert record["body"].encode() == body
    else:
        assert b64decode(record["body"]) == body


@given(st.text())
def test_no_text_at_all_can_break_a_batch(text):
    for result in (
        Result(**MINIMAL, error_message=text, meta={text: text}),
        Result(**MINIMAL, final_url=text, body=b""),
    ):
        line(result)


def test_the_config_builds_it():
    assert isinstance(JsonlConfig().build(), JsonlFormat)
