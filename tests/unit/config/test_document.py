from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.config import document
from fetcher.config.document import parse, resolve
from fetcher.config.problems import ConfigProblems


def read(text, environ=None):
    return parse(text, "x.yaml", {} if environ is None else environ)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("true", True),
        ("FALSE", False),
        # What YAML 1.1 would have turned into something else.
        ("yes", "yes"),
        ("on", "on"),
        ("No", "No"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("-7", -7),
        ("+7", 7),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("-.inf", float("-inf")),
        ("10s", "10s"),
        ("5%", "5%"),
        ("1.2.3", "1.2.3"),
        ("\u0665", "\u0665"),
        ("9" * 10_000, "9" * 10_000),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(text, value):
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_nan_is_a_float():
    assert resolve(".nan") != resolve(".nan")


def test_quoted_scalars_and_keys_are_text():
    assert read("5: '5'\ntrue: \"true\"\n~: |\n  a\n  b\n").data == {"5": "5", "true": "true", "~": "a\nb\n"}


def test_every_value_has_the_line_of_its_key():
    text = "a: 1\nlimits:\n  per_host:\n    concurrency: 5\nsinks:\n  - one\n  -\n    x: 2\n"
    assert read(text).lines == {
        (): 1,
        ("a",): 1,
        ("limits",): 2,
        ("limits", "per_host"): 3,
        ("limits", "per_host", "concurrency"): 4,
        ("sinks",): 5,
        ("sinks", 0): 6,
        ("sinks", 1): 8,
        ("sinks", 1, "x"): 8,
    }


def test_an_alias_repeats_its_anchor_as_data_of_its_own():
    found = read("a: &x {k: [1]}\nb: *x\n")
    assert found.data == {"a": {"k": [1]}, "b": {"k": [1]}}
    assert found.data["a"] is not found.data["b"]
    assert found.lines[("b",)] == 2
    assert found.lines[("b", "k")] == 1


def test_an_anchor_may_be_used_again_for_something_else():
    assert read("a: &x 1\nb: *x\nc: &x 2\nd: *x\n").data == {"a": 1, "b": 1, "c": 2, "d": 2}


def test_an_alias_may_be_a_key():
    assert read("a: &x name\n*x : 5\n").data == {"a": "name", "name": 5}


def test_standard_tags_are_understood():
    text = "a: !!str 5\nb: !!int '5'\nc: !!float 5\nd: ! 5\ne: !!null ''\nf: !!bool 'true'\n"
    text += "g: !!seq []\nh: !!map {}\n"
    found = read(text)
    assert found.problems == []
    assert found.data == {"a": "5", "b": 5, "c": 5, "d": "5", "e": None, "f": True, "g": [], "h": {}}


@pytest.mark.parametrize(
    "value",
    [
        "!!python/name:os.system x",
        "!!binary aGk=",
        "!!timestamp 2024-01-01",
        "!!set {a}",
        "!include x",
        "!!map []",
    ],
)
def test_other_tags_are_refused_and_build_nothing(value):
    found = read(f"a: {value}\n")
    assert [problem.path for problem in found.problems] == [("a",)]
    assert "is not allowed here" in found.problems[0].message


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "---\n...\n"])
def test_a_document_may_be_empty(text):
    assert read(text).data is None


def test_comments_before_the_only_document_are_fine():
    assert read("# hello\n--- # here\na: 1\n...\n").data == {"a": 1}


def test_a_merge_key_is_a_key_like_any_other():
    assert read("<<: {a: 1}\n").data == {"<<": {"a": 1}}


def test_variables_are_replaced_wherever_a_value_stands():
    found = read("a: ${HOST}:${PORT:80}\nb: ['${HOST}']\nc: {d: \"${NONE:}\"}\n", {"HOST": "h"})
    assert found.problems == []
    assert found.data == {"a": "h:80", "b": ["h"], "c": {"d": ""}}
    assert found.variables == {"HOST", "PORT", "NONE"}


def test_a_plain_variable_may_give_a_number_and_a_quoted_one_is_text():
    found = read("a: ${N}\nb: '${N}'\nc: ${N}0\nd: ${M:7}\ne: ${E}\n", {"N": "5", "E": ""})
    assert found.data == {"a": 5, "b": "5", "c": "50", "d": 7, "e": None}
    assert found.texts == {("a",): "5", ("d",): "7"}


def test_a_variable_can_not_add_keys_or_structure():
    value = "x\nadmin: true\n- *a !!python/name:os.system {}"
    assert read("a: ${V}\n", {"V": value}).data == {"a": value}


def test_what_a_variable_holds_is_not_replaced_again():
    assert read("a: '${V}'\n", {"V": "${W}", "W": "secret"}).data == {"a": "${W}"}


def test_a_dollar_is_escaped_by_a_dollar():
    assert read('a: $${HOME}\nb: $5 $$ ${"x\n', None).problems[0].path == ("b",)
    assert read("a: $${HOME}\nb: '$5 $$ $x'\n").data == {"a": "${HOME}", "b": "$5 $$ $x"}


def test_keys_are_not_replaced():
    assert read("${A}: 1\n").data == {"${A}": 1}


def test_without_an_environment_nothing_is_replaced():
    assert parse("a: '${V}'", "x", None).data == {"a": "${V}"}


def test_all_unset_variables_and_duplicates_are_told_at_once():
    found = read("a: ${ONE}\nb: ${TWO}\na: 3\n")
    assert [(problem.path, problem.line) for problem in found.problems] == [
        (("a",), None),
        (("b",), None),
        (("a",), 3),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [" + "x," * 1000 + "]\nb: [" + "*a," * 1000 + "]\n",
        "a: &a {k: 1}\nb: [" + "*a," * 60_000 + "]\n",
    ],
)
def test_aliases_are_bounded(text):
    with pytest.raises(ConfigProblems, match="aliases repeat more than 100,000 values"):
        read(text)


def test_an_alias_bomb_is_refused_at_once():
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 60)]
    started = time.monotonic()
    with pytest.raises(ConfigProblems, match="aliases repeat"):
        read("\n".join(lines))
    assert time.monotonic() - started < 10


def test_aliases_can_not_nest_deeper_than_the_document_may():
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 2000)]
    with pytest.raises(ConfigProblems, match="aliases"):
        read("\n".join(lines))


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 5000, "- " * 5000, "? " * 5000])
def test_depth_is_bounded(text):
    with pytest.raises(ConfigProblems, match=r"nested more than 100 deep|not YAML"):
        read(text)


def test_the_number_of_values_is_bounded(monkeypatch):
    monkeypatch.setattr(document, "MAX_NODES", 100)
    with pytest.raises(ConfigProblems, match="more than 100 values"):
        read("[" + "x," * 101 + "]")


@given(st.text())
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        found = read(text)
    except ConfigProblems as error:
        told = error.problems
        assert len(told) == 1
        assert told[0].startswith("x.yaml:")
        assert "\n" not in told[0]
    else:
        assert all("\n" not in problem.message for problem in found.problems)


@given(st.dictionaries(st.sampled_from(["A", "B"]), st.text()))
def test_any_environment_gives_text_or_a_scalar(environ):
    found = read("a: '${A:}-${B:}'\nb: ${A:}\n", environ)
    assert found.data["a"] == f"{environ.get('A', '')}-{environ.get('B', '')}"
    assert found.data["b"] is None or isinstance(found.data["b"], str | int | float)
