"""Compression: each batch is whole by itself, so that a file can be cut after any of them."""

from __future__ import annotations

import gzip
import sys

import arbitrary
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.formats.compression import compressed
from fetcher.formats.csv import CsvConfig
from fetcher.formats.jsonl import JsonlConfig, JsonlFormat
from fetcher.registry import format_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

READERS = {"gzip": gzip.decompress, "zstd": zstd.decompress}


@arbitrary.UNHURRIED
@given(
    st.lists(arbitrary.results(), max_size=4),
    st.sampled_from(sorted(READERS)),
    st.sampled_from([JsonlConfig, CsvConfig]),
    st.data(),
)
def test_a_file_cut_after_any_batch_is_whole(batches, compression, config, data):
    form, plain = config(compression=compression).build(), config().build()
    pieces = [form.begin(), *(form.encode(batch) for batch in batches)]
    originals = [plain.begin(), *(plain.encode(batch) for batch in batches)]
    end = data.draw(st.integers(0, len(pieces)))
    read = READERS[compression](b"".join(pieces[:end])) if any(pieces[:end]) else b""
    assert read == b"".join(originals[:end])


@pytest.mark.parametrize("compression", READERS)
def test_nothing_is_compressed_to_nothing(compression):
    form = JsonlConfig(compression=compression).build()
    assert form.begin() == form.encode([]) == b""


def test_no_compression_is_the_format_itself():
    form = JsonlFormat()
    assert compressed(form, "none") is form


@pytest.mark.parametrize("compression", READERS)
def test_damage_is_noticed(compression):
    class Long(JsonlFormat):
        def begin(self):
            return bytes(range(256)) * 4

    data = bytearray(compressed(Long(), compression).begin())
    data[len(data) // 2] ^= 1
    with pytest.raises(Exception, match=r"."):
        READERS[compression](bytes(data))


@pytest.mark.parametrize(
    ("path", "given", "expected"),
    [
        ("a.jsonl", None, {"type": "jsonl"}),
        ("s3://bucket/A.JSONL.GZ", None, {"type": "jsonl", "compression": "gzip"}),
        ("out/a.csv.zst", None, {"type": "csv", "compression": "zstd"}),
        (
            "a.warc.gz",
            {"type": "warc", "digest": "sha256"},
            {"type": "warc", "digest": "sha256", "compression": "gzip"},
        ),
        ("a.warc.gz", {"type": "warc", "compression": "none"}, {"type": "warc", "compression": "none"}),
        ("a.gz", "jsonl", {"type": "jsonl", "compression": "gzip"}),
        ("a.txt", "csv", {"type": "csv"}),
        ("a.parquet", None, {"type": "parquet"}),
        ("a.gz", "parquet", {"type": "parquet"}),
        ("a.gz", {"type": "nonsense"}, {"type": "nonsense"}),
        ("a.gz", {"no": "type"}, {"no": "type"}),
        ("a.gz", 7, 7),
    ],
)
def test_the_suffixes_say_format_and_compression(path, given, expected):
    assert format_of(path, given) == expected


@pytest.mark.parametrize("path", ["a.txt", "a.gz", "a.parquet.gz", "jsonl", "a.jsonl.bz2"])
def test_other_suffixes_are_none(path):
    with pytest.raises(ValueError, match="it ends in none of") as refused:
        format_of(path)
    assert ".jsonl, .ndjson, .csv, .warc (or these with .gz or .zst behind), .parquet" in str(refused.value)


@pytest.mark.parametrize("compression", sorted(READERS))
def test_rows_go_on_with_the_columns_of_a_compressed_header(compression):
    head = compressed(CsvConfig(columns=["status", "url"]).build(), compression).begin()
    form = CsvConfig(compression=compression).build()
    form.follow(head + b"another member")
    assert READERS[compression](form.begin()) == b"status,url\r\n"
    with pytest.raises(ValueError, match=f"is not compressed with {compression}"):
        form.follow(b"status,url\r\n")
    JsonlConfig(compression=compression).build().follow(b"nothing that it would look at")
