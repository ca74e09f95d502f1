"""JMESPath: what is none is said before anything is fetched, and what it can not be applied to is a ValueError."""

from __future__ import annotations

import pytest

from fetcher.answers.expressions import compiled, is_true, json_of
from fetcher.errors import ConfigError, MissingExtraError


@pytest.mark.parametrize(
    ("expression", "data", "expected"),
    [
        ("a.b", {"a": {"b": 1}}, 1),
        ("a.b", None, None),
        ("status == 'done'", {"status": "done"}, True),
        ("items[?n > `1`].n", {"items": [{"n": 1}, {"n": 2}]}, [2]),
        ("not_null(a, b, c)", {"c": 3}, 3),
        ("[1:3]", [1, 2, 3, 4], [2, 3]),
        ("[::-1]", [1, 2], [2, 1]),
        ("map(&[@, @], [0:1])", [1, 2], [[1, 1]]),
        (" | ".join(["[?n == `1`]"] * 30), [{"n": 1}, {"n": 2}], [{"n": 1}]),
        (f"{{{', '.join(f'f{n}: a' for n in range(900))}}}.f1", {"a": 7}, 7),
        (".".join("a" * 3000), {}, None),
    ],
)
def test_an_expression_is_applied(expression, data, expected):
    assert compiled(expression, "x")(data) == expected


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("a[", "Incomplete expression"),
        ("a b", "Unexpected token: b"),
        ("'a", "Unclosed"),
        ("", "cannot be empty"),
        ("(" * 5000, "it is nested too deeply"),
        ("a && lenght(b)", r"there is no function lenght\(\); did you mean 'length'"),
        ("contains(a)", r"contains\(\) takes 2 arguments, not 1"),
        (" | ".join(["[@, @][]"] * 40), "it makes too many copies of what it is given"),
        ("map(&[@,@,@,@,@,@,@,@,@,@][], [a,a,a,a,a,a,a,a,a,a].[@,@,@,@,@,@,@,@,@,@,@])", "it makes too many copies"),
        ("length(a, b)", r"length\(\) takes 1 arguments, not 2"),
    ],
)
def test_what_is_no_jmespath_is_said_at_once(expression, why):
    with pytest.raises(ConfigError, match=f"^expect.json: .* is no JMESPath: .*{why}"):
        compiled(expression, "expect.json")


@pytest.mark.parametrize(
    ("expression", "data", "why"),
    [
        ("length(@)", 5, r"length\(\) is given a number, and takes string, array, object"),
        ("contains(@, `1`)", "secret", "it can not be applied: 'in <string>' requires string"),
        ("sort(@)", ["secret", 1], r"sort\(\) is given a int"),
        ("sum(@)", ["secret"], r"sum\(\) is given a str"),
    ],
)
def test_what_it_can_not_be_applied_to_is_a_value_error_without_the_value(expression, data, why):
    with pytest.raises(ValueError, match=why) as caught:
        compiled(expression, "x")(data)
    assert "secret" not in str(caught.value)


def test_without_the_library_the_user_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jmespath", None)
    with pytest.raises(MissingExtraError, match=r"expect\.json needs jmespath"):
        compiled("a", "expect.json")


@pytest.mark.parametrize("value", [0, 0.0, 1, -1, True, "x", [0], {"a": None}])
def test_true_as_jmespath_has_it(value):
    assert is_true(value)


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_false_as_jmespath_has_it(value):
    assert not is_true(value)


def test_json_with_and_without_a_byte_order_mark():
    assert json_of(b'\xef\xbb\xbf{"a": "\xc3\xa4"}') == json_of(b'{"a": "\\u00e4"}') == {"a": "ä"}


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": ', b'"\xff"', b"[" * 100_000, b"NaN", b"1 2", b"9" * 5000])
def test_what_is_no_json_is_a_value_error(body):
    with pytest.raises(ValueError, match="the body is not JSON: "):
        json_of(body)
