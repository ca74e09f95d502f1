"""What an answer is held to, and what is said of one that is not so."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fetcher.answers.expectations import LARGE, ExpectSettings
from fetcher.model import Response


def expecting(**settings):
    expectation = ExpectSettings(**settings).build()
    expectation.check()
    return expectation


def answer(status=200, body=b"", content_type=None, **more):
    more = {"method": "GET", "final_url": "http://a.test/", "headers": []} | more
    return Response(status=status, body=body, content_type=content_type, **more)


@pytest.mark.parametrize(
    ("wanted", "well", "not_well"),
    [
        (200, {200}, {199, 201, 304, 404}),
        ("404", {404}, {200, 403, 405}),
        ("2xx", {200, 204, 299}, {199, 300, 404}),
        ("5XX", {500, 503}, {200, 499, 600}),
        ([200, "202-204", 404], {200, 202, 203, 204, 404}, {201, 205, 410}),
        ([" 200 - 201 "], {200, 201}, {202}),
    ],
)
@pytest.mark.parametrize("usual", [True, False])
def test_a_status_that_is_expected_is_well_and_no_other_is(wanted, well, not_well, usual):
    expectation = expecting(status=wanted)
    assert all(expectation.takes(answer(status), usual=usual) for status in well)
    assert not any(expectation.takes(answer(status), usual=usual) for status in not_well)


@pytest.mark.parametrize("usual", [True, False])
def test_without_a_status_the_usual_is_well(usual):
    assert expecting(matches="x").takes(answer(418), usual=usual) is usual
    # What is not http has no status, or that of its beginning.
    assert expecting(status=404).takes(answer(None), usual=usual) is usual
    assert expecting(status=404).takes(answer(101), usual=usual) is usual


def test_an_earlier_body_that_is_still_so_is_as_good_as_a_200():
    assert expecting(status=200).takes(answer(304, revalidated=True), usual=True)
    assert not expecting(status=200).takes(answer(304), usual=True)
    assert not expecting(status=404).takes(answer(304, revalidated=True), usual=True)


def test_of_a_status_it_is_said_which_were_expected():
    said = expecting(status=[200, "202-203", "4xx"]).status_missed(answer(500))
    assert said == "expected the status 200, 202-203, 4xx, and it is 500"
    said = expecting(status=list(range(100, 999))).status_missed(answer(999))
    assert said.endswith("..., and it is 999")
    assert len(said) < 300


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("application/json", "application/json"),
        ("application/json", "Application/JSON; charset=utf-8"),
        ("APPLICATION/json", "application/json ;x"),
        ("text/*", "text/html"),
        ("*/*+json", "application/problem+json"),
        (["text/html", "application/*"], "application/xml"),
    ],
)
def test_a_content_type_that_is_expected(wanted, found):
    assert expecting(content_type=wanted).missed(answer(content_type=found)) is None


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        ("text/html; charset=x", "'text/html'"),
        ("application/jsonp", "'application/jsonp'"),
        ("x-application/json", "'x-application/json'"),
        ("a\x1b[31m\n", r"'a\x1b[31m'"),
        ("t" * 5000, "ttt...'"),
        (None, "the answer names none"),
        ("", "the answer names none"),
        ("; charset=utf-8", "the answer names none"),
    ],
)
def test_a_content_type_that_is_not_is_told(found, shown):
    said = expecting(content_type="application/json").missed(answer(content_type=found))
    assert said.startswith("expected the content type application/json, and ")
    assert said.endswith(shown)
    assert said.isprintable()
    assert len(said) < 300


def test_what_is_not_http_is_not_asked_for_its_content_type():
    assert expecting(content_type="text/*").missed(answer(None)) is None
    assert expecting(content_type="text/*").missed(answer(101)) is None


def test_a_condition_over_json():
    expectation = expecting(json="status == 'done'")
    assert expectation.missed(answer(body=b'{"status": "done"}')) is None
    said = expectation.missed(answer(body=b'{"status": "pending"}'))
    assert said == """expected JSON with "status == 'done'", which is false"""


@pytest.mark.parametrize(
    ("body", "value"), [(b'{"items": []}', "[]"), (b"{}", "null"), (b'{"items": ""}', '""'), (b"[1]", "null")]
)
def test_what_is_empty_does_not_meet_a_condition(body, value):
    assert expecting(json="items").missed(answer(body=body)).endswith(f"which is {value}")


def test_zero_does_as_jmespath_has_it():
    assert expecting(json="count").missed(answer(body=b'{"count": 0}')) is None


DEEP = b"[" * 200_000 + b"]" * 200_000


@pytest.mark.parametrize(
    ("response", "why"),
    [
        (answer(body=b"<p>secret"), "the body is not JSON: JSON is malformed: invalid character (byte 0)"),
        (answer(body=b'{"a": "\xff\xfe"}'), "the body is not JSON: it is not UTF-8"),
        (answer(body=b'{"a": [1, 2', truncated=True), "Input data was truncated; it was cut at body.max_size"),
        (answer(body=DEEP), "the body is not JSON: maximum recursion depth exceeded"),
        (answer(body=b""), "the answer has no body"),
        (answer(body=None), "the answer has no body"),
        (answer(body=b"", method="HEAD"), "the answer has no body; HEAD asks for none"),
        (answer(204, body=b""), "the answer has no body"),
        (answer(body=b"\x1f\x8b", content_encoding="x-snappy"), "the body is still coded as 'x-snappy'"),
        (answer(body=b'{"a": 1}'), "length() is given a number"),
    ],
)
def test_a_body_that_can_not_be_asked_is_told_of(response, why):
    said = expecting(json="length(a)").missed(response)
    assert said.startswith("expected JSON with 'length(a)', and ")
    assert why in said
    assert "secret" not in said
    assert len(said) < 400


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("grün".encode(), None),
        ("grün".encode(), "text/plain; charset=utf-8"),
        ("grün".encode("latin-1"), "text/plain; charset=iso-8859-1"),
        ("grün".encode("utf-16"), "application/octet-stream"),
        ("grün".encode("cp1252") + b"\x80", None),
    ],
)
def test_a_pattern_is_found_in_the_text_whatever_its_charset(body, content_type):
    assert expecting(matches="^gr[ü]n").missed(answer(body=body, content_type=content_type)) is None


def test_a_pattern_that_is_not_found():
    said = expecting(matches="done|ready").missed(answer(body=b"x" * 2000, truncated=True))
    assert said == (
        "expected a body in which 'done|ready' is found, and it is not in the 2,000 bytes that there are; "
        "it was cut at body.max_size"
    )
    assert expecting(matches="a").missed(answer(body=b"")).endswith("and the answer has no body")
    coded = answer(body=b"a", content_encoding="x")
    assert expecting(matches="a").missed(coded).endswith("and the body is still coded as 'x'")


def test_a_pattern_that_nothing_meets_is_met_by_nothing():
    assert expecting(matches="^$").missed(answer(body=b"")) is None


@pytest.mark.parametrize("name", ["json", "matches"])
def test_what_is_expected_is_shown_within_bounds(name):
    said = expecting(**{name: "x" * 5000}).missed(answer(body=b"{}"))
    assert len(said) < 300


def test_all_that_is_expected_has_to_hold_the_cheapest_first():
    expectation = expecting(content_type="text/*", json="a", matches="b")
    assert "content type" in expectation.missed(answer(content_type="image/png"))
    assert "JSON" in expectation.missed(answer(content_type="text/plain", body=b"b"))
    assert "'b' is found" in expectation.missed(answer(content_type="text/plain", body=b'{"a": 1}'))
    assert expectation.missed(answer(content_type="text/plain", body=b'{"a": "b"}')) is None


def test_only_large_bodies_that_are_looked_at_take_long():
    large, small = answer(body=b"x" * (LARGE + 1)), answer(body=b"x" * LARGE)
    assert expecting(json="a").takes_long(large)
    assert expecting(matches="a").takes_long(large)
    assert not expecting(matches="a").takes_long(small)
    assert not expecting(matches="a").takes_long(answer(body=None))
    assert not expecting(status=200, content_type="a/b").takes_long(large)


@pytest.mark.parametrize("settings", [{}, {"retry": False}, {"status": None, "matches": None}, {"status": []}])
def test_nothing_to_expect_is_a_mistake(settings):
    with pytest.raises(ValidationError):
        ExpectSettings(**settings)


@pytest.mark.parametrize("status", [True, 99, 1000, "2x", "xx", "200-", "204-200", "200,201", 200.5, "٢٠٠", {"a": 1}])
def test_what_is_no_status_is_refused(status):
    with pytest.raises(ValidationError, match="should be a status such as 200, or several as 2xx or 200-204"):
        ExpectSettings(status=[status])


def test_settings_can_be_written_down_and_read_again():
    settings = ExpectSettings(status=["2xx", 404, "501-503"], content_type="Text/*", json="a")
    written = settings.model_dump(mode="json", by_alias=True)
    assert written["status"] == ["2xx", "404", "501-503"]
    assert ExpectSettings.model_validate(written) == settings


def test_a_condition_holds_whoever_forgot_to_check_it():
    assert ExpectSettings(json="a").build().missed(answer(body=b"{}")) is not None


def test_a_condition_that_is_none_is_told_before_any_fetch():
    with pytest.raises(ValidationError, match=r"json\n  'a ==' is no JMESPath: Incomplete expression"):
        ExpectSettings(json="a ==")
