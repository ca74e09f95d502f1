"""Records are given whole, from any cursor on, and never beyond what is acknowledged."""

from __future__ import annotations

import json
import random

import pytest

from fetcher.errors import CursorError
from fetcher.service.batches.results import PART, Wanted, read

ALL = Wanted()


def write(path, count, size=lambda n: n % 700):
    lines = []
    for n in range(count):
        outcome, kind = [("ok", {}), ("failed", {"error_kind": "http_5xx"}), ("failed", {"error_kind": "dns_failure"})][
            n % 3
        ]
        lines.append(json.dumps({"job_id": str(n), "outcome": outcome, "body": "x" * size(n)} | kind).encode() + b"\n")
    path.write_bytes(b"".join(lines))
    return lines


async def collect(path, cursor, end, wanted=ALL, limit=None):
    found, cursors = b"", []
    async for lines, after in read(path, cursor, end, wanted, limit):
        found += lines
        cursors.append(after)
    return found, cursors


async def test_all_lines_come_in_parts_and_every_cursor_goes_on_where_it_stands(tmp_path):
    path = tmp_path / "results.jsonl"
    lines = write(path, 5000)
    size = path.stat().st_size
    found, cursors = await collect(path, 0, size)
    assert found == b"".join(lines)
    assert len(cursors) > size // PART
    cursor = random.Random(1).choice(cursors)
    assert (await collect(path, cursor, size))[0] == found[cursor:]


async def test_what_is_not_acknowledged_is_not_shown(tmp_path):
    path = tmp_path / "results.jsonl"
    lines = write(path, 10)
    end = sum(map(len, lines[:6]))
    with path.open("ab") as file:
        file.write(b'{"torn')
    assert (await collect(path, 0, end))[0] == b"".join(lines[:6])
    assert (await collect(path, end, end))[0] == b""


async def test_a_record_longer_than_a_part_comes_whole(tmp_path):
    path = tmp_path / "results.jsonl"
    lines = write(path, 4, size=lambda n: PART * 5 if n == 1 else 3)
    assert (await collect(path, 0, path.stat().st_size))[0] == b"".join(lines)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(outcome="ok"), lambda n: n % 3 == 0),
        (Wanted(outcome="failed"), lambda n: n % 3 > 0),
        (Wanted(kind="dns_failure"), lambda n: n % 3 == 2),
        (Wanted(outcome="ok", kind="dns_failure"), lambda n: False),
    ],
)
async def test_filters_are_by_outcome_and_by_kind(tmp_path, wanted, expected):
    path = tmp_path / "results.jsonl"
    lines = write(path, 2000)
    found, cursors = await collect(path, 0, path.stat().st_size, wanted)
    assert found == b"".join(line for n, line in enumerate(lines) if expected(n))
    assert cursors[-1] == path.stat().st_size  # what does not fit was looked at, too


@pytest.mark.parametrize("wanted", [ALL, Wanted(outcome="failed")])
async def test_a_limit_stops_after_that_record_and_the_cursor_goes_on_from_it(tmp_path, wanted):
    path = tmp_path / "results.jsonl"
    lines = write(path, 300)
    end, cursor, pages = path.stat().st_size, 0, []
    while cursor < end:
        found, cursors = await collect(path, cursor, end, wanted, limit=7)
        assert found.count(b"\n") <= 7
        pages.append(found)
        cursor = cursors[-1]
    fitting = [line for n, line in enumerate(lines) if wanted is ALL or n % 3]
    assert b"".join(pages) == b"".join(fitting)
    assert (await collect(path, 0, end, wanted, limit=0)) == (b"", [])


@pytest.mark.parametrize("cursor", [1, 5, -1, 10**9])
async def test_a_cursor_that_is_nowhere_is_refused(tmp_path, cursor):
    path = tmp_path / "results.jsonl"
    write(path, 3)
    with pytest.raises(CursorError, match="is not where a record of these results begins"):
        await collect(path, cursor, path.stat().st_size)


async def test_there_may_be_no_results_yet(tmp_path):
    assert await collect(tmp_path / "results.jsonl", 0, 0) == (b"", [])
    with pytest.raises(CursorError):
        await collect(tmp_path / "results.jsonl", 0, 5)
