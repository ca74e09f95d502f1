"""The pure parts of ftp: what a URL asks for, what a server says, and what its listings mean."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.errors import ErrorKind, FetchError
from fetcher.jobs.intake import make_job
from fetcher.settings import Settings
from fetcher.transports.bodies.ranges import Partial
from fetcher.transports.ftp.entries import Entry, Lines, familiar_entry, machine_entry
from fetcher.transports.ftp.logins import Login, Logins, LoginSettings
from fetcher.transports.ftp.replies import Reply, read_reply
from fetcher.transports.ftp.resuming import size_of, to_go_on_with, validator_of
from fetcher.transports.ftp.targets import Target, target_of
from fetcher.transports.ftp.transport import FtpConfig


def target(url, **fields) -> Target:
    job = make_job("1", url)
    for name, value in fields.items():
        setattr(job, name, value)
    return target_of(job)


# What a URL asks for


@pytest.mark.parametrize(
    ("url", "path", "kind", "listing"),
    [
        ("ftp://h/a/b.txt", b"a/b.txt", "I", False),
        ("ftp://h/%2Fa/b", b"/a/b", "I", False),
        ("ftp://h//a/b", b"/a/b", "I", False),
        ("ftp://h/a%20b%3Bc", b"a b;c", "I", False),
        ("ftp://h/a;type=i", b"a", "I", False),
        ("ftp://h/a;type=A", b"a", "A", False),
        ("ftp://h/a;type=d", b"a", "A", True),
        ("ftp://h/a;type=", b"a;type=", "I", False),
        ("ftp://h/what?x=1", b"what?x=1", "I", False),
        ("ftp://h/a%C3%A4", "a\u00e4".encode(), "I", False),
        ("ftp://h/a\u00e4", "a\u00e4".encode(), "I", False),
        ("ftp://h/a/", b"a/", "A", True),
        ("ftp://h/", b"", "A", True),
        ("ftp://h", b"", "A", True),
        ("ftp://h/%2F", b"/", "A", True),
    ],
)
def test_a_url_names_a_path(url, path, kind, listing):
    found = target(url)
    assert (found.path, found.type, found.listing) == (path, kind, listing)


@pytest.mark.parametrize(
    ("url", "port", "tls"),
    [
        ("ftp://h/", 21, None),
        ("ftp://h:990/", 990, None),
        ("ftps://h/", 21, "explicit"),
        ("ftps://h:2121/", 2121, "explicit"),
        ("ftps://h:990/", 990, "implicit"),
    ],
)
def test_the_port_tells_how_tls_begins(url, port, tls):
    found = target(url)
    assert (found.port, found.tls) == (port, tls)


@pytest.mark.parametrize(
    ("path", "argument"),
    [("", b""), ("pub/", b"pub"), ("%2F", b"/"), ("//", b"/"), ("-la/", b"./-la"), ("%2Fa/", b"/a")],
)
def test_a_folder_is_never_an_option_of_ls(path, argument):
    assert target(f"ftp://h/{path}").argument == argument


@pytest.mark.parametrize("url", ["ftp://h/a%0Ab", "ftp://h/a%0d", "ftp://h/%00", "ftp://h/a%FF", "ftp://h/a;type=x"])
def test_what_no_command_can_have_is_refused(url):
    with pytest.raises(FetchError) as caught:
        target(url)
    assert (caught.value.kind, caught.value.sent) == (ErrorKind.INVALID_URL, False)


def test_a_folder_is_listed_whatever_it_is_called_and_a_file_if_so_asked():
    assert target("ftp://h/pub", method="LIST").listing
    assert target("ftp://h/pub/", method="RETR").listing
    with pytest.raises(FetchError, match="DELE"):
        target("ftp://h/pub", method="DELE")


@given(st.text(max_size=30))
def test_no_path_ends_the_line_that_it_is_in(path):
    job = make_job("1", f"ftp://h/{path}")
    if job.rejected is None and job.url.startswith("ftp:"):
        with suppress(FetchError):
            assert not set(target_of(job).path) & {0, 10, 13, 255}


# What a server says


async def read(data: bytes) -> Reply:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return await read_reply(reader)


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"220 hello\r\n", 220, b"hello"),
        (b"220 hello\n", 220, b"hello"),
        (b"220\r\n", 220, b""),
        (b"220-a\r\n220 b\r\n", 220, b"a b"),
        (b"220-a\r\n 220 b\r\n221 c\r\n220-d\r\n220\r\n", 220, b"a  220 b 221 c 220-d "),
        (b"211-Features:\r\n MDTM\r\n SIZE\r\n211 End\r\n", 211, b"Features:  MDTM  SIZE End"),
    ],
)
async def test_replies_of_one_line_and_of_several(data, code, text):
    assert await read(data) == Reply(code, text)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", ErrorKind.SERVER_DISCONNECTED),
        (b"220 hel", ErrorKind.SERVER_DISCONNECTED),
        (b"220-hello\r\n", ErrorKind.SERVER_DISCONNECTED),
        (b"\r\n", ErrorKind.BAD_ANSWER),
        (b"020 x\r\n", ErrorKind.BAD_ANSWER),
        (b"620 x\r\n", ErrorKind.BAD_ANSWER),
        (b"2200 x\r\n", ErrorKind.BAD_ANSWER),
        (b"220_x\r\n", ErrorKind.BAD_ANSWER),
        ("\u0662\u0662\u0660 x\r\n".encode(), ErrorKind.BAD_ANSWER),
        (b"220-x\r\n" + b"y\r\n" * 50_000, ErrorKind.BAD_ANSWER),
        (b"220 " + b"y" * 200_000, ErrorKind.BAD_ANSWER),
    ],
)
async def test_what_is_no_reply(data, kind):
    with pytest.raises(FetchError) as caught:
        await read(data)
    assert caught.value.kind is kind


@given(st.lists(st.sampled_from([b"220", b"22", b"-", b" ", b"\r\n", b"\n", b"\x00\xff", b"530"]), max_size=20))
def test_whatever_is_said_is_a_reply_or_a_failure(pieces):
    with suppress(FetchError):
        reply = asyncio.run(read(b"".join(pieces)))
        assert 100 <= reply.code < 600
        assert reply.shown().isprintable()


def test_a_reply_is_shown_without_secrets_and_control_characters():
    shown = Reply(530, b"you: secret is \x1b[1mwrong\n\xff").shown((b"secret", b"you"))
    assert shown == "530 ***: *** is \\x1b[1mwrong \\xff"


# What a listing means


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        (b"type=file;size=5;modify=20260102030405; a b", Entry("a b", "file", 5, "2026-01-02T03:04:05Z")),
        (b"Type=Dir;Modify=20260102030405.123; x", Entry("x", "dir", None, "2026-01-02T03:04:05Z")),
        (b"type=OS.unix=slink:/a;size=1; x", Entry("x", "link", 1, None)),
        (b"type=OS.unix=chr-1/3; x", Entry("x", "other")),
        (b"size=-1;type=file; x", Entry("x", "file")),
        (b" x", Entry("x", "other")),
        (b"type=file;  x", Entry(" x", "file")),
        (b"type=cdir; .", None),
        (b"type=pdir; ..", None),
        ("type=file; \u00e4".encode(), Entry("\u00e4", "file")),
        (b"type=file; \xff", Entry("\\xff", "file")),
    ],
)
def test_lines_of_mlsd(line, entry):
    assert machine_entry(line) == entry


@pytest.mark.parametrize(
    "line", [b"", b"type=file;", b"type=file x", b"-rw-r--r-- 1 a b 1 Jan 1 1970 x", b"type=file; "]
)
def test_what_is_no_line_of_mlsd(line):
    with pytest.raises(FetchError) as caught:
        machine_entry(line)
    assert caught.value.kind is ErrorKind.BAD_ANSWER


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        (b"-rw-r--r--   1 owner    group        1024 Jan  2 12:00 a b.txt", Entry("a b.txt", "file", 1024)),
        (b"-rw-r--r--   1 owner 1024 Jan  2  2020 name", Entry("name", "file", 1024)),
        (b"drwxr-xr-x+  2 0 0 4096 Dec 31 23:59 dir", Entry("dir", "dir")),
        (b"lrwxrwxrwx   1 0 0 7 Jan  2 12:00 link -> a -> b", Entry("link", "link")),
        (b"prw-r--r--   1 0 0 0 Jan  2 12:00 pipe", Entry("pipe", "other")),
        (b"01-02-26  03:04PM       <DIR>          Program Files", Entry("Program Files", "dir")),
        (b"01-02-2026  03:04PM              1,024 a.txt", Entry("a.txt", "file", 1024)),
        (b"total 12", None),
        (b"", None),
        (b"drwxr-xr-x 2 0 0 4096 Dec 31 23:59 ..", None),
    ],
)
def test_lines_of_list(line, entry):
    assert familiar_entry(line) == entry


@pytest.mark.parametrize(
    "line", [b"hello", b"+i8388621.29609,m824255902,/,\ttdev", b"FILE.TXT;1  2/2  1-JAN-2020", b"-"]
)
def test_forms_of_list_that_nobody_reads(line):
    with pytest.raises(ValueError, match=r"."):
        familiar_entry(line)


@given(st.binary(max_size=200))
def test_no_line_of_list_breaks_anything(line):
    with suppress(ValueError):
        familiar_entry(line)
    with suppress(FetchError):
        machine_entry(line)


@given(st.lists(st.binary(min_size=1, max_size=5), max_size=30))
def test_lines_are_the_same_however_they_arrive(pieces):
    whole, split = Lines(), Lines()
    at_once = whole.feed(b"".join(pieces)) + whole.end()
    assert [line for piece in pieces for line in split.feed(piece)] + split.end() == at_once


# What can be gone on with


@pytest.mark.parametrize(
    ("reply", "size"),
    [
        (Reply(213, b"5"), 5),
        (Reply(213, b" 5 "), 5),
        (Reply(213, b"-5"), None),
        (Reply(200, b"5"), None),
        (Reply(550, b"5"), None),
        (Reply(213, b"9" * 30), None),
        (None, None),
    ],
)
def test_sizes(reply, size):
    assert size_of(reply) == size


@pytest.mark.parametrize(
    ("text", "validator"),
    [
        (b"20200102030405", "20200102030405 7"),
        (b"20200102030405.123", "20200102030405.123 7"),
        (b"20201302030405", None),
        (b"20360102030405", None),
        (b"yesterday", None),
    ],
)
def test_what_tells_versions_apart(text, validator):
    assert validator_of(7, Reply(213, text), now=1_600_000_000) == validator


def test_a_file_is_left_alone_for_a_minute_before_it_is_gone_on_with():
    changed_at = Reply(213, b"20200913122640")  # 1,600,000,000
    assert validator_of(7, changed_at, now=1_600_000_059) is None
    assert validator_of(7, changed_at, now=1_600_000_060) is not None
    assert validator_of(7, Reply(550, b""), now=0) is None


def test_only_what_is_of_the_same_version_is_gone_on_with():
    now = Partial("u", "v", 100, verified=True)
    assert to_go_on_with(Partial("u", "v", 100, 40, verified=True), now, 1000).size == 40
    assert to_go_on_with(Partial("u", "v", 100, 100, verified=True), now, 1000).size == 99
    for other in (
        None,
        Partial("u", "w", 100, 40, verified=True),
        Partial("u", "v", 100, 40, verified=False),
        Partial("u", "v", 1, 1, verified=True),
    ):
        assert to_go_on_with(other, now, 1000) is now
    assert to_go_on_with(Partial("u", "v", 100, 40, verified=True), now, 40) is now


# As whom


def logins(*entries) -> Logins:
    return Logins([LoginSettings.model_validate(entry) for entry in entries], "anonymous@")


def test_the_first_entry_that_names_a_host_counts():
    known = logins(
        {"hosts": ["a.test:2121"], "username": "port", "password": "1"},
        {"hosts": ["*.TEST"], "username": "pattern", "password": "2"},
    )
    assert known.of([], target("ftp://a.test:2121/")).username == b"port"
    assert known.of([], target("ftp://a.test/")).username == b"pattern"
    assert known.of([], target("ftp://other.example/")).anonymous
    assert known.of([("Authorization", "Basic bWU6cHc=")], target("ftp://a.test/")) == Login(b"me", b"pw")


@pytest.mark.parametrize("value", ["Bearer x", "Basic", "Basic !!!", "Basic bWU=", "Basic bWU6DQo="])
def test_what_is_no_login_is_refused(value):
    with pytest.raises(FetchError) as caught:
        logins().of([("authorization", value)], target("ftp://a.test/"))
    assert (caught.value.kind, caught.value.sent) == (ErrorKind.INVALID_ROW, False)


def test_a_login_shows_nothing_of_itself():
    assert repr(Login(b"me", b"secret")) == "Login(***)"
    config = FtpConfig.model_validate({"logins": [{"hosts": ["h"], "username": "me", "password": "secret"}]})
    assert "secret" not in repr(config)
    assert isinstance(config, Settings)


@pytest.mark.parametrize(
    "entry",
    [
        {"hosts": ["h"], "username": "me\r\nDELE x", "password": "x"},
        {"hosts": ["h"], "username": "me", "password": "x\ny"},
        {"hosts": [], "username": "me", "password": "x"},
        {"hosts": ["h"], "username": "", "password": "x"},
    ],
)
def test_wrong_logins_are_refused(entry):
    with pytest.raises(ValueError, match=r"."):
        LoginSettings.model_validate(entry)
