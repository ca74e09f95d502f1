"""Texts with places: what is read, what is refused with what to write, and that no value becomes syntax."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from decimal import Decimal
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fetcher.jobs.intake import MAX_DEPTH, RowError, make_job
from fetcher.jobs.templating import DataTemplate, Template, UrlTemplate, one_line

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("text", "filled", "names"),
    [
        ("plain", "plain", []),
        ("", "", []),
        ("{a}", "1", ["a"]),
        ("{row.a}", "1", ["a"]),
        ("{row.a b}", "2", ["a b"]),
        ("{row.row.x}", "3", ["row.x"]),
        ("{row}", "4", ["row"]),
        ("<{a}-{a}>", "<1-1>", ["a", "a"]),
        ("{{{a}}}", "{1}", ["a"]),
        ("{{a}} {{", "{a} {", []),
        ("{ä}{a-b}", "56", ["ä", "a-b"]),
    ],
)
def test_places(text, filled, names):
    template = Template(text)
    row = {"a": 1, "a b": 2, "row.x": 3, "row": 4, "ä": 5, "a-b": 6}
    assert (template.filled(row), template.names) == (filled, names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a{", "the '{' at character 2 has no partner; a brace that is meant as such is written twice"),
        ("a}b", "the '}' at character 2 has no partner"),
        ("{a", "no partner"),
        ("{}", "'{}' at character 1 is no place; write {name}, or {{ and }}"),
        ("{ }", "is no place"),
        ("x{a b}", "'{a b}' at character 2 is no place; write {row.a b} for the column of that name, or {{ and }}"),
        ("{row.}", "is no place"),
        ("{a.b}", "write {row.a.b}"),
        ("a\0", "contains NUL"),
    ],
)
def test_what_is_no_template_is_told_with_what_to_write(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Template(text)


@given(st.text(st.sampled_from("{}ab."), max_size=12))
def test_any_text_is_a_template_or_refused(text):
    try:
        template = Template(text)
    except ValueError:
        return
    assert template.filled(dict.fromkeys(template.names, "x")) is not None


@given(TEXTS)
def test_braces_that_are_doubled_are_braces(text):
    assume("\0" not in text)
    assert Template(text.replace("{", "{{").replace("}", "}}")).filled({}) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (1.5, "1.5"),
        (Decimal("1.50"), "1.50"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        ("{a}", "{a}"),
    ],
)
def test_values_as_text(value, text):
    assert Template("{a}").filled({"a": value}) == text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "has no 'a'; it has nothing"),
        ({"b": 1, "c": 2}, "has no 'a'; it has b, c"),
        ({"a": None}, "'a' is null, where text is needed"),
        ({"a": []}, "'a' is a list, where text is needed"),
        ({"a": {}}, "'a' is an object, where text is needed"),
        ({"a": b"x"}, "'a' is binary"),
        ({"a": "\ud800"}, "lone surrogate"),
    ],
)
def test_what_can_fill_no_text(row, message):
    with pytest.raises(RowError, match=re.escape(message)):
        Template("{a}!").filled(row)


# URLs


URL = UrlTemplate("https://{user}:pw@{sub}.example.org:{port}/a/{one}/x{two}?q={q}&z=1")


@given(st.tuples(TEXTS, TEXTS, TEXTS, TEXTS))
def test_no_value_changes_what_a_url_is_made_of(values):
    user, one, two, q = values
    assume(one not in {"", ".", ".."})
    row = {"user": user, "sub": "api", "port": 8080, "one": one, "two": two, "q": q}
    url = urlsplit(URL.filled(row))
    assert (url.scheme, url.hostname, url.port) == ("https", "api.example.org", 8080)
    assert (unquote(url.username), url.password) == (user, "pw")
    assert [unquote(segment) for segment in url.path.split("/")] == ["", "a", one, f"x{two}"]
    assert parse_qsl(url.query, keep_blank_values=True) == [("q", q), ("z", "1")]


@given(TEXTS, TEXTS)
def test_nor_does_what_intake_makes_of_it(one, q):
    assume(one not in {"", ".", ".."})
    # The host is none that intake keeps as it is, so that all of it is parsed and written anew.
    job = make_job("1", UrlTemplate("http://bücher.test/{one}/z?q={q}#top").filled({"one": one, "q": q}))
    assert job.rejected is None
    url = urlsplit(job.url)
    assert (job.host, [unquote(segment) for segment in url.path.split("/")]) == ("xn--bcher-kva.test", ["", one, "z"])
    assert parse_qsl(url.query, keep_blank_values=True) == [("q", q)]


@given(TEXTS)
def test_a_place_in_a_host_stays_within_it(value):
    try:
        job = make_job("1", UrlTemplate("http://{sub}.example.org/").filled({"sub": value}))
    except RowError:
        return
    assert job.rejected is not None or job.host.endswith(".example.org")


@pytest.mark.parametrize("value", ["", ".", ".."])
@pytest.mark.parametrize(
    "text", ["http://a.test/{v}", "http://a.test/{v}/b", "http://a.test/a/{v}?x", "http://a.test/{v}{v}"]
)
def test_a_segment_of_a_path_is_never_another_path(text, value):
    if text.endswith("{v}{v}") and value == "..":
        assert UrlTemplate(text).filled({"v": value}).endswith("/....")
        return
    with pytest.raises(RowError, match="means another path"):
        UrlTemplate(text).filled({"v": value})


@pytest.mark.parametrize("text", ["http://a.test/.{v}", "http://a.test/%2e{v}/x", "http://a.test/{v}%2E"])
def test_nor_together_with_what_stands_beside_it(text):
    with pytest.raises(RowError, match="means another path"):
        UrlTemplate(text).filled({"v": "."})


@pytest.mark.parametrize("value", ["", ".", ".."])
@pytest.mark.parametrize("text", ["http://a.test/{v};x", "http://a.test/a/{v};x={v}/b", "http://a.test/;{v}"])
def test_nor_by_its_name_before_parameters(text, value):
    template = UrlTemplate(text)
    if "/;" in text:
        assert template.filled({"v": value}) == f"http://a.test/;{value}"  # as the config has it, whatever the value
        return
    with pytest.raises(RowError, match="means another path"):
        template.filled({"v": value})


@pytest.mark.parametrize("value", ["a;b", "...", "..;x", ";", "%2e%2e"])
def test_what_is_no_dots_stays_a_segment(value):
    url = UrlTemplate("http://a.test/{v};x").filled({"v": value})
    assert unquote(url.removeprefix("http://a.test/").removesuffix(";x")) == value
    assert url.count(";") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{url}", "{url} is a URL that is whole in a column; leave it out, and set column to its name"),
        ("{scheme}{rest}", "has no scheme"),
        ("a.test/{v}", "has no scheme; write https:// before it"),
        ("http://a.test/%{v}", "has a % just before a place; write %25"),
        ("http://a.test/%2{v}", "has a % just before a place"),
        ("http://a.test/{v", "no partner"),
    ],
)
def test_what_is_no_template_of_a_url(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        UrlTemplate(text)


def test_a_scheme_and_a_port_out_of_a_row():
    template = UrlTemplate("{scheme}://{host}:{port}")
    assert template.scheme is None
    assert template.filled({"scheme": "tcp", "host": "a-b.test", "port": "7"}) == "tcp://a-b.test:7"
    for row in ({"scheme": "a:b"}, {"host": "a/b"}, {"host": "a@b"}, {"port": "7/x"}):
        with pytest.raises(RowError, match=r"is no scheme|has what no host or port has"):
            template.filled({"scheme": "tcp", "host": "a", "port": 7, **row})
    assert make_job("1", template.sample()).rejected is None
    assert make_job("1", UrlTemplate("https://[::1]:{port}/{a}?{b}").sample()).rejected is None


# JSON


def test_a_value_that_is_one_place_keeps_its_type():
    template = DataTemplate({"a": "{a}", "list": ["{a}", "<{a}>"], "n": 5, "{k}": "{{x}}", "at": "{at}"})
    row = {"a": {"b": [1, None]}, "at": dt.date(2026, 1, 2)}
    with pytest.raises(RowError, match="an object, where text is needed"):
        template.filled(row)
    row["a"] = 7
    assert template.filled(row) == {"a": 7, "list": [7, "<7>"], "n": 5, "{k}": "{x}", "at": "2026-01-02"}
    assert DataTemplate("{a}").filled({"a": None}) is None
    assert DataTemplate(["{a}"], as_text=True).filled({"a": 7}) == ["7"]
    with pytest.raises(RowError, match="binary"):
        DataTemplate(["{a}"]).filled({"a": b"x"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)
)


@given(JSON, TEXTS)
def test_no_value_changes_what_json_is_made_of(value, text):
    filled = DataTemplate({"a": {"b": "{v}"}, "c": ["<{t}>"]}).filled({"v": value, "t": text})
    assert filled == {"a": {"b": value}, "c": [f"<{text}>"]}


def test_what_is_wrong_in_json_is_told_with_its_place():
    with pytest.raises(ValueError, match=r"^a\.1\.b: the '\{' at character 2 has no partner"):
        DataTemplate({"a": [0, {"b": "x{"}]})
    value = 0
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(ValueError, match="nested deeper than 100 levels"):
        DataTemplate(value)


@given(TEXTS)
def test_a_line_has_one_end(value):
    try:
        line = Template("GET {v}\r\n").filled({"v": value}, one_line)
    except RowError:
        return
    assert line.splitlines(keepends=True) == [f"GET {value}\r\n"]
