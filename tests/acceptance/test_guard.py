"""``--guard``: what a person meets who asks for what must not be reached."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from origin_process import origin_process


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    log = tmp_path_factory.mktemp("origin") / "access.jsonl"
    with origin_process(log) as running:
        yield running


@pytest.fixture
def fetcher(tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "fetcher", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_get_with_the_guard_reaches_nothing_on_this_machine(fetcher, origin):
    done = fetcher("get", "--guard", f"http://0x7f.1:{origin.port}/json/1")
    assert done.returncode == 3
    record = json.loads(done.stdout)
    assert (record["outcome"], record["error_kind"], record["attempts"]) == ("failed", "blocked", 1)
    assert record["url"] == f"http://127.0.0.1:{origin.port}/json/1"
    assert record["error_message"] == (
        "127.0.0.1 is blocked (127.0.0.0/8: loopback, RFC 1122); "
        "http.guard.allow with 127.0.0.1 or its network would allow it"
    )
    assert fetcher("get", f"{origin.url}/json/1").returncode == 0


def test_run_with_the_guard_keeps_what_the_config_allows(fetcher, tmp_path, origin):
    text = f"sources: ['{origin.url}/json/1', 'http://127.0.0.9:{origin.port}/json/1']\nsinks: [out.jsonl]\n"
    for number, (more, outcomes) in enumerate(
        [("", ["blocked", "blocked"]), ("http: {guard: {allow: [127.0.0.1]}}\n", ["blocked", "ok"])]
    ):
        (tmp_path / f"batch{number}.yaml").write_text(text.replace("out", f"out{number}") + more)
        assert fetcher("run", "--guard", f"batch{number}.yaml").returncode == 3
        records = [json.loads(line) for line in (tmp_path / f"out{number}.jsonl").read_text().splitlines()]
        assert sorted(record.get("error_kind", "ok") for record in records) == outcomes


@pytest.mark.parametrize("switch", ["http.guard=true", "http.guard={ports: [80]}"])
def test_the_guard_can_be_set_like_any_value(fetcher, origin, switch):
    done = fetcher("get", f"{origin.url}/json/1", "-s", switch)
    assert json.loads(done.stdout)["error_kind"] == "blocked"


SITEMAP = "<urlset><url><loc>http://127.0.0.9:9/{}</loc></url></urlset>"


@pytest.fixture
def inside():
    """A server of this machine that has a sitemap, and takes whatever is posted to it."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SITEMAP.format(self.path).encode())

        def do_POST(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_address[1]}", asked=asked)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("how", ["--guard", "http: {guard: true}"])
@pytest.mark.parametrize("part", ["sitemap", "webhook"])
def test_the_guard_is_that_of_all_parts_unless_they_say_otherwise(fetcher, tmp_path, inside, how, part):
    sources, sinks = "http://127.0.0.1:9/", "out.jsonl"
    if part == "sitemap":
        sources = f"{{type: sitemap, location: '{inside.url}/s.xml'{{guard}}}}"
    else:
        sinks = f"{{type: webhook, url: '{inside.url}/hook'{{guard}}}}"
    text = f"sources: [{sources}]\nsinks: [{sinks}]\nretry: {{attempts: 1}}\n"
    flags = ["--guard"] if how == "--guard" else []
    more = "" if flags else how
    (tmp_path / "batch.yaml").write_text(text.replace("{guard}", "") + more)
    done = fetcher("run", *flags, "batch.yaml")
    assert (done.returncode, inside.asked) == (78, [])
    assert "127.0.0.1 is blocked" in done.stderr
    (tmp_path / "batch.yaml").write_text(text.replace("{guard}", ", guard: false") + more)
    assert fetcher("run", *flags, "batch.yaml").returncode == 3  # what it names is blocked
    assert inside.asked
