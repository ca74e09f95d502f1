"""The index of WARC files: each line leads to a record."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import fastwarc
import pytest

from fetcher.cli import app
from fetcher.cli.cdxj import surt
from fetcher.formats.warc import WarcFormat
from fetcher.model import Outcome, Result

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
SUFFIXES = {".warc": "none", ".warc.gz": "gzip", ".warc.zst": "zstd"}


def result(number, **fields):
    about = {
        "batch": "b",
        "job_id": str(number),
        "url": f"http://b{number}.test/page",
        "outcome": Outcome.OK,
        "attempts": 1,
        "status": 200,
        "headers": [("Content-Type", "text/html; charset=utf-8")],
        "body": b"<p>" + str(number).encode(),
        "started_at": CREATED,
    }
    return Result(**about | fields)


def archive(path, results):
    form = WarcFormat(digest="sha1", compression=SUFFIXES["".join(path.suffixes)], created=CREATED)
    path.write_bytes(form.begin() + form.encode(results))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_line_leads_to_its_record(suffix, tmp_path, capfdbinary):
    path = tmp_path / f"x{suffix}"
    failed = result(2, status=None, headers=None, body=None, outcome=Outcome.FAILED)
    archive(path, [result(3), result(1), failed, result(4, revalidated=True, status=304, headers=[])])
    assert app.main(["cdxj", str(path)]) == 0
    lines = capfdbinary.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[b"test,b%d)/page" % n, b"20260101000000"] for n in (1, 3, 4)]
    for line, number in zip(lines, (1, 3, 4), strict=True):
        about = json.loads(line.split(b" ", 2)[2])
        start, end = int(about["offset"]), int(about["offset"]) + int(about["length"])
        (tmp_path / "one").write_bytes(path.read_bytes()[start:end])
        with (tmp_path / "one").open("rb") as file:
            [record] = list(fastwarc.ArchiveIterator(file))
            assert record.headers["WARC-Target-URI"] == about["url"] == f"http://b{number}.test/page"
        assert about["filename"] == path.name
        assert about["mime"] == ("warc/revisit" if number == 4 else "text/html")
        assert about["status"] == ("304" if number == 4 else "200")
        assert about["digest"].startswith("sha1:")


def test_several_files_are_one_index(tmp_path, capfdbinary):
    for number in (2, 1):
        archive(tmp_path / f"{number}.warc.gz", [result(number)])
    assert app.main(["cdxj", str(tmp_path / "2.warc.gz"), str(tmp_path / "1.warc.gz")]) == 0
    names = [json.loads(line.split(b" ", 2)[2])["filename"] for line in capfdbinary.readouterr().out.splitlines()]
    assert names == ["1.warc.gz", "2.warc.gz"]


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://www.Example.org:80/A/?b=2&a=1#top", "org,example)/a?a=1&b=2"),
        ("https://example.org", "org,example)/"),
        ("http://example.org:8080/x/", "org,example:8080)/x"),
        ("http://127.0.0.1/", "127.0.0.1)/"),
        ("http://[::1]:8080/", "::1:8080)/"),
        ("unknown:not%20a%20url", ")not%20a%20url"),
        ("http://[ x", "http://[x"),
    ],
)
def test_the_key_of_a_url(url, key):
    assert surt(url) == key


def test_no_file_is_a_mistake(capfd):
    assert app.main(["cdxj"]) == 2
    assert "no file given" in capfd.readouterr().err


def test_a_file_that_is_not_there_is_said(capfd, tmp_path):
    assert app.main(["cdxj", str(tmp_path / "no.warc")]) == 78
    assert capfd.readouterr().err == f"{tmp_path}/no.warc: can not be read: No such file or directory\n"


@pytest.mark.parametrize("suffix", [".warc", ".warc.gz"])
def test_a_record_that_is_cut_off_is_told_of_and_has_no_line(tmp_path, capfdbinary, suffix):
    path = tmp_path / f"a{suffix}"
    archive(path, [result(1)])
    first = path.stat().st_size
    archive(path, [result(1), result(2, status=None)])  # a last record that is no capture
    whole = path.read_bytes()
    for size in (first + 40, len(whole) - 30, len(whole) - 3):
        path.write_bytes(whole[:size])
        assert app.main(["cdxj", str(path)]) == 1
        output, error = capfdbinary.readouterr()
        assert output.count(b"\n") == 1
        assert b"its last record is cut off" in error
    archive(path, [result(1)])
    path.write_bytes(path.read_bytes()[: first // 4])
    app.main(["cdxj", str(path)])
    assert capfdbinary.readouterr()[0] == b""
