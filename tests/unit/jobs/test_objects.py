"""From a job object to a job: every key, for every scheme, and that a mistake rejects the row and nothing more."""

from __future__ import annotations

import base64
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.errors import ErrorKind
from fetcher.jobs.intake import MAX_DEPTH, MAX_URL_LENGTH
from fetcher.jobs.objects import JOB_KEYS, job_from_mapping
from fetcher.model import FormPart, Receive


def nested(levels):
    value = 0
    for _ in range(levels):
        value = [value]
    return value


def made(**row):
    job = job_from_mapping("1", {"url": "http://a.test/", **row})
    assert job.rejected is None, job.rejected
    return job


def test_a_whole_job_object():
    job = job_from_mapping(
        "7",
        {
            "url": "http://a.test/",
            "method": "post",
            "headers": {"x": "y\tz"},
            "json": {"a": [1, None]},
            "priority": -3,
            "timeout": "1.5m",
            "meta": {"n": 2**70},
            "key": "k",
        },
    )
    assert job.rejected is None
    assert (job.id, job.method, job.body) == ("7", "POST", b'{"a":[1,null]}')
    assert job.headers == [("x", "y\tz"), ("content-type", "application/json")]
    assert (job.priority, job.timeout, job.meta, job.key) == (-3, 90.0, {"n": 2**70}, "k")


def test_json_null_is_a_body_and_other_nulls_are_absent():
    row = dict.fromkeys(("method", "headers", "body", "priority", "timeout", "meta", "key"))
    job = job_from_mapping("1", {"url": "http://a.test/", "json": None, **row})
    assert job.rejected is None
    assert job.body == b"null"


def test_a_content_type_that_is_given_stays():
    job = job_from_mapping("1", {"url": "http://a.test/", "json": 1, "headers": {"Content-Type": "x/y"}})
    assert job.headers == [("Content-Type", "x/y")]


def test_a_header_may_have_several_values():
    headers = {"x-a": ["1", "2"], "x-b": "3", "x-c": []}
    job = job_from_mapping("1", {"url": "http://a.test/", "headers": headers})
    assert job.headers == [("x-a", "1"), ("x-a", "2"), ("x-b", "3")]
    for wrong, why in ((["1", 2], "is not text; put it in quotes"), (["1", "2\r\nx: y"], "contains CR, LF")):
        rejected = job_from_mapping("1", {"url": "http://a.test/", "headers": {"x-a": wrong}}).rejected
        assert why in rejected.message


def test_an_authorization_header_goes_before_the_one_of_the_url():
    job = job_from_mapping("1", {"url": "http://u:p@a.test/", "headers": {"authorization": "mine"}})
    assert job.headers == [("authorization", "mine")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "has no url"),
        ({"url": 5}, "url is not text but int"),
        ({"url": "http://a.test/", "methd": "GET"}, "unknown key 'methd'"),
        ({"url": "http://a.test/", 5: 6}, "unknown key 5"),
        ({"url": "http://a.test/", "method": "GET /"}, "is not a token"),
        ({"url": "http://a.test/", "method": 1}, "method is not text"),
        ({"url": "http://a.test/", "headers": []}, "headers is not an object"),
        ({"url": "http://a.test/", "headers": {"te": "x"}}, "belongs to the connection"),
        ({"url": "http://a.test/", "body": "x", "json": 1}, "both body and json"),
        ({"url": "http://a.test/", "body": b"x"}, "body is not text"),
        ({"url": "http://a.test/", "body": {"hex": "0g"}}, "body.hex is not hex"),
        ({"url": "http://a.test/", "body": {"base64": "a"}}, "body.base64 is not base64"),
        ({"url": "http://a.test/", "body": {"file": "a"}}, "body is neither text nor {hex: ...} or {base64: ...}"),
        ({"url": "http://a.test/", "body": "x", "form": {}}, "both body and form"),
        ({"url": "http://a.test/", "form": {}, "multipart": []}, "both form and multipart"),
        ({"url": "http://a.test/", "params": "a=b"}, "params is not an object"),
        ({"url": "http://a.test/", "params": {"a": {}}}, "params.a is neither text nor a number but dict"),
        ({"url": "http://a.test/", "params": {"a": b"x"}}, "params.a is neither text nor a number but binary"),
        (
            {"url": "http://a.test/", "params": {"a": "x" * MAX_URL_LENGTH}},
            "longer than 65536 characters with its params",
        ),
        ({"url": "http://a.test/", "form": [1]}, "form is not an object"),
        ({"url": "http://a.test/", "multipart": []}, "multipart is not a list of parts"),
        ({"url": "http://a.test/", "multipart": ["a"]}, "multipart.0 is not an object of name"),
        ({"url": "http://a.test/", "multipart": [{"name": "a"}]}, "multipart.0 has neither value and path"),
        ({"url": "http://a.test/", "multipart": [{"name": "a", "value": 1, "path": "b"}]}, "has both value and path"),
        ({"url": "http://a.test/", "multipart": [{"name": "a", "path": "b\0"}]}, "multipart.0.path is no path"),
        ({"url": "http://a.test/", "multipart": [{"value": "b"}]}, "has no multipart.0.name"),
        (
            {"url": "http://a.test/", "multipart": [{"name": "a", "value": "b", "content_type": "x\r\ny"}]},
            "is no media type",
        ),
        (
            {"url": "http://a.test/", "multipart": [{"name": "a", "value": ""}], "headers": {"Content-Type": "a/b"}},
            "which multipart sets by itself",
        ),
        ({"url": "http://a.test/", "auth": "me"}, "auth is not {username: ..., password: ...} or {token: ...}"),
        ({"url": "http://a.test/", "auth": {"username": "a"}}, "auth is not"),
        ({"url": "http://a.test/", "auth": {"username": "a:b", "password": "c"}}, "auth.username has a colon"),
        ({"url": "http://a.test/", "auth": {"username": "a", "password": "\n"}}, "auth has a control character"),
        ({"url": "http://a.test/", "auth": {"token": "a b"}}, "auth.token is empty, or has a space"),
        ({"url": "http://a.test/", "auth": {"token": "a"}, "headers": {"AUTHORIZATION": "b"}}, "both auth and an Auth"),
        ({"url": "http://a.test/", "receive": {"length": 1}}, "has receive, which means nothing for http: URLs"),
        (
            {"url": "tcp://a.test:7", "params": {}},
            "has params, which means nothing for tcp: URLs; they have method, body",
        ),
        ({"url": "tcp://a.test:7", "headers": {}}, "has headers, which means nothing for tcp: URLs"),
        ({"url": "tcp://a.test:7", "method": "GET"}, "method 'GET' means nothing for tcp: URLs; they have SEND"),
        ({"url": "udp://a.test:7", "receive": {"length": 1}}, "has receive, which means nothing for udp: URLs"),
        ({"url": "ftp://a.test/x", "body": "x"}, "has body, which means nothing for ftp: URLs"),
        ({"url": "ftp://a.test/x", "auth": {"token": "x"}}, "has auth with a token, which ftp: does not know"),
        ({"url": "ws://a.test/x", "form": {}}, "has form, which means nothing for ws: URLs"),
        ({"url": "tcp://a.test:7", "receive": {"messages": 1}}, "receive of tcp: URLs has delimiter, length and quiet"),
        ({"url": "ws://a.test", "receive": {"length": 1}}, "receive of ws: URLs has messages, until and matches"),
        ({"url": "ws://a.test", "receive": {}}, "receive is not one of"),
        ({"url": "tcp://a.test:7", "receive": {"length": 1, "quiet": 1}}, "has length and quiet; one of them says"),
        ({"url": "tcp://a.test:7", "receive": {"len": 1}}, "receive has the unknown key 'len'"),
        ({"url": "tcp://a.test:7", "receive": {"length": 0}}, "receive.length is not a whole number of at least 1"),
        ({"url": "tcp://a.test:7", "receive": {"length": True}}, "receive.length is not a whole number"),
        ({"url": "tcp://a.test:7", "receive": {"delimiter": ""}}, "receive.delimiter is empty"),
        ({"url": "tcp://a.test:7", "receive": {"quiet": "soon"}}, "receive.quiet should be a duration"),
        ({"url": "tcp://a.test:7", "receive": {"quiet": 0}}, "receive.quiet is not more than 0"),
        ({"url": "ws://a.test", "receive": {"until": "a =="}}, "receive.until: 'a ==' is no JMESPath"),
        ({"url": "ws://a.test", "receive": {"matches": "(?=a)"}}, "receive.matches is no regular expression of RE2"),
        ({"url": "http://a.test/", "body": "\ud800"}, "lone surrogate"),
        ({"url": "http://a.test/", "json": object()}, "can not be written as JSON"),
        ({"url": "http://a.test/", "priority": "5"}, "priority is not"),
        ({"url": "http://a.test/", "priority": True}, "priority is not"),
        ({"url": "http://a.test/", "priority": 2**64}, "priority is not"),
        ({"url": "http://a.test/", "timeout": "soon"}, "timeout should be a duration"),
        ({"url": "http://a.test/", "timeout": 0}, "timeout is not more than 0"),
        ({"url": "http://a.test/", "timeout": float("nan")}, "timeout is not more than 0"),
        ({"url": "http://a.test/", "meta": [1]}, "meta is not an object"),
        ({"url": "http://a.test/", "meta": {1: 2}}, "meta is not an object"),
        ({"url": "http://a.test/", "meta": {"a": "\ud800"}}, "meta can not be written"),
        ({"url": "http://a.test/", "meta": {"a": nested(MAX_DEPTH)}}, "nested deeper"),
        ({"url": "http://a.test/", "key": 5}, "key is not text"),
    ],
)
def test_mistakes_in_a_job_object_reject_it(row, message):
    job = job_from_mapping("3", row)
    assert job.id == "3"
    assert message in job.rejected.message
    assert msgspec.json.encode(job)


def test_a_rejected_job_object_keeps_its_meta():
    job = job_from_mapping("1", {"url": "nope", "meta": {"a": 1}})
    assert job.rejected.kind == ErrorKind.INVALID_URL
    assert job.meta == {"a": 1}


KEYS = st.sampled_from([*JOB_KEYS, "x"])
URLS = ["http://a.test/", "tcp://a.test:7", "udp://a.test:7", "ws://a.test/", "ftp://a.test/x"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(URLS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_job_object_gives_a_job_that_can_be_stored(row):
    assert msgspec.json.encode(job_from_mapping("1", row))


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("sha256:" + "aB" * 32, "sha256:" + "ab" * 32),
        (" SHA1:" + "0" * 40, "sha1:" + "0" * 40),
        ("md5:" + "f" * 32, "md5:" + "f" * 32),
        ("f" * 32, "md5:" + "f" * 32),
        ("f" * 40, "sha1:" + "f" * 40),
        ("f" * 64 + "\n", "sha256:" + "f" * 64),
        ("f" * 128, "sha512:" + "f" * 128),
        (None, None),
    ],
)
def test_a_checksum_is_kept_in_one_spelling(given, kept):
    job = job_from_mapping("1", {"url": "http://a.test/", "checksum": given})
    assert (job.rejected, job.checksum) == (None, kept)


@pytest.mark.parametrize(
    "given", ["", "x", "sha256:", "sha256:" + "f" * 63, "md5:" + "f" * 64, "crc32:" + "f" * 32, "g" * 64, "٣" * 64, 5]
)
def test_a_checksum_that_is_none_is_refused(given):
    job = job_from_mapping("1", {"url": "http://a.test/", "checksum": given})
    assert job.rejected.kind is ErrorKind.INVALID_ROW
    assert "checksum" in job.rejected.message


# Requests


@pytest.mark.parametrize(
    ("url", "params", "found"),
    [
        (
            "http://a.test/",
            {"q": "a b&c=d+é", "n": 1.5, "yes": True},
            "http://a.test/?q=a%20b%26c%3Dd%2B%C3%A9&n=1.5&yes=true",
        ),
        ("http://a.test/?x=1#top", {"a": [1, None, "b"], "no": None}, "http://a.test/?x=1&a=1&a=b"),
        ("http://a.test?", {"a": ""}, "http://a.test?a="),
        ("http://a.test/?x&", {"a": "b"}, "http://a.test/?x&a=b"),
        ("http://a.test/x", {"a": None, "b": []}, "http://a.test/x"),
        ("ws://a.test/", {"[]": "/"}, "ws://a.test/?%5B%5D=%2F"),
    ],
)
def test_params_come_after_those_of_the_url(url, params, found):
    assert made(url=url, params=params).url == found


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=4), st.sampled_from(["http://a.test/", "http://ä.test/ö?x=1"])
)
def test_no_param_becomes_another(params, url):
    query = urlsplit(made(url=url, params=params).url).query
    found = parse_qsl(query, keep_blank_values=True)
    assert [pair for pair in found if pair != ("x", "1")] == [pair for pair in params.items() if pair != ("x", "1")]


@given(st.dictionaries(TEXTS, TEXTS, min_size=1, max_size=4))
def test_no_field_of_a_form_becomes_another(form):
    assert dict(parse_qsl(made(form=form).body.decode(), keep_blank_values=True)) == form


def test_bodies():
    assert made(body="é").body == "é".encode()
    assert made(body={"hex": "00 fF"}).body == b"\x00\xff"
    assert made(body={"base64": "AA\nH/"}).body == b"\x00\x01\xff"
    form = made(form={"a b": ["é", 1], "c": None})
    assert (form.body, form.headers) == (b"a+b=%C3%A9&a+b=1", [("content-type", "application/x-www-form-urlencoded")])
    parts = made(
        multipart=[{"name": "a", "value": 5}, {"name": "f", "path": "x", "filename": "y", "content_type": "a/b"}]
    )
    assert parts.parts == [FormPart("a", value="5"), FormPart("f", path="x", filename="y", content_type="a/b")]
    assert (parts.body, parts.headers) == (None, [])


def test_auth_goes_before_the_user_of_the_url():
    job = made(url="http://u:p@a.test/", auth={"username": "é", "password": "a:b"}, headers={"x": "y"})
    assert job.headers == [("x", "y"), ("Authorization", "Basic " + base64.b64encode("é:a:b".encode()).decode())]
    assert made(auth={"token": "t0=.~"}).headers == [("Authorization", "Bearer t0=.~")]
    ftp = made(url="ftp://u:p@a.test/x", auth={"username": "v", "password": ""})
    assert ftp.headers == [("Authorization", "Basic djo=")]


@pytest.mark.parametrize(
    ("url", "row", "method", "body", "headers"),
    [
        ("tcp://a.test:7", {"body": "hi"}, "SEND", b"hi", []),
        ("tls://a.test:7", {"json": {"a": 1}}, "SEND", b'{"a":1}', []),
        ("udp://a.test:7", {"method": "send", "body": {"hex": "00"}}, "SEND", b"\0", []),
        ("ftp://a.test/x", {"method": "LIST"}, "LIST", None, []),
        ("ftp://a.test/x/", {}, "LIST", None, []),
        ("wss://a.test/x", {"json": 1, "headers": {"x": "y"}}, "SEND", b"1", [("x", "y")]),
        ("ws://a.test/x", {"auth": {"token": "t"}}, None, None, [("Authorization", "Bearer t")]),
    ],
)
def test_what_is_not_http_has_what_it_knows(url, row, method, body, headers):
    job = made(url=url, **row)
    assert (job.method, job.body, job.headers) == (method, body, headers)


@pytest.mark.parametrize(
    ("url", "receive", "found"),
    [
        ("tcp://a.test:7", {"delimiter": "\r\n"}, Receive(delimiter=b"\r\n")),
        ("tls://a.test:7", {"delimiter": {"hex": "00ff"}, "length": None}, Receive(delimiter=b"\x00\xff")),
        ("tcp://a.test:7", {"length": 4}, Receive(length=4)),
        ("tcp://a.test:7", {"quiet": "500ms"}, Receive(quiet=0.5)),
        ("ws://a.test", {"messages": 3}, Receive(messages=3)),
        ("wss://a.test", {"until": "done == `true`"}, Receive(until="done == `true`")),
        ("ws://a.test", {"matches": "^end$"}, Receive(matches="^end$")),
    ],
)
def test_when_an_answer_is_whole(url, receive, found):
    job = made(url=url, receive=receive)
    assert job.receive == found
    assert msgspec.json.decode(msgspec.json.encode(job), type=type(job)) == job
