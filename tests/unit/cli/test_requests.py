"""What the options of ``fetcher get`` make of a URL."""

from __future__ import annotations

import pytest

from fetcher.cli.requests import Asked, OptionError, unescaped
from fetcher.jobs.objects import job_from_mapping

HTTP, TCP, WS = "http://a.test/", "tcp://a.test:7", "ws://a.test/"


def made(url=HTTP, **options):
    """Return the job that options make, which intake accepts."""
    job = job_from_mapping("1", Asked(**options).job(url))
    assert job.rejected is None, job.rejected
    return job


def test_a_url_alone_is_a_job_of_a_url_alone():
    assert Asked().job(HTTP) == {"url": HTTP}


@pytest.mark.parametrize(
    ("options", "body", "content_type"),
    [
        ({"data": "hello"}, b"hello", None),
        ({"data": ""}, b"", None),
        ({"data": "-"}, b"-", None),
        ({"json": '{"a": [1, null]}'}, b'{"a":[1,null]}', "application/json"),
        ({"json": "null"}, b"null", "application/json"),
        ({"hex": "00 ff"}, b"\x00\xff", None),
        ({"form": ["a=1", "b=x&y=z", "a="]}, b"a=1&a=&b=x%26y%3Dz", "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_makes_it_a_post(options, body, content_type):
    job = made(**options)
    assert (job.method, job.body) == ("POST", body)
    assert dict(job.headers).get("content-type") == content_type
    assert made(**options, method="put").method == "PUT"


def test_json_may_be_in_a_file(tmp_path):
    (tmp_path / "a.json").write_text('{"ä": 1}', "utf-8")
    assert made(json=f"@{tmp_path}/a.json").body == '{"ä":1}'.encode()


def test_headers_params_and_a_user():
    job = made(header=["X-A: b: c", "x-empty:"], param=["q=a&b", "q=2", "r=ü"], user="me:pass:word")
    assert job.url == "http://a.test/?q=a%26b&q=2&r=%C3%BC"
    assert dict(job.headers) == {"X-A": "b: c", "x-empty": "", "Authorization": "Basic bWU6cGFzczp3b3Jk"}
    assert job.method is None


def test_the_password_may_be_in_the_environment(monkeypatch):
    monkeypatch.setenv("FETCHER_PASSWORD", "secret")
    assert dict(made(user="me").headers)["Authorization"] == "Basic bWU6c2VjcmV0"
    assert dict(made(user="me:").headers)["Authorization"] == "Basic bWU6"


def test_parts_of_a_multipart_form(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    job = made(multipart=["note=a=b", "file=@a.txt", "at=\\@"])
    assert [(part.name, part.value, part.path) for part in job.parts] == [
        ("note", "a=b", None),
        ("file", None, f"{tmp_path}/a.txt"),
        ("at", "\\@", None),
    ]
    assert job.method == "POST"


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ({"until": "\\r\\n"}, "delimiter", b"\r\n"),
        ({"length": 4}, "length", 4),
        ({"quiet": "500ms"}, "quiet", 0.5),
    ],
)
def test_when_the_answer_of_a_socket_is_whole(options, field, value):
    job = made(TCP, data="hello", **options)
    assert (job.method, job.body, getattr(job.receive, field)) == ("SEND", b"hello", value)


def test_messages_of_a_websocket():
    job = made(WS, data="hello", messages=3)
    assert (job.method, job.body, job.receive.messages) == ("SEND", b"hello", 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", b"a"),
        ("", b""),
        ("\\n\\r\\t\\0\\\\", b"\n\r\t\0\\"),
        ("\\x00\\xfF\\x41", b"\x00\xffA"),
        ("\\\\n", b"\\n"),
        ("ü\\n", "ü\n".encode()),
        ("\udcff", b"\xff"),
    ],
)
def test_escapes(text, expected):
    assert unescaped(text) == expected


@pytest.mark.parametrize("text", ["\\", "a\\", "\\q", "\\x", "\\x1", "\\xgg", "\\ü"])
def test_an_escape_that_is_none_is_refused(text):
    with pytest.raises(OptionError, match=r"--until: .* stands for nothing; there are \\n, "):
        unescaped(text)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"data": "a", "json": "1"}, "--data and --json: a request has one body"),
        ({"hex": "00", "form": ["a=b"]}, "--hex and --form: a request has one body"),
        ({"form": ["a=b"], "multipart": ["a=b"]}, "--form and --multipart: a request has one body"),
        ({"until": "a", "quiet": "1s"}, "--until and --quiet: an answer ends in one way"),
        ({"length": 0, "messages": 1}, "--length and --messages: an answer ends in one way"),
        ({"param": ["a"]}, "--param 'a': should be name=value"),
        ({"form": ["=a"]}, "--form '=a': should be name=value"),
        ({"multipart": ["a=@/no/such"]}, "--multipart 'a=@/no/such': there is no such file"),
        ({"json": "{"}, "--json: is no JSON: "),
        ({"json": "NaN"}, "--json: is no JSON: "),
        ({"json": "[" * 100_000}, "--json: is no JSON: "),
        ({"json": "@/no/such"}, "--json '@/no/such': can not be read: No such file or directory"),
        ({"json": "@/"}, "--json '@/': can not be read: Is a directory"),
        ({"user": "me"}, "--user: has no password; write user:password, or put it into FETCHER_PASSWORD"),
    ],
)
def test_what_can_not_be_meant_is_named_by_its_option(options, why, monkeypatch):
    monkeypatch.delenv("FETCHER_PASSWORD", raising=False)
    with pytest.raises(OptionError) as caught:
        Asked(**options).job(HTTP)
    assert str(caught.value).startswith(why)


def test_a_password_is_in_no_message():
    with pytest.raises(OptionError) as caught:
        Asked(user="me:secret", param=["x"]).job(HTTP)
    assert "secret" not in str(caught.value)
    assert "secret" not in str(job_from_mapping("1", Asked(user="me:secret").job("tcp://a.test:7")).rejected)


def test_the_password_is_not_shown():
    assert "secret" not in repr(Asked(user="me:secret", data="a"))
