"""Configs as they are found in files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fetcher.config import ConfigProblems
from fetcher.config.document import parse
from fetcher.service.batches.texts import as_text, read_config


def told(path, most=1000):
    with pytest.raises(ConfigProblems) as caught:
        read_config(path, "b", most)
    return caught.value.problems


def test_a_config_is_read_as_it_is(tmp_path):
    path = tmp_path / "b.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: \xc3\xa4\n")
    assert read_config(path, "b", 1000) == "name: ä\n"
    path = tmp_path / "b.json"
    path.write_text('{"a": "\\ud83d\\ude00 \\/"}')
    assert parse(read_config(path, "b", 1000), "b", {}).data == {"a": "\U0001f600 /"}


def test_what_can_not_be_one_is_told(tmp_path):
    path = tmp_path / "b.yaml"
    assert told(path) == ["b: can not be read: No such file or directory"]
    assert told(tmp_path) == ["b: can not be read: Is a directory"]
    path.write_bytes(b"a: 1\nb: \xff\n")
    assert told(path) == ["b:2: is not UTF-8; save the file as UTF-8"]
    path.write_text("x" * 11)
    assert told(path, 10) == ["b: is larger than service.max_config (10 bytes)"]
    path = tmp_path / "b.json"
    path.write_text('{"a": ')
    assert told(path)[0].startswith("b: is not JSON: ")
    path.write_text("[" * 900)
    assert told(path)[0].startswith("b: is not JSON: ")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["C"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["C"])), inner),
    )
)
def test_data_is_the_same_as_text_whatever_it_names(data):
    assert parse(as_text({"data": data}), "b", {"HOME": "/root"}).data == json.loads(json.dumps({"data": data}))


def test_what_looks_like_a_variable_is_not_looked_up_again():
    document = parse(as_text({"a": "${HOME}", "b": "$${HOME}"}), "b", {"HOME": "/root"})
    assert document.data == {"a": "${HOME}", "b": "$${HOME}"}
    assert document.problems == []
