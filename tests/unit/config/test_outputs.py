"""Sinks that are written as a text: the suffixes say the format, the scheme says where."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fetcher.config import Config
from fetcher.config.model import sink_fingerprints


def sink(text):
    return Config.model_validate({"sources": ["http://h.test/"], "sinks": [text]}).sinks[0]


@pytest.mark.parametrize(
    ("text", "kind", "form", "compression"),
    [
        ("out/pages.jsonl", "file", "jsonl", "none"),
        ("out/pages.ndjson.gz", "file", "jsonl", "gzip"),
        ("out/pages.csv.zst", "file", "csv", "zstd"),
        ("out/pages.warc", "file", "warc", "none"),
        ("OUT/PAGES.WARC.GZ", "file", "warc", "gzip"),
        ("s3://bucket/pages.jsonl.zst", "objectstore", "jsonl", "zstd"),
        ("gs://bucket/x/pages.csv", "objectstore", "csv", "none"),
        ("az://container/pages.warc.gz", "objectstore", "warc", "gzip"),
    ],
)
def test_a_text_says_type_format_and_compression(text, kind, form, compression):
    found = sink(text)
    assert (found.type, found.format.type, found.format.compression) == (kind, form, compression)
    assert found.path == text


@pytest.mark.parametrize(
    ("text", "kind"), [("out/pages.parquet", "file"), ("s3://bucket/pages.parquet", "objectstore")]
)
def test_parquet_has_compression_of_its_own(text, kind):
    found = sink(text)
    assert (found.type, found.format.type, found.format.codec) == (kind, "parquet", "zstd")


@pytest.mark.parametrize("text", ["ftp://me:secret@host/out.jsonl", "https://me:secret@host/out.jsonl"])
def test_other_addresses_are_refused_without_being_shown(text):
    with pytest.raises(ValidationError, match=r"no sink takes (ftp|https): URLs alone") as refused:
        sink(text)
    assert "secret" not in refused.value.errors()[0]["msg"]


def test_an_output_with_another_compression_is_another_output():
    configs = [
        {"type": "file", "path": "x.out", "format": {"type": "jsonl", "compression": compression}}
        for compression in ("none", "gzip", "zstd")
    ]
    prints = {sink_fingerprints(Config.model_validate({"sources": ["u.txt"], "sinks": [one]}))[0] for one in configs}
    assert len(prints) == 3
