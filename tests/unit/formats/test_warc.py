"""WARC: what archives hold against what was fetched, by readers that others wrote."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from datetime import UTC, datetime

import arbitrary
import fastwarc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from warcio.archiveiterator import ArchiveIterator

from fetcher.errors import ErrorKind
from fetcher.formats.warc import WarcConfig, WarcFormat
from fetcher.model import Outcome, Redirect, Result

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
ANSWERED = {
    "batch": "b",
    "job_id": "0:1",
    "url": "http://a.test/from",
    "final_url": "http://a.test/to?x=1",
    "method": "GET",
    "status": 200,
    "outcome": Outcome.OK,
    "attempts": 1,
    "started_at": datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
    "http_version": "1.1",
    "remote_ip": "127.0.0.1",
}


def form(compression="none", digest="sha1"):
    return WarcFormat(digest=digest, compression=compression, created=CREATED)


class Record:
    """A record as warcio reads it, with its digests checked."""

    def __init__(self, record):
        self.kind = record.rec_type
        self.headers = dict(record.rec_headers.headers)
        self.http = record.http_headers
        self.body = record.content_stream().read()
        assert record.digest_checker.passed is not False, record.digest_checker.problems


def read(data):
    return [Record(record) for record in ArchiveIterator(io.BytesIO(data), check_digests=True)]


def capture(**fields):
    return read(form().encode([Result(**ANSWERED | fields)]))


def response(**fields):
    return capture(**fields)[0]


def test_a_file_begins_with_what_wrote_it():
    [info] = read(form("gzip").begin())
    assert info.kind == "warcinfo"
    assert info.headers["WARC-Date"] == "2026-01-01T00:00:00.000000Z"
    assert b"software: fetcher\r\n" in info.body


def test_an_answer_is_response_request_and_metadata():
    answer, request, metadata = capture(headers=[("A", "1"), ("A", "2"), ("b", "\xe4")], body=b"text", meta={"n": 1})
    assert [answer.kind, request.kind, metadata.kind] == ["response", "request", "metadata"]
    assert answer.headers["WARC-Target-URI"] == "http://a.test/to?x=1"
    assert answer.headers["WARC-Date"] == "2026-01-02T03:04:05.678901Z"
    assert answer.headers["WARC-IP-Address"] == "127.0.0.1"
    assert answer.http.get_statuscode() == "200"
    assert answer.http.headers == [("A", "1"), ("A", "2"), ("b", "\xe4"), ("Content-Length", "4")]
    assert answer.body == b"text"
    assert request.http.protocol == "GET"
    assert request.http.statusline == "/to?x=1 HTTP/1.1"
    assert request.http.headers == [("Host", "a.test")]
    about = json.loads(metadata.body)
    assert (about["url"], about["outcome"], about["meta"]) == ("http://a.test/from", "ok", {"n": 1})
    assert about.keys().isdisjoint({"headers", "body"})
    for other in (request, metadata):
        assert other.headers["WARC-Concurrent-To"] == answer.headers["WARC-Record-ID"]


@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_the_payload_digest_is_that_of_the_body(digest):
    data = form(digest=digest).encode([Result(**ANSWERED, headers=[], body=b"body")])
    expected = base64.b32encode(hashlib.new(digest, b"body").digest()).decode()
    assert read(data)[0].headers["WARC-Payload-Digest"] == f"{digest}:{expected}"


def test_what_was_taken_off_the_body_is_renamed():
    sent = [("Content-Encoding", "gzip"), ("transfer-encoding", "chunked"), ("Content-Length", "9"), ("X", "y")]
    assert response(headers=sent, body=b"text").http.headers == [
        ("X-Crawler-Content-Encoding", "gzip"),
        ("X-Crawler-transfer-encoding", "chunked"),
        ("X-Crawler-Content-Length", "9"),
        ("X", "y"),
        ("Content-Length", "4"),
    ]


def test_a_coding_that_is_still_on_the_body_is_said():
    answer = response(headers=[("Content-Encoding", "lzw, gzip")], content_encoding="lzw", body=b"?")
    assert answer.http.get_header("Content-Encoding") == "lzw"
    assert answer.http.get_header("X-Crawler-Content-Encoding") == "lzw, gzip"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"body": b"abc", "truncated": True}, "length"),
        ({"body_size": 100}, "unspecified"),
        ({"error_kind": ErrorKind.BODY_INCOMPLETE}, "disconnect"),
        ({"error_kind": ErrorKind.TOO_SLOW}, "time"),
        ({"error_kind": ErrorKind.BODY_TOO_LARGE}, "length"),
        ({"error_kind": ErrorKind.BAD_ENCODING}, "unspecified"),
        ({"error_kind": ErrorKind.HTTP_5XX, "body": b"oops"}, None),
        ({"body": b""}, None),
        ({"body_size": 0}, None),
    ],
)
def test_a_body_that_is_not_all_there_is_marked(fields, reason):
    headers = response(headers=[], **fields).headers
    assert headers.get("WARC-Truncated") == reason
    assert ("WARC-Payload-Digest" in headers) == bool(reason is None or fields.get("body"))


def test_what_was_not_sent_again_is_a_revisit():
    revisit = response(headers=[("ETag", '"1"')], status=304, revalidated=True, body=b"known")
    assert revisit.kind == "revisit"
    assert revisit.headers["WARC-Profile"].endswith("/1.1/revisit/server-not-modified")
    assert revisit.headers["WARC-Refers-To-Target-URI"] == "http://a.test/to?x=1"
    assert revisit.headers["WARC-Payload-Digest"].startswith("sha1:")
    assert revisit.http.get_statuscode() == "304"
    assert revisit.body == b""


def test_nothing_of_a_record_is_lost_if_the_sink_is_given_a_part_of_it():
    assert response(headers=None, body=b"body").body == b"body"
    [metadata] = capture(headers=[("a", "b")], body=b"body", status=None)
    assert json.loads(metadata.body)["body"] == "body"


def test_a_job_that_was_not_answered_is_metadata():
    failed = {"status": None, "error_kind": ErrorKind.CONNECT_REFUSED, "outcome": Outcome.FAILED}
    [metadata] = capture(**failed, redirects=[Redirect("http://a.test/", 301, "/from")])
    assert metadata.kind == "metadata"
    about = json.loads(metadata.body)
    assert (about["outcome"], about["error_kind"]) == ("failed", "connect_refused")
    assert about["redirects"] == [{"url": "http://a.test/", "status": 301, "location": "/from"}]


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("not a url\r\nWARC-Type: x", "unknown:not%20a%20url%0D%0AWARC-Type:%20x"),
        ("http://a.test/\udcff \u00e4%20", "http://a.test/%ED%B3%BF%20%C3%A4%20"),
    ],
)
def test_a_uri_is_one_line(url, uri):
    answer, _, metadata = capture(url=url, final_url=None, headers=[], body=b"kept")
    assert answer.headers.get("WARC-Target-URI") == metadata.headers.get("WARC-Target-URI") == uri
    assert answer.body.endswith(b"kept")


def test_a_field_with_a_line_end_is_one_field():
    answer = response(headers=[("a", "1\r\nB: 2\r\n\r\nbody")], body=b"real")
    assert answer.http.headers == [("a", "1  B: 2    body"), ("Content-Length", "4")]
    assert answer.body == b"real"


@pytest.mark.parametrize("name", ["remote_ip", "http_version", "method", "content_encoding"])
def test_a_stage_can_write_no_line_of_its_own_into_a_head(name):
    clean, dirty = (
        form().encode([Result(**ANSWERED | {"body": b"x", name: value})])
        for value in ("a b", "a\r\nWARC-Evil: 1\r\n\r\nb")
    )
    assert b"\nWARC-Evil" not in dirty
    assert dirty.count(b"\r\n") == clean.count(b"\r\n")


def test_the_same_results_give_the_same_bytes():
    result = Result(**ANSWERED, headers=[], body=b"x")
    assert form("gzip").encode([result]) == form("gzip").encode([result])


def test_each_record_is_a_member_of_its_own():
    data = form("gzip").encode([Result(**ANSWERED, headers=[], body=b"x")])
    assert data.count(b"\x1f\x8b\x08\x00\x00\x00\x00\x00") == 3


def test_the_config_builds_it():
    assert isinstance(WarcConfig().build(), WarcFormat)


@arbitrary.UNHURRIED
@given(
    arbitrary.results(name=arbitrary.TOKEN, value=arbitrary.VALUE),
    st.sampled_from(["none", "gzip", "zstd"]),
    st.sampled_from(["sha1", "sha256"]),
)
def test_whatever_comes_in_comes_out(results, compression, digest):
    """Fields and bodies to the byte; the rest is in the metadata."""
    archive = form(compression, digest)
    records = read_fast(archive.begin() + archive.encode(results))[1:]
    if compression != "zstd":
        assert len(read(archive.begin() + archive.encode(results))) == len(records) + 1
    for result in results:
        answered = result.status is not None and (result.headers is not None or result.body is not None)
        if answered:
            kind, whole, block = records.pop(0)
            assert (kind, whole) == ("response", True)
            head, _, body = block.partition(b"\r\n\r\n")
            assert body == (result.body or b"")
            lines = [line.partition(b": ") for line in head.split(b"\r\n")[1:-1]]
            found = [(name.decode("latin-1"), value.decode("latin-1")) for name, _, value in lines]
            assert found == [(name, value) for name, value in result.headers or []]
            assert records.pop(0)[:2] == ("request", True)
        kind, whole, block = records.pop(0)
        assert (kind, whole) == ("metadata", True)
        assert json.loads(block)["job_id"] == result.job_id
        assert json.loads(block).get("meta") == json.loads(json.dumps(result.meta))
    assert not records


@arbitrary.UNHURRIED
@given(arbitrary.results(text=st.text(max_size=20), name=st.text(max_size=9), value=st.text(max_size=9)))
def test_nothing_at_all_breaks_a_record(results):
    archive = form()
    kinds = [kind for kind, _, _ in read_fast(archive.begin() + archive.encode(results))]
    assert kinds.count("metadata") == len(results)


def read_fast(data):
    records = fastwarc.ArchiveIterator(io.BytesIO(data), parse_http=False)
    return [(record.headers["WARC-Type"], record.verify_block_digest(), record.reader.read()) for record in records]
