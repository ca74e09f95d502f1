"""Conditions over records: what they mean, and what no condition can be."""

from __future__ import annotations

import re

import msgspec
import pytest

from fetcher.conditions import Condition
from fetcher.model import Outcome, Result

RECORD = Result(
    batch="b",
    job_id="1",
    url="http://a.test/Page?x=1",
    outcome=Outcome.OK,
    attempts=2,
    status=200,
    total_s=0.5,
    headers=[("X-A", "one"), ("x-a", "two")],
    content_type="text/html; charset=utf-8",
    body=b"<h1>caf\xc3\xa9</h1>",
    meta={"lang": "de", "n": 3, "deep": {"list": [1, {"x": None}]}},
)


@pytest.mark.parametrize(
    "text",
    [
        "status == 200",
        "200 <= status < 300",
        "outcome == 'ok' and attempts > 1",
        "status in [200, 404] and status not in (500,)",
        "'html' in content_type and not truncated",
        "'café' in body",
        "meta.lang == 'de'",
        "meta['n'] >= 3 and meta.deep.list[0] == 1",
        "meta.deep.list[-1].x == null",
        "meta.none.of.this == null and extracted.x == null",
        "header('x-a') == 'one, two'",
        "header('x-b') == null",
        "matches(url, '/page', ) or matches(lower(url), '/page')",
        "matches(body, 'h1')",
        "error_kind != 'http_4xx'",
        "not (status == 404)",
        "status > -1 and true and not false",
        "total_s <= 0.5",
    ],
)
def test_what_is_so(text):
    assert Condition(text)(RECORD)


@pytest.mark.parametrize(
    "text",
    [
        "status != 200",
        "content_length > 0",  # null is in no order with anything
        "content_length < 0",
        "'x' in error_message",
        "meta.lang > 3",
        "body_size",
        "meta.lang.deeper.still",
        "meta.__class__",
        "meta.deep.list[99]",
        "matches(status, '2')",
        "status in body",
        "1e9 in body",
        "-1 in body",
        "'x' in status",
        "status == '200'",
    ],
)
def test_what_is_not_so_and_no_error_either(text):
    assert not Condition(text)(RECORD)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("statu == 200", "a record has no field 'statu'; did you mean 'status'?"),
        ("status = 200", "can not be read at character"),
        ("", "can not be read"),
        ("status is null", "write == null"),
        ("url.x == 1", "only meta and extracted have something within"),
        ("__import__('os').system('id')", "has no function"),
        ("header", "without what it is to be applied to"),
        ("heade('x')", "did you mean 'header'?"),
        ("header(url)", "no text in quotes"),
        ("header('a', 'b')", "it takes 1"),
        ("lower(url, x=url)", "it takes 1"),
        ("matches(url, '(')", "no regular expression: missing ): ("),
        ("matches(url, '(?<=a)b')", "which has no lookarounds and backreferences"),
        (r"matches(url, '(a)\\1')", "which has no lookarounds and backreferences"),
        ("-status < 1", "no condition can have"),
        ("-True", "no number"),
        ("-'a' == 1", "which is no number"),
        ("status + 1 == 2", "no condition can have"),
        ("[x for x in url]", "no condition can have"),
        ("(lambda: 1)()", "has no function"),
        ("f'{url}'", "no condition can have"),
        ("b'x' in body", "no condition can have"),
        ("url if status else body", "no condition can have"),
        ("(y := 1)", "no condition can have"),
        ("(" * 5000, "longer than"),
        ("(" * 1000 + "1" + ")" * 1000, "can not be read"),
        ("not " * 990 + "status", "nested too deeply"),
    ],
)
def test_what_no_condition_can_be(text, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        Condition(text)


def test_conditions_are_equal_if_their_texts_are():
    assert Condition("status == 200") == Condition("status == 200") != Condition("status == 201")
    assert len({Condition("status == 200"), Condition("status == 200")}) == 1
    assert str(Condition("status == 200")) == "status == 200"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "^(a|a?)+$", "(.*a){20}$"])
def test_no_text_makes_a_pattern_take_for_ever(pattern):
    # Minutes to ages with an engine that goes back, at a thirty thousandth of this length.
    hostile = msgspec.structs.replace(RECORD, body=b"a" * 1_000_000 + b"!", error_message="a" * 1_000_000 + "é")
    assert not Condition(f"matches(body, '{pattern}')")(hostile)
    assert not Condition(f"matches(error_message, '{pattern}')")(hostile)


def test_patterns_are_about_characters_whatever_the_bytes():
    assert Condition("matches(body, 'caf.<')")(RECORD)
    assert Condition("matches(error_message, '^.x$')")(msgspec.structs.replace(RECORD, error_message="\udcffx"))
    assert Condition("matches(body, 'x')")(msgspec.structs.replace(RECORD, body=b"\xff\xfex"))
