"""``fetcher get`` with all that it can ask, as whoever types it has it."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from origin_process import origin_process

from fetcher.cli.app import main


@pytest.fixture(scope="module")
def origin():
    with origin_process() as process:
        yield process


@pytest.fixture
def get(capfdbinary):
    """Run a get; return its exit code, and the bytes of standard output and error."""

    def run(*arguments):
        code = main(["get", *arguments])
        captured = capfdbinary.readouterr()
        return code, captured.out, captured.err.decode()

    return run


@pytest.fixture
def echoed(get, origin):
    """Return what the origin says that it was asked."""

    def run(*arguments):
        code, out, err = get(f"{origin.url}/json/1", "--raw", *arguments)
        assert (code, err) == (0, "")
        return json.loads(out)

    return run


def test_json(echoed, tmp_path):
    said = echoed("--json", '{"a": [1, null]}', "-X", "PUT")
    assert (said["method"], said["headers"]["content-type"]) == ("PUT", "application/json")
    assert said["body"] == '{"a":[1,null]}'
    (tmp_path / "a.json").write_text("[]")
    assert echoed("--json", f"@{tmp_path / 'a.json'}")["body"] == "[]"


def test_form_and_params(echoed):
    said = echoed("--form", "a=1", "--form", "b=x y&z", "--param", "q=a&b", "--param", "q=2")
    assert (said["method"], said["body"]) == ("POST", "a=1&b=x+y%26z")
    assert said["headers"]["content-type"] == "application/x-www-form-urlencoded"
    assert said["args"] == {"q": ["a&b", "2"]}


def test_multipart(echoed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("contents")
    said = echoed("-F", "note=hello", "-F", "file=@a.txt", "-F", f"again=@{tmp_path / 'a.txt'}")
    assert said["headers"]["content-type"].startswith("multipart/form-data; boundary=")
    assert said["body"].count("contents") == said["body"].count('filename="a.txt"') == 2
    assert 'name="note"' in said["body"]


def test_hex_and_data(echoed):
    assert echoed("--hex", "68656c6c6f")["body"] == "hello"
    assert echoed("-d", "${HOME} {row.x}")["body"] == "${HOME} {row.x}"


def test_data_of_a_file_and_of_standard_input(echoed, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo ${HOME}")
    assert echoed("-d", f"@{tmp_path / 'a.txt'}")["body"] == "one\r\ntwo ${HOME}"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"from there")))
    assert echoed("--data", "-")["body"] == "from there"
    assert echoed("--data-raw", "@a.txt")["body"] == "@a.txt"


def test_a_header_that_is_given_twice_is_sent_twice(echoed):
    assert echoed("-H", "x-a: 1", "-H", "X-A: 2", "-H", "x-b: 3")["headers"]["x-a"] == "1, 2"


def test_a_user_is_known_to_the_server_alone(get, echoed, origin, monkeypatch):
    monkeypatch.setenv("FETCHER_PASSWORD", "secret")
    assert echoed("-u", "me")["headers"]["authorization"] == "Basic bWU6c2VjcmV0"
    code, out, err = get(f"{origin.url}/bytes/1", "-u", "me:secret")
    assert code == 0
    assert b"secret" not in out
    assert b"bWU6c2VjcmV0" not in out
    assert err == ""


def test_raw_is_the_body_byte_by_byte(get, origin):
    code, out, err = get(f"{origin.url}/bytes/3000", "--raw")
    assert (code, len(out), err) == (0, 3000, "")
    code, record, _ = get(f"{origin.url}/bytes/3000")
    assert json.loads(record)["body"].encode() == out


def test_raw_says_what_went_wrong_on_standard_error(get, origin):
    url = f"{origin.url}/status/404"
    assert get(url, "--raw") == (3, b"status 404\n", f"fetcher get: {url}: http_4xx: the server answered 404\n")
    assert get(url, "--raw", "-s", "expect.status=404") == (0, b"status 404\n", "")


def test_expect_works_for_get_as_for_all(get, origin):
    condition = "expect.json=\"path == '/json/2'\""
    assert get(f"{origin.url}/json/2", "-s", condition)[0] == 0
    code, out, _ = get(f"{origin.url}/json/1", "-s", condition, "-s", "expect.retry=false")
    assert (code, json.loads(out)["error_kind"]) == (3, "unexpected")


@pytest.fixture(scope="module")
def places():
    """Return the URLs of what the origin serves beside http, by name."""
    command = [sys.executable, "-m", "fetcher", "origin", "--port", "0", "--sockets"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        found = {}
        while "messages" not in found:
            name, url, *_ = process.stdout.readline().split()
            found[name] = url
        yield found
        process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("place", "arguments", "answer"),
    [
        ("echo", ["--data", "hello"], b"hello"),
        ("echo", ["--data", f"@{__file__}"], Path(__file__).read_bytes()),
        ("messages /echo", ["-d", f"@{__file__}"], Path(__file__).read_bytes()),
        ("echo", ["--hex", "00ff0a00", "--until", "\\n"], b"\x00\xff\n"),
        ("echo", ["-d", "hello", "--length", "2"], b"he"),
        ("slow", ["-d", "hello", "--length", "5"], b"hello"),
        ("echo", ["-d", "hello", "--quiet", "100ms"], b"hello"),
        ("lines", ["-d", "PING\n", "--until", "\\n"], b"PONG\r\n"),
        ("datagrams", ["-d", "hello"], b"hello"),
        ("messages /echo", ["-d", "hello"], b"hello"),
        ("messages /echo", ["--json", '{"a": 1}', "--messages", "1", "-H", "x-a: b"], b'{"a":1}'),
    ],
)
def test_whatever_is_no_http_is_asked_in_the_same_way(get, places, place, arguments, answer):
    name, _, path = place.partition(" ")
    assert get(places[name] + path, "--raw", *arguments) == (0, answer, "")


def test_the_record_of_a_socket(get, places):
    code, out, _ = get(places["echo"], "--data", "hello")
    record = json.loads(out)
    assert (code, record["method"], record["outcome"], record["body"]) == (0, "SEND", "ok", "hello")
    assert "status" not in record


def test_expect_of_what_is_no_http_is_about_its_body(get, places):
    expect = ["-s", "expect.status=200", "-s", "expect.content_type=text/plain", "-s", "expect.retry=false"]
    assert get(places["echo"], "-d", "hello", *expect, "-s", "expect.matches=^h")[0] == 0
    assert get(places["messages"] + "/echo", "-d", "hello", *expect, "-s", "expect.matches=^h")[0] == 0
    code, out, _ = get(places["datagrams"], "-d", "hello", *expect, "-s", "expect.matches=^x")
    assert (code, json.loads(out)["error_kind"]) == (3, "unexpected")


def commands_of(page):
    """Return the arguments of each ``fetcher get`` of a page, as a shell has them."""
    text = page.partition("<!-- commands: get -->\n```bash\n")[2].partition("```")[0]
    shell = f"fetcher() {{ printf '%s\\0' \"$@\"; printf '\\0'; }}\n{text}"
    done = subprocess.run(["bash", "-e"], input=shell, capture_output=True, text=True, check=True)
    return [command.split("\0") for command in done.stdout.split("\0\0")[:-1]]


def test_the_commands_of_the_page_work_as_they_stand_there(get, origin, places, tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "api-jobs.md").read_text()
    page = page.replace("https://api.example.org", f"{origin.url}/json")
    page = page.replace("tcp://lines.example.org:7000", places["lines"])
    page = page.replace("ws://live.example.org", places["messages"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FETCHER_PASSWORD", "secret")
    (tmp_path / "scan.pdf").write_bytes(b"%PDF")
    words = (b"two, please", b"bread & butter", b"%PDF", b"/json/exports/7", b"PONG", b"hello")
    for (name, *arguments), word in zip(commands_of(page), words, strict=True):
        code, out, err = get(*arguments)
        assert (name, code, err) == ("get", 0, "")
        assert word in out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["{url}", "--data", "a", "--hex", "00"], "--data and --hex: a request has one body"),
        (["{url}", "--hex", "0x"], "{url}: body.hex is not hex"),
        (["{url}", "--length", "4"], "--length: means nothing for http: URLs; it is for tcp: and tls:"),
        (["{url}", "-H", "nocolon"], "--header 'nocolon': should be \"name: value\""),
        (["{url}", "-d", "@/no/such"], "--data '@/no/such': can not be read"),
        (["udp://127.0.0.1:9", "-H", "a: b"], "udp://127.0.0.1:9: has headers, which means nothing for udp: URLs"),
        (["tcp://127.0.0.1:9", "--messages", "1"], "--messages: means nothing for tcp: URLs; it is for ws: and wss:"),
        (["tcp://127.0.0.1", "-d", "x"], "tcp://127.0.0.1: has no usable port"),
        (["{url}", "{url}", "--raw"], "--raw writes the body of one URL"),
        (["{url}", "--raw", "--no-body"], "--raw and --no-body: there would be nothing to write"),
        (["{url}", "-u", "me:\x1b[31m"], "{url}: auth has a control character"),
    ],
)
def test_what_can_not_be_meant_is_a_usage_error(get, arguments, why):
    url = "http://127.0.0.1:9/"
    code, out, err = get(*(argument.format(url=url) for argument in arguments))
    assert (code, out) == (2, b"")
    assert err.startswith(f"fetcher get: {why.format(url=url)}")
    assert err.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "arguments",
    [
        ["tcp://bob:hunter2SECRET@127.0.0.1:1"],
        ["ftp://bob:hunter2SECRET@127.0.0.1/x", "--method", "FOO"],
        ["http://bob:hunter2SECRET@127.0.0.1:99999/"],
        ["http://bob:hunter2SECRET@a..b/"],
        ["nothing://bob:hunter2SECRET@host/"],
        ["ftp://bob:hunter2SECRET@127.0.0.1:1/x", "--raw", "-s", "retry.attempts=1"],
    ],
)
def test_no_password_of_a_url_is_written_to_the_terminal(get, arguments):
    code, out, err = get(*arguments)
    assert code in {2, 3}
    assert out == b""
    assert err.startswith("fetcher get: ")
    assert "hunter2" not in err
    assert "bob" not in err
