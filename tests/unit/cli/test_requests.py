"""What the options of ``fetcher get`` make of a URL."""

from __future__ import annotations

import io

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
        ({"data_raw": "-"}, b"-", None),
        ({"data_raw": "@a"}, b"@a", None),
        ({"data": "a@b"}, b"a@b", None),
        ({"data": "--"}, b"--", None),
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


ANY_BYTES = bytes(range(256)) + b"\r\n"


@pytest.mark.parametrize("url", [HTTP, TCP, WS])
def test_data_may_be_in_a_file_byte_by_byte(tmp_path, monkeypatch, url):
    (tmp_path / "a.bin").write_bytes(ANY_BYTES)
    monkeypatch.chdir(tmp_path)
    assert made(url, data="@a.bin").body == ANY_BYTES
    (tmp_path / "a.bin").write_bytes(b"")
    assert made(url, data="@a.bin").body == b""


@pytest.mark.parametrize("option", [{"data": "-"}, {"data": "@-"}, {"json": "@-"}])
def test_standard_input_is_read_once_for_all_urls(monkeypatch, option):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'"\xc3\xa9"')))
    asked = Asked(**option)
    assert [job_from_mapping("1", asked.job(url)).body for url in (HTTP, TCP)] == [b'"\xc3\xa9"'] * 2


def test_a_file_that_is_too_large_is_not_sent_in_part(tmp_path):
    with (tmp_path / "a.bin").open("wb") as file:
        file.truncate(64 * 2**20 + 1)
    with pytest.raises(OptionError, match=r"--data '@.*a\.bin': is larger than 64 MiB"):
        Asked(data=f"@{tmp_path}/a.bin").job(HTTP)


def test_a_header_may_be_given_again():
    job = made(header=["X-A: 1", "x-b: 2", "x-a:3", "X-A: 1"])
    assert job.headers == [("X-A", "1"), ("X-A", "3"), ("X-A", "1"), ("x-b", "2")]


@pytest.mark.parametrize(("header", "shown"), [("nocolon", "nocolon"), ("Token abc", "Token"), (": a", ":"), ("", "")])
def test_a_header_without_a_name_and_a_colon_is_refused_and_not_quoted_in_full(header, shown):
    with pytest.raises(OptionError) as caught:
        Asked(header=[header]).job(HTTP)
    assert str(caught.value) == f'--header {shown!r}: should be "name: value"'


@pytest.mark.parametrize(
    ("url", "options", "why"),
    [
        (HTTP, {"length": 4}, "--length: means nothing for http: URLs; it is for tcp: and tls:"),
        ("udp://a.test:7", {"until": "a"}, "--until: means nothing for udp: URLs; it is for tcp: and tls:"),
        (WS, {"quiet": "1s"}, "--quiet: means nothing for ws: URLs; it is for tcp: and tls:"),
        (TCP, {"messages": 1}, "--messages: means nothing for tcp: URLs; it is for ws: and wss:"),
        (TCP, {"length": 0}, "--length: is not a whole number of at least 1"),
        (WS, {"messages": -1}, "--messages: is not a whole number of at least 1"),
        (TCP, {"quiet": "soon"}, "--quiet: should be a duration such as 10s"),
        (TCP, {"quiet": "0s"}, "--quiet: is not more than 0 seconds"),
        (TCP, {"until": ""}, "--until: is empty"),
    ],
)
def test_when_an_answer_ends_is_told_in_the_words_of_the_options(url, options, why):
    with pytest.raises(OptionError) as caught:
        Asked(**options).job(url)
    assert str(caught.value).startswith(why)
    assert "receive" not in str(caught.value)


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
        ({"data": "a", "data_raw": "a"}, "--data and --data-raw: a request has one body"),
        ({"data": "@/no/such"}, "--data '@/no/such': can not be read: No such file or directory"),
        ({"data": "@"}, "--data '@': can not be read: "),
        ({"data": "@a\0b"}, "--data '@a\\x00b': can not be read: "),
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
