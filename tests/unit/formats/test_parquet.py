"""Parquet: types, partitions and row groups, as pyarrow and duckdb see them; drafts and what becomes of them."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from urllib.parse import unquote

import arbitrary
import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fetcher.formats.columns import SCHEMA
from fetcher.formats.parquet import ParquetConfig
from fetcher.model import Outcome, Result

MIB = 1024 * 1024


def form(**settings):
    return ParquetConfig(**settings).build()


def results(*urls, **fields):
    return [
        Result(batch="b", job_id=str(n), url=url, outcome=Outcome.OK, attempts=1, **fields)
        for n, url in enumerate(urls)
    ]


def read(data):
    return pq.read_table(io.BytesIO(data)).to_pylist()


def parts(shape, drafts, folder):
    """Make drafts into files, named as a sink would."""
    made = []

    def create(partition):
        (folder / partition).mkdir(exist_ok=True)
        made.append(folder / partition / "part-0.parquet")
        return made[-1]

    (folder / "_drafts").write_bytes(drafts)
    shape.write(folder / "_drafts", create)
    return made


def same(record, result):
    """Compare a row with the result that it is of, as the module describes it."""
    for name in SCHEMA.names:
        value, found = getattr(result, name), record[name]
        if name == "headers":
            assert found == (None if value is None else [{"name": n, "value": v} for n, v in value])
        elif name == "redirects":
            assert found == (
                None if value is None else [{"url": h.url, "status": h.status, "location": h.location} for h in value]
            )
        elif name in {"extracted", "meta"}:
            assert (None if found is None else json.loads(found)) == json.loads(json.dumps(value))
        else:
            assert found == value


@arbitrary.UNHURRIED
@given(arbitrary.results())
def test_whatever_comes_in_comes_out(results):
    found = read(form().encode(results))
    assert len(found) == len(results)
    for record, result in zip(found, results, strict=True):
        same(record, result)


@arbitrary.UNHURRIED
@given(arbitrary.results(text=st.text(max_size=9), name=st.text(max_size=9), value=st.text(max_size=9)))
def test_no_text_at_all_can_break_a_batch(results):
    assert [record["job_id"] for record in read(form().encode(results))] == [result.job_id for result in results]


def test_types_are_those_of_the_fields():
    types = {name: str(SCHEMA.field(name).type) for name in SCHEMA.names}
    assert list(types) == list(Result.__struct_fields__)
    assert types["started_at"] == "timestamp[us, tz=UTC]"
    assert types["status"] == types["body_size"] == "int64"
    assert types["total_s"] == "double"
    assert types["truncated"] == "bool"
    assert types["body"] == "binary"
    assert types["outcome"] == types["error_kind"] == types["meta"] == "string"


def test_an_integer_that_is_too_long_is_null():
    found = read(form().encode(results("u", content_length=10**30) + results("v", content_length=5)))
    assert [record["content_length"] for record in found] == [None, 5]


@pytest.mark.parametrize("codec", ["zstd", "snappy", "gzip", "none"])
def test_the_codec_is_the_one_that_was_asked_for(codec):
    file = pq.ParquetFile(io.BytesIO(form(codec=codec).encode(results("u"))))
    expected = "UNCOMPRESSED" if codec == "none" else codec.upper()
    assert file.metadata.row_group(0).column(0).compression == expected


@pytest.mark.parametrize(
    ("partition_by", "expected"), [("none", [1200, 1200, 1200, 400]), ("host", [1024] * 3 + [928])]
)
def test_row_groups_are_as_large_as_was_asked_for(tmp_path, partition_by, expected):
    shape = form(row_group=MIB, partition_by=partition_by)
    drafts = b"".join(shape.draft(results(*["http://a.test/"] * 400, body=bytes(1000))) for _ in range(10))
    [part] = parts(shape, drafts, tmp_path)
    file = pq.ParquetFile(part)
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert sizes == expected


def hosts(path):
    table = ds.dataset(path, format="parquet", partitioning="hive").to_table()
    return sorted(zip(table["url"].to_pylist(), table["host"].to_pylist(), strict=True))


def test_partitions_by_host_are_what_readers_expect(tmp_path):
    long = "a" * 60
    urls = [
        "http://a.test/1",
        "http://b.test:80/",
        "http://A.test./2",
        "http://[::1]/",
        f"http://{'.'.join([long] * 4)}/",
    ]
    made = parts(form(partition_by="host"), form().draft(results(*urls, "no url", "http://[/")), tmp_path)
    assert len(made) == 5
    found = dict(hosts(tmp_path))
    assert found["http://a.test/1"] == found["http://A.test./2"] == "a.test"
    assert found["http://b.test:80/"] == "b.test"
    assert found["no url"] is None
    assert found["http://[/"] is None
    assert found["http://[::1]/"] == "::1"
    assert all(len(unquote(path.parent.name)) < 250 for path in made)
    rows = duckdb.sql(
        f"SELECT url FROM read_parquet('{tmp_path}/*/*.parquet', hive_partitioning=true) WHERE host='a.test'"
    )
    assert sorted(rows.fetchall()) == [("http://A.test./2",), ("http://a.test/1",)]


def test_partitions_by_date_are_what_readers_expect(tmp_path):
    first, second = datetime(2026, 1, 1, 23, 59, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    given = results("a", started_at=first, finished_at=second) + results("b", finished_at=second) + results("c")
    made = parts(form(partition_by="date"), form().draft(given), tmp_path)
    assert [path.parent.name for path in made] == [
        "date=2026-01-01",
        "date=2026-01-02",
        "date=__HIVE_DEFAULT_PARTITION__",
    ]


@arbitrary.UNHURRIED
@given(
    st.lists(
        st.lists(st.sampled_from(["http://a.test/", "http://b.test/", "http://c.test/", "?"]), max_size=4), max_size=5
    ),
    st.sampled_from(["none", "host"]),
    st.data(),
)
def test_the_last_records_of_a_part_can_be_taken_back(tmp_path_factory, batches, partition_by, data):
    folder = tmp_path_factory.mktemp("undo")
    shape = form(partition_by=partition_by)
    numbered = [[Result(batch="b", job_id="?", url=url, outcome=Outcome.OK, attempts=1) for url in b] for b in batches]
    for number, result in enumerate(result for batch in numbered for result in batch):
        result.job_id = str(number)
    drafts = b"".join(shape.draft(batch) for batch in numbered)
    total = sum(map(len, numbered))
    made = parts(shape, drafts, folder) if total else []
    assert sum(shape.count(part) for part in made) == total
    kept = data.draw(st.integers(0, total))
    back = folder / "_back"
    back.write_bytes(b"".join(shape.undo(made, kept)))
    assert shape.length(back, kept) == back.stat().st_size
    again = folder / "again"
    again.mkdir()
    found = [row for part in parts(form(), back.read_bytes(), again) for row in pq.ParquetFile(part).read().to_pylist()]
    assert sorted(int(row["job_id"]) for row in found) == list(range(kept))


def test_the_length_of_drafts_is_known_where_one_ends(tmp_path):
    shape = form()
    first, second = shape.draft(results("a", "b")), shape.draft(results("c"))
    path = tmp_path / "drafts"
    path.write_bytes(first + second + b"torn")
    assert [shape.length(path, rows) for rows in (0, 2, 3)] == [0, len(first), len(first + second)]
    for rows in (1, 4):
        with pytest.raises(ValueError, match="ends before them"):
            shape.length(path, rows)
    path.write_bytes(first[:-1])
    with pytest.raises(ValueError, match="ends before them"):
        shape.length(path, 2)


def test_pyarrow_is_loaded_by_those_who_use_it_and_nobody_else():
    script = (
        "import sys\n"
        "sys.modules['pyarrow'] = None\n"
        "from fetcher.config import Config\n"
        "from fetcher.sinks.file import FileSinkConfig\n"
        "from fetcher.errors import MissingExtraError\n"
        "config = FileSinkConfig(path='x.parquet')\n"
        "FileSinkConfig(path='x.jsonl').build()\n"
        "try:\n"
        "    config.build()\n"
        "except MissingExtraError as error:\n"
        "    print(error, error.exit_code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert re.fullmatch(
        r"the format parquet needs pyarrow, which is not installed; install it with: pip install 'pyarrow>=\S+' 78\n",
        done.stdout,
    )


def test_a_schema_can_be_read_without_the_program():
    file = pq.ParquetFile(io.BytesIO(form().encode(results("u", headers=[("a", "b")]))))
    assert file.schema_arrow.field("headers").type == pa.list_(
        pa.struct([("name", pa.string()), ("value", pa.string())])
    )


COLUMNS = ["status", "url", "extracted.price", "meta.shop"]


def test_columns_may_be_chosen_and_values_of_extracted_have_their_own(tmp_path):
    shape = form(columns=COLUMNS)
    records = results("http://a", status=200, extracted={"price": 1.5}, meta={"shop": "x"}) + results("http://b")
    expected = [
        {"status": 200, "url": "http://a", "extracted.price": "1.5", "meta.shop": "x"},
        {"status": None, "url": "http://b", "extracted.price": None, "meta.shop": None},
    ]
    assert read(shape.encode(records)) == expected
    assert read(shape.encode([])) == []
    drafts = shape.draft(records[:1]) + shape.draft(records[1:])
    [part] = parts(shape, drafts, tmp_path)
    assert pq.read_table(part).to_pylist() == expected
    (tmp_path / "again").mkdir()
    [part] = parts(shape, b"".join(shape.undo([part], 1)), tmp_path / "again")
    assert pq.read_table(part).to_pylist() == expected[:1]


def test_chosen_columns_may_be_partitioned(tmp_path):
    shape = form(columns=COLUMNS, partition_by="host")
    made = parts(shape, shape.draft(results("http://a/", "http://b/", "http://a/2")), tmp_path)
    assert sorted(part.parent.name for part in made) == ["host=a", "host=b"]
    assert b"".join(shape.undo(made, 3)) != b""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"columns": ["urls"]}, "a record has no field 'urls'; did you mean 'url'?"),
        ({"columns": []}, "at least 1 item"),
        ({"columns": ["url", "url"]}, "has a column twice"),
        (
            {"columns": ["status"], "partition_by": "host"},
            "partition_by: host goes by url, which is not among the columns",
        ),
        ({"columns": ["finished_at"], "partition_by": "date"}, "goes by started_at, which is not among the columns"),
    ],
)
def test_columns_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValidationError) as refused:
        ParquetConfig(**settings)
    assert message in str(refused.value)
