"""What docs/protocols.md shows of tcp and udp is run as it stands there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from origin_process import origin_process
from serve_process import serve_process

from fetcher.cli.app import main
from fetcher.jobs.intake import COMMANDS, SCHEMES

PAGE = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
OURS = PAGE.partition("## TCP and TLS")[2].partition("## FTP")[0]
SESSIONS = "".join(re.findall(r"```console\n(.*?)```", OURS, re.DOTALL))
EXAMPLES = re.findall(r"^\$ (.+)\n((?:[^$].*\n)*)", SESSIONS, re.MULTILINE)
FIRST_PORT = 8901


@pytest.fixture(scope="module")
def here():
    """Return a text with the ports that are shown replaced by those that there are."""
    with origin_process(sockets=True) as origin:

        def replaced(text):
            for index, url in enumerate(origin.places.values()):
                text = text.replace(f"127.0.0.1:{FIRST_PORT + index}", url.partition("://")[2])
            return text

        yield replaced


def test_the_table_of_schemes_has_all_of_them():
    rows = re.findall(r"^\| (`[a-z` ]+`) \|.*\| (`[A-Z` ]+`|any) \| `\w+` \|$", PAGE.partition("## ")[0], re.MULTILINE)
    shown = {scheme: methods for schemes, methods in rows for scheme in re.findall(r"\w+", schemes)}
    assert set(shown) == set(SCHEMES)
    for scheme, methods in COMMANDS.items():
        assert set(re.findall(r"\w+", shown[scheme])) >= set(methods)


@pytest.mark.parametrize(("command", "shown"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_the_examples(here, capfdbinary, command, shown):
    plain = re.sub(r"\$('[^']*')", lambda found: found[1].replace(r"\r", "\r").replace(r"\n", "\n"), here(command))
    program, *rest = shlex.split(plain)
    assert program == "fetcher"
    assert main(rest) == 0
    out = capfdbinary.readouterr().out.decode()
    for part in shown.strip().split("..."):
        assert part in out
    if "--raw" in command:
        assert out.rstrip("\r\n") == shown.strip()


def test_there_are_examples():
    assert len(EXAMPLES) == SESSIONS.count("$ fetcher") == 4


def test_the_config(here, tmp_path, monkeypatch):
    text = re.search(r"<!-- config: sockets -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    Path("sockets.yaml").write_text(here(text))
    assert main(["run", "sockets.yaml"]) == 0
    records = [json.loads(line) for line in Path("out/sockets.jsonl").read_text().splitlines()]
    assert sorted(record["body"] for record in records) == ["PONG\r\n", "grüße\r\n", "hello", "ping"]
    assert {record["method"] for record in records} == {"SEND"}
    assert {record["url"][:3] for record in records if record.get("length_unknown")} == {"tcp"}


def test_clients_of_a_service_reach_no_socket_that_its_guard_forbids(here, tmp_path):
    places = [
        here(f"{scheme}127.0.0.1:{port}") for scheme, port in (("tcp://", 8901), ("tls://", 8901), ("udp://", 8905))
    ]
    with serve_process(tmp_path, "http.guard=true") as service:
        batch = service.submit(sources=[*places, "tcp://localhost:22"], sinks=[{"type": "file", "path": "out.jsonl"}])
        service.wait_for_end(batch)
        records = service.results(batch)
    assert [record["error_kind"] for record in records] == ["blocked"] * 4
