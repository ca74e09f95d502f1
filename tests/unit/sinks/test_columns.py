from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from fetcher.model import Outcome, Redirect, Result
from fetcher.sinks.columns import COLUMNS, integer, json_text, latest, transposed, writable


def result(number=0, **fields):
    return Result(batch="b", job_id=f"0:{number}", url="http://a.test/", outcome=Outcome.OK, attempts=1, **fields)


def row(given, convert=None):
    values = transposed([given], convert or {})
    return {column.name: value[0] for column, value in zip(COLUMNS, values, strict=True)}


def test_every_field_is_a_column_of_its_type():
    kinds = {column.name: column.kind for column in COLUMNS}
    assert list(kinds) == [field.name for field in msgspec.structs.fields(Result)]
    expected = {
        **dict.fromkeys(("batch", "url", "outcome", "error_kind", "sha256", "remote_ip"), "text"),
        **dict.fromkeys(("status", "attempts", "body_size", "content_length", "schema_version"), "integer"),
        **dict.fromkeys(("total_s", "queue_s"), "real"),
        **dict.fromkeys(("truncated", "verified"), "boolean"),
        **dict.fromkeys(("started_at", "finished_at"), "time"),
        **dict.fromkeys(("headers", "redirects", "extracted", "meta"), "json"),
        "body": "blob",
    }
    assert {name: kinds[name] for name in expected} == expected
    assert {column.name for column in COLUMNS if column.required} == {"batch", "job_id", "url", "outcome", "attempts"}


def test_values_are_converted_by_kind_and_null_stays_null():
    given = result(headers=[("A", "b")], redirects=[Redirect("u", 302, "v")], content_length=2**63)
    found = row(given, {"json": json_text, "integer": integer})
    assert json.loads(found["headers"]) == [["A", "b"]]
    assert json.loads(found["redirects"]) == [{"url": "u", "status": 302, "location": "v"}]
    assert found["content_length"] is None
    assert found["attempts"] == 1
    assert found["meta"] is None


@pytest.mark.parametrize(
    ("number", "kept"), [(2**63 - 1, True), (-(2**63), True), (2**63, False), (-(2**63) - 1, False)]
)
def test_integers_have_64_bits(number, kept):
    assert integer(number) == (number if kept else None)


def test_a_lone_surrogate_becomes_a_question_mark():
    assert writable("a\udcffb") == "a?b"
    assert writable("ä\U0001f600") == "ä\U0001f600"
    assert json_text({"\udcff": [("\udcfe", None)]}) == '{"?":[["?",null]]}'
    assert json_text([Redirect("\udcff", 301, "")]) == '[{"url":"?","status":301,"location":""}]'


def test_of_records_with_the_same_key_the_last_one_counts():
    first, other, last = result(1, status=500), result(2), result(1, status=200)
    assert latest([first, other, last]) == [last, other]
    alone = [first, other]
    assert latest(alone) is alone


def test_times_stay_what_they_are_for_databases_that_have_them():
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    assert row(result(started_at=moment))["started_at"] is moment
