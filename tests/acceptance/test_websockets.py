"""What docs/protocols.md shows of web sockets, and of the server to try all of it on, is run as it stands there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from origin_process import origin_process

from fetcher.cli.app import main

PAGE = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
TRYING = PAGE.partition("## A server to try them on")[2].partition("\n## ")[0]
SESSION = re.search(r"```console\n(.*?)```", TRYING, re.DOTALL)[1]
EXAMPLES = re.findall(r"^\$ (.+)\n((?:[^$].*\n)*)", SESSION, re.MULTILINE)
FIRST_PORT = 8901


@pytest.fixture(scope="module")
def origin():
    with origin_process(sockets=True) as process:
        yield process


@pytest.fixture(scope="module")
def here(origin):
    """Return a text with the ports that are shown replaced by those that there are."""

    def replaced(text):
        for index, url in enumerate(origin.places.values()):
            text = text.replace(f"127.0.0.1:{FIRST_PORT + index}", url.partition("://")[2])
        return text

    return replaced


def test_what_the_origin_prints_is_what_it_shows(origin, here):
    shown = [line.split() for line in TRYING.splitlines() if re.match(r"  \w+ +\w+://", line)]
    assert {name: here(url) for name, url, *_ in shown} == origin.places


def arguments(command):
    """Split a command as a shell does, ``$'...'`` included."""
    plain = re.sub(r"\$('[^']*')", lambda found: found[1].replace(r"\r", "\r").replace(r"\n", "\n"), command)
    return shlex.split(plain)


@pytest.mark.parametrize(("command", "shown"), EXAMPLES, ids=[command.split()[2] for command, _ in EXAMPLES])
def test_the_examples(here, capfdbinary, command, shown):
    program, *rest = arguments(here(command))
    assert program == "fetcher"
    code = main(rest)
    out = capfdbinary.readouterr().out.decode()
    for part in shown.strip().split("..."):
        assert part in out
    assert (code == 0) is ("error_kind" not in shown)
    if "--raw" in command:
        assert out.rstrip("\r\n") == shown.strip()


def test_there_are_examples():
    assert len(EXAMPLES) == SESSION.count("$ fetcher") > 5


def test_the_config(here, tmp_path, monkeypatch):
    text = re.search(r"<!-- config: websocket -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    Path("prices.yaml").write_text(here(text))
    assert main(["run", "prices.yaml"]) == 0
    records = [json.loads(line) for line in Path("out/prices.jsonl").read_text().splitlines()]
    by_id = {record["job_id"]: record for record in records}
    bodies = [by_id[job_id]["body"] for job_id in sorted(by_id, key=lambda key: int(key.rpartition("-")[2]))]
    assert bodies[0] == "hello"
    assert [len(json.loads(body)) for body in bodies[1:]] == [3, 5, 9]
    assert [record["method"] for record in records].count("SEND") == 1
    assert {record["status"] for record in records} == {101}
