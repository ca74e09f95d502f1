"""What people and programs put into the files that URLs come from."""

from __future__ import annotations

import gzip
import os
import tracemalloc

import pytest
from batches import run_batch
from origin_process import origin_process

from fetcher.sources.file import FileSourceConfig

LINES = int(os.environ.get("LINES", "100000"))
HOSTILE = [
    b"\x00",
    b"http://a.test/\x00",
    b"http://a.test/\xff\xfe",
    b"http://a.test/" + b"x" * 70_000,
    b"http://a.test:99999/",
    b"javascript:alert(1)",
    b"\x1b[2Jhttp://a.test/",
]
SILENT = [b"", b"   ", b"# a comment", b"\t# another"]


def write_lines(path, count):
    """Write so many lines, of which every hundredth is hostile and every hundred-and-first says nothing."""
    rejected = jobs = 0
    with gzip.open(path, "wb", compresslevel=1) if path.suffix == ".gz" else path.open("wb") as out:
        out.write(b"\xef\xbb\xbf")
        for number in range(1, count + 1):
            if number % 100 == 0:
                line = HOSTILE[number // 100 % len(HOSTILE)]
                rejected += 1
            elif number % 101 == 0:
                out.write(SILENT[number // 101 % len(SILENT)] + b"\n")
                continue
            else:
                line = b"http://a.test/%d" % number
            jobs += 1
            out.write(line + (b"\r\n" if number % 3 else b"\n"))
    return jobs, rejected


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["urls.txt", "urls.txt.gz"])
async def test_f99_a_file_of_any_length_takes_constant_memory(tmp_path, name):
    expected = write_lines(tmp_path / name, LINES)
    found = rejected = 0
    tracemalloc.start()
    try:
        async for chunk in FileSourceConfig(path=str(tmp_path / name)).build().read(None):
            found += len(chunk.jobs)
            rejected += sum(job.rejected is not None for job in chunk.jobs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found, rejected) == expected
    assert peak < 6_000_000


async def test_f99_a_bad_line_is_a_skipped_record_with_its_number(tmp_path):
    path = tmp_path / "urls.txt"
    with origin_process() as origin:
        lines = [b"\xef\xbb\xbf" + f"{origin.url}/bytes/1?first".encode(), *SILENT, *HOSTILE]
        path.write_bytes(b"\r\n".join([*lines, f"{origin.url}/bytes/1?last".encode()]))
        records = await run_batch(tmp_path, [], sources=[str(path)])
    outcomes = {record["job_id"]: record["outcome"] for record in records}
    first_bad = 2 + len(SILENT)
    bad = {f"0-{number}": "skipped" for number in range(first_bad, first_bad + len(HOSTILE))}
    assert outcomes == {"0-1": "ok", **bad, f"0-{first_bad + len(HOSTILE)}": "ok"}
    skipped = [record for record in records if record["outcome"] == "skipped"]
    assert {record["error_kind"] for record in skipped} == {"invalid_row", "invalid_url", "unsupported_scheme"}
    assert all(record["error_message"] and len(record["url"]) < 1000 for record in skipped)
