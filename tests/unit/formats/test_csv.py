"""CSV: what goes in comes out, and nothing that comes out is a formula."""

from __future__ import annotations

import csv
import io
import json
import re
from base64 import b64decode
from datetime import datetime

import arbitrary
import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fetcher.formats.csv import CsvConfig, CsvFormat
from fetcher.model import Outcome, Result

FIELDS = list(Result.__struct_fields__)
JSON = {"headers", "redirects", "extracted", "meta"}
MINIMAL = {"batch": "b", "job_id": "1", "url": "u", "outcome": Outcome.OK, "attempts": 1}


def rows(data, delimiter=","):
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), delimiter=delimiter, strict=True))


def written(results, **settings):
    form = CsvConfig(**settings).build()
    return form.begin() + form.encode(results)


def text(value):
    """Return what is shown of a text, as docs say that it is to be read."""
    value = value.replace("\0", "\ufffd")
    return f"'{value}" if value.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20'")) else value


def expected(result):
    """Return the cells of a result, from the description in the module."""
    for name in FIELDS:
        value = getattr(result, name)
        if value is None:
            yield name, ""
        elif isinstance(value, str):
            yield name, text(str(value))
        elif isinstance(value, bool):
            yield name, str(value).lower()
        elif isinstance(value, datetime):
            yield name, value.isoformat().replace("+00:00", "Z")
        elif isinstance(value, int | float):
            yield name, str(value)


@arbitrary.UNHURRIED
@given(arbitrary.results())
def test_whatever_comes_in_comes_out(results):
    found = rows(written(results))
    assert len(found) == len(results)
    for row, result in zip(found, results, strict=True):
        assert list(row) == FIELDS
        assert {name: row[name] for name, _ in expected(result) if name != "body_encoding"} == {
            name: cell for name, cell in expected(result) if name != "body_encoding"
        }
        for name in JSON:
            value = getattr(result, name)
            assert (json.loads(row[name]) if row[name] else None) == json.loads(json.dumps(plain(value)))
        assert body(row) == (result.body or b"")


def plain(value):
    if value and not isinstance(value, dict) and hasattr(value[0], "location"):
        return [{"url": hop.url, "status": hop.status, "location": hop.location} for hop in value]
    return value


def body(row):
    if row["body_encoding"] == "base64":
        return b64decode(row["body"].removeprefix("'"))
    return row["body"].removeprefix("'").encode()


@arbitrary.UNHURRIED
@given(arbitrary.results(text=st.text(max_size=20)))
def test_no_cell_of_text_is_a_formula(results):
    for row in csv.reader(io.StringIO(written(results, delimiter=";").decode(), newline=""), delimiter=";"):
        for cell in row:
            assert not cell.startswith(("=", "+", "@", "\t", "\r", "\n"))
            assert not cell.startswith("-") or cell[1:].isdigit()


def test_a_number_is_a_number_and_not_escaped():
    [row] = rows(written([Result(**MINIMAL, content_length=-1)]))
    assert row["content_length"] == "-1"


def test_escaping_can_be_left_out():
    result = Result(**MINIMAL, error_message="=1+1")
    assert rows(written([result]))[0]["error_message"] == "'=1+1"
    assert rows(written([result], spreadsheet_safe=False))[0]["error_message"] == "=1+1"


def test_null_and_nothing_can_be_told_apart():
    form = CsvFormat(["error_message", "meta", "body"])
    assert form.encode([Result(**MINIMAL, error_message="", body=b"")]) == b'"",,""\r\n'
    assert form.encode([Result(**MINIMAL, meta={})]) == b",{},\r\n"


def test_columns_are_those_that_were_asked_for():
    columns = ["url", "status", "meta"]
    assert written([Result(**MINIMAL, status=200, meta={"a": 1})], columns=columns) == (
        b'url,status,meta\r\nu,200,"{""a"":1}"\r\n'
    )


def test_no_results_are_no_rows():
    assert CsvFormat(["url"]).encode([]) == b""


def test_a_body_with_nul_is_base64():
    [row] = rows(written([Result(**MINIMAL, body=b"a\0b")]))
    assert (row["body"], row["body_encoding"]) == ("YQBi", "base64")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["urls"], "a record has no field 'urls'; did you mean 'url'?"),
        (["url", "url"], "has a column twice"),
        (["url", "body"], "has body without body_encoding, which tells text from base64; add it behind body"),
    ],
)
def test_columns_that_make_no_sense_are_refused(columns, message):
    with pytest.raises(ValidationError) as refused:
        CsvConfig(columns=columns)
    assert refused.value.errors()[0]["msg"] == message


@arbitrary.UNHURRIED
@given(arbitrary.results())
def test_duckdb_reads_the_same(results):
    path = _file(written(results))
    found = duckdb.sql(
        f"SELECT job_id, error_message, meta FROM read_csv('{path}', header=true, all_varchar=true, quote='\"', "
        "escape='\"', delim=',', new_line='\\r\\n', allow_quoted_nulls=false)"
    ).fetchall()
    assert [row[0] for row in found] == [result.job_id for result in results]
    for (_, message, meta), result in zip(found, results, strict=True):
        assert message == (None if result.error_message is None else text(result.error_message))
        assert (None if meta is None else json.loads(meta)) == json.loads(json.dumps(result.meta))


_FOLDER = []


def _file(data):
    path = _FOLDER[0] / "x.csv"
    path.write_bytes(data)
    return path


@pytest.fixture(autouse=True, scope="module")
def _folder(tmp_path_factory):
    _FOLDER.append(tmp_path_factory.mktemp("csv"))


def test_values_of_extracted_and_meta_have_columns_of_their_own():
    given = [
        Result(**MINIMAL, extracted={"price": 1.5, "tags": ["a"], "a.b": True}, meta={"shop": "=1+1"}),
        Result(**MINIMAL, extracted={"price": None}),
        Result(**MINIMAL),
    ]
    columns = ["url", "extracted.price", "extracted.tags", "extracted.a.b", "meta.shop", 'meta.a,"b']
    data = written(given, columns=columns)
    assert data.startswith(b'url,extracted.price,extracted.tags,extracted.a.b,meta.shop,"meta.a,""b"\r\n')
    assert [list(row.values()) for row in rows(data)] == [
        ["u", "1.5", '["a"]', "true", "'=1+1", ""],
        ["u", "", "", "", "", ""],
        ["u", "", "", "", "", ""],
    ]


@pytest.mark.parametrize("name", ["extracted.", "headers.x", "extract.price", ".x"])
def test_a_column_of_what_has_no_names_is_refused(name):
    with pytest.raises(ValidationError, match=r"a record has no field|has no name behind the dot"):
        CsvConfig(columns=[name])


@pytest.mark.parametrize(
    ("head", "columns"),
    [
        (b"url,status\r\nu,200\r\n", ["url", "status"]),
        (b"status,url\nof,others", ["status", "url"]),
        (b"\xef\xbb\xbfstatus,url\r\n", ["status", "url"]),
        (b'url,"extracted.a,""\r\nb"\r\nu,1\r\n', ["url", 'extracted.a,"\r\nb']),
        (f"{','.join(FIELDS)}\r\n".encode(), FIELDS),
    ],
)
def test_rows_go_on_with_the_columns_that_are_there(head, columns):
    form = CsvConfig().build()
    form.follow(head)
    result = Result(**MINIMAL, status=200, extracted={'a,"\r\nb': 1})
    assert form.encode([result]) == written([result], columns=columns).removeprefix(CsvFormat(columns).begin())


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"url,statu\r\n", "a record has no field 'statu'; did you mean 'status'?"),
        (b"url;status\r\n", "a record has no field 'url;status'"),
        (b"url,url\r\n", "has a column twice"),
        (b"url,body\r\n", "the column body without body_encoding"),
        (b"url,status", "does not begin with a whole header row"),
        (b'url,"status\r\n', "does not begin with a header row: unexpected end of data"),
        (b"\r\n", "does not begin with a whole header row"),
        (b"\x00\xff\r\n", "a record has no field"),
        (b"u" * 200_000 + b"\r\n", "does not begin with a header row: field larger than"),
    ],
)
def test_a_header_that_no_rows_go_with_is_refused(head, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CsvConfig().build().follow(head)


def test_columns_that_were_asked_for_give_way_to_no_others():
    form = CsvConfig(columns=["url", "status"]).build()
    form.follow(b"url,status\nu,200\n")
    with pytest.raises(ValueError, match=r"has the columns status,url and not those of 'columns', url,status"):
        form.follow(b"status,url\r\n")
    assert form.encode([Result(**MINIMAL, status=200)]) == b"u,200\r\n"
