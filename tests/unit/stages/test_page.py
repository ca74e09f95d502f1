"""Pages that were made to be slow, and large ones that only look like them."""

from __future__ import annotations

import sys

import pytest
from selectolax import lexbor

from fetcher.errors import ErrorKind
from fetcher.model import Outcome, Result
from fetcher.pipeline.stages import Stages
from fetcher.stages import page
from fetcher.stages.extract import ExtractConfig
from fetcher.stages.page import Rule, find, found, is_quick

RULES = [Rule("title", "h1"), Rule("links", "a", attr="href", all=True), Rule("none", "h6")]
LARGE = {
    "rows": "<h1>é</h1>" + "<p><a href=/x>x</a></p>" * 15_000,
    "image": f"<h1>é</h1><img src='data:{'a/b' * 200_000}'>" + "<a href=/x>" * 3,
}


@pytest.mark.parametrize(
    "text",
    [
        "<div>" * 400_000,
        "<ul><li>" * 200_000,
        f"<a {' '.join(f'x{n}' for n in range(400_000))}>",
        f"<a {'/'.join(f'x{n}' for n in range(400_000))}>",
        # What seems to end the tag is in quotes.
        f"<script x='\"' y=\">' \" {' '.join(f'x{n}' for n in range(400_000))}>",
    ],
)
def test_a_page_that_was_made_to_be_slow_is_given_up(monkeypatch, text):
    monkeypatch.setattr(page, "TIME", 1)
    with pytest.raises(ValueError, match="the page takes longer than 1 s to be parsed: it is nested too deeply"):
        find(text, RULES, lexbor)


async def test_the_job_of_such_a_page_has_failed_and_no_other(monkeypatch):
    monkeypatch.setattr(page, "TIME", 1)
    stage = ExtractConfig(css={"title": "h1"}).build()
    results = [
        Result(batch="b", job_id=str(n), url="u", outcome=Outcome.OK, attempts=1, status=200, body=body)
        for n, body in enumerate([b"<h1>a</h1>", b"<div>" * 400_000, b"<h1>c</h1>"])
    ]
    first, slow, last = (await Stages({"extract": stage}).run(results)).records
    assert (first.extracted, last.extracted) == ({"title": "a"}, {"title": "c"})
    assert (slow.outcome, slow.error_kind) == (Outcome.FAILED, ErrorKind.STAGE_FAILED)
    assert "nested too deeply" in slow.error_message


@pytest.mark.parametrize("name", LARGE)
def test_a_large_page_has_what_it_has_in_whatever_process(name):
    assert not is_quick(LARGE[name])
    values = find(LARGE[name], RULES, lexbor)
    assert values == found(LARGE[name], RULES, lexbor)
    assert (values["title"], set(values["links"]), values["none"]) == ("é", {"/x"}, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<div>" * 10_000,
        "<p>x y z</p>" * 8_000,
        f'<script type="text/javascript" async>{"var x = 1; " * 100_000}</script>',
        f"<STYLE>{'a { b: c } ' * 100_000}</STYLE>",
    ],
)
def test_what_takes_no_time_is_read_at_once(text):
    assert is_quick(text)


@pytest.mark.parametrize("text", ["x" * 10_000, "x" * 100_000])
def test_no_more_is_found_than_can_be_held(text):
    with pytest.raises(ValueError, match="elements in elements have the same text"):
        find("<div>" * (70_000_000 // len(text)) + text, [Rule("x", "div", all=True)], lexbor)


def test_a_process_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ValueError, match="the page can not be parsed: exit 1"):
        find(LARGE["rows"], RULES, lexbor)
